"""The columns of the page's table: heading, explanation, value and text of each cell."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from zoo_harness.records.run import Measurement, PredictionsRecord, RunRecord
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
HIDDEN = ("measures", "model", "published", "origin")  # until the reader shows them
MISSING = "–"
Value = str | int | float | None


@dataclass(frozen=True)
class Column:
    """A column: ``value`` returns what sorts and is copied as CSV, ``text`` what the cell shows.

    ``missing`` says why a row can lack the value.
    """

    key: str
    label: str
    group: str
    help: str
    missing: str
    value: Callable[[Entry], Value]
    text: Callable[[Any], str] = str
    cell: Callable[[Entry], str] | None = None
    numeric: bool = True

    def content(self, entry: Entry) -> str:
        """Return the content of the cell."""
        value = self.value(entry)
        if value is None:
            return MISSING
        return self.cell(entry) if self.cell else self.text(value)


def filled(columns: Sequence[Column], entries: Sequence[Entry]) -> tuple[list[Column], list[Column]]:
    """Return the columns of which at least one row has a value, and the others."""
    kept: list[Column] = []
    empty: list[Column] = []
    for column in columns:
        (kept if any(column.value(entry) is not None for entry in entries) else empty).append(column)
    return kept, empty


def software(entries: Sequence[Entry]) -> dict[str, str]:
    """Return the distinct sets of versions and machines, each with a letter or a number."""
    found = dict.fromkeys(_software(record) for entry in entries for record in entry.records)
    return {text: chr(65 + place) if len(found) <= 26 else str(place + 1) for place, text in enumerate(found)}


def _software(record: RunRecord) -> str:
    host, versions = record.host, ", ".join(f"{name} {version}" for name, version in record.versions.items())
    device = f"{host.accelerator or host.processor}, {host.cores} cores"
    return shown(f"{versions}; {device}; {record.settings.precision} on {record.settings.device}", 400)


def all_columns(letters: dict[str, str]) -> Iterator[Column]:
    """Yield every column; ``letters`` are those of :func:`software`."""
    yield Column("backbone", "Backbone", "result", "The network, and the folder of its run.", "", _backbone, numeric=False)
    yield Column("recipe", "Recipe", "result", "The training recipe.", "", lambda e: shown(e.run.recipe, 40), numeric=False)
    yield Column(
        *("accuracy", "Accuracy, %", "result"),
        "Share of correctly classified images, ± one standard error over the images; of several seeds the mean.",
        "the run has no accuracy",
        *(lambda e: e.row.accuracy, _percent, lambda e: _with_error(e.row.accuracy or 0, e.row.accuracy_error)),
    )
    yield Column(
        *("difference", "Behind best", "result"),
        "Difference from the best row on the same images, in percentage points, ± its standard error over the images.",
        "the row has no accuracy",
        *(lambda e: 0.0 if e.is_best else e.difference and e.difference.difference, _points, _behind),
    )
    yield Column(
        *("p_holm", "p", "result"),
        "p value of the paired test against the best row (McNemar, mid-p), corrected for all pairs of rows (Holm).",
        "the row is the best on its images, or it has no accuracy",
        *(lambda e: e.difference and e.difference.p_holm, _p),
    )
    yield Column(
        *("tier", "Tier", "result"),
        "1: the best row on its images, and every row that the test cannot tell from it (p at least 0.05).",
        "the test tells the row from the best one",
        *(lambda e: 1 if e.is_alike else None, lambda _one: Markup('<b class="tier">1</b>')),
    )
    yield Column(
        *("seeds", "Seeds", "result"),
        "Number of runs that differ in the seed alone; the row shows their means.",
        *("", lambda e: len(e.row.seeds)),
    )
    yield Column(
        *("accuracy_sd", "sd", "result"),
        "Standard deviation of the accuracy over the seeds, in percentage points.",
        *("the row has one seed", lambda e: e.row.accuracy_sd, _percent),
    )
    yield Column(
        *("p_seeds", "p, seeds", "result"),
        "p value of the paired t test over the seeds, against the best row.",
        *("fewer than three seeds are shared with the best row", lambda e: e.difference and e.difference.p_seeds, _p),
    )
    for key, label, when in (("si_before", "SI before", "before"), ("si_after", "SI after", "after")):
        yield Column(
            *(key, label, "separation"),
            f"Separation Index of the scored layer {when} training: share of images whose nearest image has their label.",
            "not scored: zoo scores the test split after training only, and a run can lack the score",
            *((lambda e, key=key: getattr(e.row, key)), _score),
        )
    yield from _costs()
    yield from _measures()
    yield from _model()
    yield Column(
        *("published", "Published, %", "published"),
        "Published accuracy of the same backbone, recipe, dataset, kind of split and number of epochs.",
        *("no published figure has this setting", lambda e: _published(e), lambda value: f"{value:.2f}"),
    )
    yield Column(
        *("published_difference", "Ours − published", "published"),
        "Our accuracy less the published one, in percentage points.",
        *("no published figure has this setting", _less_published, lambda value: f"{value:+.2f}".replace("-", "−")),
    )
    yield Column(
        *("date", "Started", "origin", "Day on which the run started (UTC); of several the first.", ""),
        *(lambda e: min(shown(record.started, 40) for record in e.records)[:10],),
        numeric=False,
    )
    yield Column(
        *("software", "Software", "origin", "Versions and machine, listed in the notes.", ""),
        *(lambda e: "".join(dict.fromkeys(letters[_software(record)] for record in e.records)),),
        numeric=False,
    )
    yield Column(
        *("checkpoint", "Checkpoint", "origin", "First digits of the SHA-256 of model.safetensors.", "no checkpoint"),
        *(lambda e: ", ".join((record.checkpoint_sha256 or MISSING)[:8] for record in e.records),),
        numeric=False,
    )


def _costs() -> Iterator[Column]:
    yield Column(
        *("trained", "Trained", "cost", "Number of trained parameters.", ""),
        *(lambda e: e.run.trained_parameters, compact),
    )
    yield Column(
        *("total", "Total", "cost", "Number of all parameters.", ""), *(lambda e: e.run.total_parameters, compact)
    )
    untrained = "not measured, or no epoch was trained"
    yield Column(
        *("seconds_per_epoch", "s/epoch", "cost", "Mean seconds of training per epoch, without evaluation.", untrained),
        *(lambda e: e.row.train_seconds_per_epoch, lambda value: f"{value:.3g}" if value < 100 else f"{value:,.0f}"),
    )
    yield Column(
        *("images_per_second", "Images/s", "cost"),
        "Training images divided by the seconds per epoch; cached outputs of frozen layers make it larger.",
        *(untrained, _images_per_second, lambda value: f"{value:,.0f}"),
    )
    yield Column(
        *("total_seconds", "Time", "cost", "Time of the whole run with all its scores.", "not measured"),
        *(lambda e: e.row.total_seconds, _time),
    )
    yield Column(
        *("memory", "Memory, GiB", "cost", "Largest memory of the process, or of the accelerator.", "not measured"),
        *(lambda e: e.mean(lambda record: record.results.peak_memory_gib), lambda value: f"{value:.2f}"),
    )


def _measures() -> Iterator[Column]:
    earlier = "an earlier version did not measure it"
    yield Column(
        *("balanced_accuracy", "Balanced, %", "measures", "Mean of the accuracies of the classes.", earlier),
        *(lambda e: e.mean(_balanced), _percent),
    )
    for key, label, help_, missing in (
        ("macro_f1", "Macro F1, %", "Mean of F1 over the classes.", earlier),
        ("calibration_error", "ECE, %", "Expected calibration error in 15 bins; lower is better.", earlier),
        ("auroc", "AUROC, %", "Area under the ROC curve.", "only for two classes"),
        ("top5", "Top-5, %", "Share of images whose label is among the five likeliest.", "only for more than five classes"),
    ):
        yield Column(key, label, "measures", help_, missing, lambda e, key=key: e.mean(_predicted(key)), _percent)


def _model() -> Iterator[Column]:
    yield Column(
        *("family", "Family", "model", "The plugin that declares the backbone.", ""),
        *(lambda e: shown(e.record.backbone.plugin.rpartition(".")[2], 40),),
        numeric=False,
    )
    yield Column(
        *("input", "Input, px", "model", "Height and width of the network's input.", ""),
        *(lambda e: "×".join(map(str, e.record.settings.preprocessing.input_size)),),
        numeric=False,
    )
    yield Column("epochs", "Epochs", "model", "Number of epochs.", "", lambda e: e.run.epochs)
    yield Column(
        *("pretrained_on", "Pretrained on", "model", "Data of the initial weights.", "random or other weights"),
        *(lambda e: _optional(pretrained_on(e.record)),),
        numeric=False,
    )
    yield Column(
        *("license", "Licence", "model", "Licence of the initial weights.", "the weights declare no licence"),
        *(lambda e: _optional(e.record.weights.license),),
        numeric=False,
    )


def _backbone(entry: Entry) -> str:
    return shown(entry.run.backbone)


def _optional(text: str | None) -> str | None:
    return shown(text, 40) if text else None


def _balanced(record: RunRecord) -> float | None:
    of_test = record.headline[1] is record.dataset.test
    details = record.results.test_accuracy_details if of_test else record.results.accuracy_details
    return details.per_class.value if details else None


def _predicted(key: str) -> Callable[[RunRecord], float | None]:
    def measure(record: RunRecord) -> float | None:
        found: PredictionsRecord | None = record.results.predictions
        measured: Measurement | None = getattr(found, key) if found else None
        return measured.value if measured else None

    return measure


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


def _points(value: float) -> str:
    return f"{100 * value:+.2f}".replace("-", "−")


def _time(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 10 else durations.in_words(seconds)


def _with_error(value: float, error: float | None) -> str:
    return _error(f"{100 * value:.2f}", error)


def _behind(entry: Entry) -> str:
    found = entry.difference
    return _error(_points(found.difference), found.standard_error) if found else "best"


def _error(text: str, error: float | None) -> str:
    return text if error is None else Markup("{} <i>± {:.2f}</i>").format(text, 100 * error)
