"""Define the columns of the table of a report: heading, explanation, and the value and text of a cell."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from zoo_harness.records.run import Measurement, RunRecord
from zoo_harness.reports.page.entries import Entry, shown
from zoo_harness.reports.page.svg import compact
from zoo_harness.reports.wording import pretrained_on
from zoo_harness.util import durations

GROUPS = {
    "result": "Result",
    "separation": "Separation",
    "cost": "Cost",
    "measures": "More measures",
    "model": "Model",
    "published": "Published",
    "origin": "Origin",
}
HIDDEN = ("measures", "model", "published", "origin")  # groups of columns that are hidden until the reader shows them
MISSING = "\N{EN DASH}"
TIER = Markup('<b class="tier">1</b>')
Value = str | int | float | None


@dataclass(frozen=True)
class Column:
    """One column. ``value`` returns the value that sorts the rows. ``text`` formats this value for the cell.

    If ``cell`` is given, it replaces ``text`` and gets the whole row. ``help`` explains the column. ``missing`` says
    why a row can lack the value.
    """

    key: str
    label: str
    group: str
    value: Callable[[Entry], Value]
    text: Callable[[Any], str] = str
    cell: Callable[[Entry], str] | None = None
    numeric: bool = True
    help: str = ""
    missing: str = ""

    def content(self, entry: Entry) -> str:
        """Return the content of the cell of a row."""
        value = self.value(entry)
        if value is None:
            return MISSING
        return self.cell(entry) if self.cell else self.text(value)


def filled(columns: Sequence[Column], entries: Sequence[Entry]) -> tuple[list[Column], list[Column]]:
    """Return the columns in which at least one row has a value, then the columns without any value."""
    kept: list[Column] = []
    empty: list[Column] = []
    for column in columns:
        (kept if any(column.value(entry) is not None for entry in entries) else empty).append(column)
    return kept, empty


def software(entries: Sequence[Entry]) -> dict[str, str]:
    """Map each distinct combination of software and machine to a letter, or to a number if there are more than 26."""
    found = dict.fromkeys(_software(record) for entry in entries for record in entry.records)
    return {text: chr(65 + place) if len(found) <= 26 else str(place + 1) for place, text in enumerate(found)}


def _settings(entry: Entry) -> str:
    return ", ".join(f"{name} {value}" for name, value in entry.run.settings.items())


def _software(record: RunRecord) -> str:
    host, versions = record.host, ", ".join(f"{name} {version}" for name, version in record.versions.items())
    device = f"{host.accelerator or host.processor}, {host.cores} cores"
    return shown(f"{versions}; {device}; {record.settings.precision} on {record.settings.device}", 400)


# fmt: off
def all_columns(letters: dict[str, str]) -> tuple[Column, ...]:
    """Return all columns; ``letters`` is the dictionary that :func:`software` returns."""
    no_best = "the row is the best on its images, or it has no accuracy"
    untrained, earlier = "not measured, or no epoch was trained", "an earlier version did not measure it"
    unpublished = "no published accuracy has this setting"
    si = "Separation Index of the scored layer {} training: share of images whose nearest image has their label."
    unscored = "not scored: zoo scores a test split that was kept for the end after training only"
    return (
        Column("backbone", "Backbone", "result", lambda e: shown(e.run.backbone), numeric=False,
               help="The network, and the folder of its run."),
        Column("recipe", "Recipe", "result", lambda e: shown(e.run.recipe, 40), numeric=False,
               help="The training recipe."),
        Column("settings", "Settings", "result", lambda e: shown(_settings(e), 60) or None, numeric=False,
               help="The settings in which runs of the same backbone and recipe differ.",
               missing="the runs of the backbone and recipe have equal settings"),
        Column("accuracy", "Accuracy, %", "result", lambda e: e.row.accuracy, _percent, _accuracy,
               help="Share of correctly classified images, ± one standard error over the images; the mean if the "
               "row has several seeds.", missing="the run has no accuracy"),
        Column("difference", "Behind", "result", _difference, cell=_behind, missing="the row has no accuracy",
               help="Difference from the best row on the same images, in percentage points, ± its standard error."),
        Column("p_holm", "p", "result", _tested("p_holm"), _p, missing=no_best,
               help="p value of the paired test against the best row (McNemar, mid-p), corrected for all pairs of "
               "rows (Holm)."),
        Column("tier", "Tier", "result", lambda e: 1 if e.is_alike else None, lambda _one: TIER,
               missing="the test finds that the best row is better",
               help="1: the best row on its images, or a row that the test cannot tell from it (p at least 0.05)."),
        Column("seeds", "Seeds", "result", lambda e: len(e.row.seeds),
               help="Number of runs that differ in the seed alone; the row shows their means."),
        Column("accuracy_sd", "sd", "result", lambda e: e.row.accuracy_sd, _percent, missing="the row has one seed",
               help="Standard deviation of the accuracy over the seeds, in percentage points."),
        Column("p_seeds", "p, seeds", "result", _tested("p_seeds"), _p,
               missing="fewer than three seeds are shared with the best row",
               help="p value of the paired t test over the seeds, against the best row."),
        Column("si_before", "SI before", "separation", lambda e: e.row.si_before, _score, missing=unscored,
               help=si.format("before")),
        Column("si_after", "SI after", "separation", lambda e: e.row.si_after, _score, missing="not scored",
               help=si.format("after")),
        Column("trained", "Trained", "cost", lambda e: e.run.trained_parameters, compact,
               help="Number of trained parameters."),
        Column("total", "Total", "cost", lambda e: e.run.total_parameters, compact, help="Number of all parameters."),
        Column("seconds_per_epoch", "s/epoch", "cost", lambda e: e.row.train_seconds_per_epoch, _short,
               help="Mean seconds of training per epoch, without evaluation.", missing=untrained),
        Column("images_per_second", "Images/s", "cost", _images_per_second, _short, missing=untrained,
               help="Training images divided by the seconds per epoch; cached frozen outputs make it larger."),
        Column("total_seconds", "Time", "cost", lambda e: e.row.total_seconds, _time, missing="not measured",
               help="Time of the whole run with all its scores."),
        Column("memory", "Peak, GiB", "cost", lambda e: e.mean(lambda record: record.results.peak_memory_gib),
               "{:.2f}".format, help="Largest memory of the process, or of the accelerator.", missing="not measured"),
        Column("balanced_accuracy", "Balanced, %", "measures", lambda e: e.mean(_balanced), _percent, missing=earlier,
               help="Mean of the accuracies of the classes."),
        Column("macro_f1", "Macro F1, %", "measures", _predicted("macro_f1"), _percent, missing=earlier,
               help="Mean of F1 over the classes."),
        Column("calibration_error", "ECE, %", "measures", _predicted("calibration_error"), _percent, missing=earlier,
               help="Expected calibration error in 15 bins; lower is better."),
        Column("auroc", "AUROC, %", "measures", _predicted("auroc"), _percent, missing="defined for two classes only",
               help="Area under the ROC curve."),
        Column("top5", "Top-5, %", "measures", _predicted("top5"), _percent,
               missing="measured for more than five classes only",
               help="Share of images whose label is among the five likeliest classes."),
        Column("family", "Family", "model", lambda e: shown(e.record.backbone.plugin.rpartition(".")[2], 40),
               numeric=False, help="The plugin that declares the backbone."),
        Column("input", "Input, px", "model", _input_size, numeric=False,
               help="Height and width of the network's input."),
        Column("epochs", "Epochs", "model", lambda e: e.run.epochs, help="Number of epochs."),
        Column("pretrained_on", "Pretrained on", "model", lambda e: _optional(pretrained_on(e.record)), numeric=False,
               help="Data of the initial weights.", missing="the initial weights are random or of unknown origin"),
        Column("license", "Licence", "model", lambda e: _optional(e.record.weights.license), numeric=False,
               help="Licence of the initial weights.", missing="the weights declare no licence"),
        Column("published", "Published, %", "published", _published, "{:.2f}".format, missing=unpublished,
               help="Published accuracy of the same backbone, recipe, dataset, kind of split and number of epochs."),
        Column("published_difference", "Ours \N{MINUS SIGN} published", "published", _less_published, _signed,
               missing=unpublished, help="Our accuracy minus the published accuracy, in percentage points."),
        Column("date", "Started", "origin", lambda e: min(shown(each.started, 40) for each in e.records)[:10],
               numeric=False, help="Day on which the first run of the row started (UTC)."),
        Column("software", "Software", "origin", numeric=False,
               help="Letter of the software versions and the machine, which the notes list.",
               value=lambda e: "".join(dict.fromkeys(letters[_software(record)] for record in e.records))),
        Column("checkpoint", "Checkpoint", "origin", numeric=False,
               value=lambda e: ", ".join((record.checkpoint_sha256 or MISSING)[:8] for record in e.records),
               help="First digits of the SHA-256 of model.safetensors, by seed."),
    )
# fmt: on


def _input_size(entry: Entry) -> str:
    return "{} x {}".format(*entry.record.settings.preprocessing.input_size)


def _optional(text: str | None) -> str | None:
    return shown(text, 40) if text else None


def _balanced(record: RunRecord) -> float | None:
    of_test = record.headline[1] is record.dataset.test
    details = record.results.test_accuracy_details if of_test else record.results.accuracy_details
    return details.per_class.value if details else None


def _tested(key: str) -> Callable[[Entry], float | None]:
    return lambda entry: None if entry.difference is None else getattr(entry.difference, key)


def _predicted(key: str) -> Callable[[Entry], float | None]:
    def measure(record: RunRecord) -> float | None:
        found = record.results.predictions
        measured: Measurement | None = getattr(found, key) if found else None
        return measured.value if measured else None

    return lambda entry: entry.mean(measure)


def _images_per_second(entry: Entry) -> float | None:
    seconds = entry.row.train_seconds_per_epoch
    return entry.record.dataset.train.images / seconds if seconds else None


def _published(entry: Entry) -> float | None:
    return entry.run.published[-1].accuracy_percent if entry.run.published else None


def _less_published(entry: Entry) -> float | None:
    published, accuracy = _published(entry), entry.row.accuracy
    return None if published is None or accuracy is None else round(100 * accuracy - published, 4)


def _percent(value: float) -> str:
    return f"{100 * value:.2f}"


def _score(value: float) -> str:
    return f"{value:.3f}"


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _signed(points: float) -> str:
    return f"{points:+.2f}".replace("-", "\N{MINUS SIGN}")


def _short(value: float) -> str:
    return f"{value:.3g}" if value < 100 else f"{value:,.0f}"


def _time(seconds: float) -> str:
    if seconds < 10:
        return f"{seconds:.1f} s"
    return durations.in_words(seconds) if not 600 <= seconds < 3570 else f"{seconds / 60:.0f} min"


def _accuracy(entry: Entry) -> str:
    return _with_error(_percent(entry.row.accuracy or 0), entry.row.accuracy_error)


def _difference(entry: Entry) -> float | None:
    return 0.0 if entry.is_best else _tested("difference")(entry)


def _behind(entry: Entry) -> str:
    found = entry.difference
    return _with_error(_signed(100 * found.difference), found.standard_error) if found else "best"


def _with_error(text: str, error: float | None) -> str:
    return text if error is None else Markup("{} <i>± {:.2f}</i>").format(text, 100 * error)
