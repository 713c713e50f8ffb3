"""Arrange finished runs beside each other, as the tables of the reports do, for the terminal, Markdown and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import Literal

from zoo_harness.records.comparison import ComparedRun, LeftOutRun, PublishedFigure
from zoo_harness.records.run import Measurement, Record, RunRecord, ScoreMeasurement
from zoo_harness.reports import markdown
from zoo_harness.reports.published_results import Published, differences, published_figures

Table = tuple[list[str], list[list[str]]]
_RESULTS = ["trained", "accuracy %", "train %", "train s", "eval s"]
_HEADINGS = [
    "run", "backbone", "recipe", "dataset", "split", "trained parameters", "accuracy, %", "train accuracy, %",
    "SI before", "SI after", "seconds per epoch, training", "seconds per epoch, evaluation",
]  # fmt: skip


class Comparison(Record):
    """Runs beside each other, in the order given. No difference is tested."""

    format: Literal["blockzoo comparison 1"] = "blockzoo comparison 1"
    runs: tuple[ComparedRun, ...]
    left_out: tuple[LeftOutRun, ...] = ()

    def to_json(self) -> str:
        """Return everything as indented JSON, ending in a newline."""
        return self.model_dump_json(indent=2) + "\n"

    def to_markdown(self) -> str:
        """Return the runs as one table in Markdown, published figures below their run."""
        return _markdown(self)

    def to_csv(self) -> str:
        """Return the runs as comma-separated values, numbers in full, accuracies in [0, 1].

        Published figures have rows of their own.
        """
        return _csv(self)


def compared_run(run: str, record: RunRecord, *, published: bool) -> ComparedRun:
    """Return the figures of a finished run; ``run`` is its name for the user."""
    results, (accuracy, split) = record.results, record.headline
    of_test = split is record.dataset.test
    before, after = (
        found and getattr(found, "test" if of_test else "evaluation")
        for found in (results.separation_before, results.separation_after)
    )
    figures = published_figures(record.backbone.name, record.dataset.name) if published else ()
    return ComparedRun(
        run=run,
        backbone=record.backbone.name,
        recipe=record.settings.recipe,
        dataset=record.dataset.title,
        subset=record.dataset.subset,
        split=split.split,
        seed=record.settings.seed,
        epochs=results.epochs_done,
        trained_parameters=record.parameters.trained,
        total_parameters=record.parameters.total,
        accuracy=accuracy,
        train_accuracy=results.train_accuracy,
        layer=results.separation_after.layer if results.separation_after else None,
        separation=record.settings.separation,
        si_before=before.si if before else None,
        si_after=after.si if after else None,
        train_seconds_per_epoch=results.mean_train_seconds,
        evaluation_seconds_per_epoch=results.mean_evaluation_seconds,
        published=tuple(_published(record, figure) for figure in figures if agrees(record, figure)),
    )


def agrees(record: RunRecord, figure: Published) -> bool:
    """Whether a run has the recipe, the split and the epochs of a published figure of its backbone and dataset."""
    dataset = record.dataset
    return (
        record.settings.recipe == figure.recipe
        and record.results.epochs_done == figure.table.setting.epochs
        and dataset.val_fraction == figure.table.val_fraction
        and (dataset.test is not None) == (figure.row.test_accuracy is not None)
    )


def _published(record: RunRecord, figure: Published) -> PublishedFigure:
    row = figure.row
    return PublishedFigure(
        source=figure.table.source,
        accuracy_percent=row.accuracy,
        train_accuracy_percent=row.train_accuracy,
        trained_parameters=row.trainable_parameters,
        train_seconds_per_epoch=row.train_seconds_per_epoch,
        evaluation_seconds_per_epoch=row.val_seconds_per_epoch,
        differences=tuple(differences(record, figure)),
    )


def results_table(found: Comparison) -> Table:
    """Return the table of the 2024 report, with a row below each run for each published figure."""
    rows = []
    for number, run in enumerate(found.runs, 1):
        rows.append([str(number), run.backbone, *_results(run)])
        rows += [["", "  published", *_published_cells(figure)] for figure in run.published]
    return ["#", "backbone", *_RESULTS], rows


def settings_table(found: Comparison) -> Table:
    """Return the settings and SI of each run."""
    rows = [
        [str(number), run.run, run.recipe, run.dataset, run.split, _value(run.si_before), _value(run.si_after)]
        for number, run in enumerate(found.runs, 1)
    ]
    return ["#", "run", "recipe", "dataset", "split", "SI before", "SI after"], rows


def notes(found: Comparison) -> Iterator[str]:
    """Yield what the tables leave open: the parts of the data, the settings of SI, the published sources."""
    yield (
        "accuracy: of the split, ± one standard error over its images; train: of the training split; trained: number "
        "of trained parameters; s: mean seconds per epoch. SI: of the split, before and after training."
    )
    for number, run in enumerate(found.runs, 1):
        scored = run.separation.in_words()
        seed = "" if "seed" in run.subset else f", seed {run.seed}"
        yield f"{number}: epochs {run.epochs}; {run.subset}{seed}{f'; SI with {scored}' if scored else ''}."
        for figure in run.published:
            differs = f"; the run differs: {'; '.join(figure.differences)}" if figure.differences else ""
            yield f"{number}, published: {figure.source}{differs}."
    if len({(run.separation.metric, run.separation.normalize) for run in found.runs}) > 1:
        yield "SI is not comparable between runs that score it with different distances or scaling."


def _markdown(found: Comparison) -> str:
    rows = []
    for run in found.runs:
        cells = _results(run)
        about = [run.run, run.backbone, run.recipe, run.dataset, run.split]
        rows.append([*about, *cells[:3], _value(run.si_before), _value(run.si_after), *cells[3:]])
        for figure in run.published:
            cells = _published_cells(figure)
            rows.append([f"published: {figure.source}", *about[1:], *cells[:3], "-", "-", *cells[3:]])
    lines = [_HEADINGS, ["---"] * 5 + ["---:"] * 7, *([str(markdown.text(cell)) for cell in row] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _csv(found: Comparison) -> str:
    text = io.StringIO()
    columns = [
        "run", "backbone", "recipe", "dataset", "subset", "split", "seed", "epochs", "trained_parameters",
        "total_parameters", "accuracy", "accuracy_error", "train_accuracy", "layer", "si_settings", "si_before",
        "si_before_error", "si_after", "si_after_error", "train_seconds_per_epoch", "evaluation_seconds_per_epoch",
        "published_by",
    ]  # fmt: skip
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    for run in found.runs:
        plain = {name: value for name, value in run.model_dump().items() if name in columns}
        figures = {
            "accuracy": run.accuracy and run.accuracy.value,
            "accuracy_error": run.accuracy and run.accuracy.standard_error,
            "train_accuracy": run.train_accuracy and run.train_accuracy.value,
            "si_settings": run.separation.in_words(),
        }
        for name, score in (("si_before", run.si_before), ("si_after", run.si_after)):
            figures |= {name: score and score.value, f"{name}_error": score and score.bootstrap_error}
        writer.writerow(plain | figures)
        about = {name: plain[name] for name in ("backbone", "recipe", "dataset", "split", "epochs")}
        for figure in run.published:
            writer.writerow(about | _published_values(figure))
    return text.getvalue()


def _published_values(figure: PublishedFigure) -> dict[str, object]:
    train = figure.train_accuracy_percent
    return {
        "published_by": figure.source,
        "trained_parameters": figure.trained_parameters,
        "accuracy": round(figure.accuracy_percent / 100, 8),
        "train_accuracy": None if train is None else round(train / 100, 8),
        "train_seconds_per_epoch": figure.train_seconds_per_epoch,
        "evaluation_seconds_per_epoch": figure.evaluation_seconds_per_epoch,
    }


def _results(run: ComparedRun) -> list[str]:
    return [
        f"{run.trained_parameters:,}",
        _percent(run.accuracy),
        "-" if run.train_accuracy is None else f"{100 * run.train_accuracy.value:.2f}",
        _seconds(run.train_seconds_per_epoch),
        _seconds(run.evaluation_seconds_per_epoch),
    ]


def _published_cells(figure: PublishedFigure) -> list[str]:
    train = figure.train_accuracy_percent
    return [
        f"{figure.trained_parameters:,}",
        f"{figure.accuracy_percent:.2f}",
        "-" if train is None else f"{train:.2f}",
        _seconds(figure.train_seconds_per_epoch),
        _seconds(figure.evaluation_seconds_per_epoch),
    ]


def _percent(measured: Measurement | None) -> str:
    return "-" if measured is None else f"{100 * measured.value:.2f} ± {100 * measured.standard_error:.2f}"


def _value(score: ScoreMeasurement | None) -> str:
    return "-" if score is None else f"{score.value:.4f}"


def _seconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds:.2f}"
