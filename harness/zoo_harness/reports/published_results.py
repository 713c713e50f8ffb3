"""Read published result tables, and list how the settings of a run differ from the published settings."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from importlib import resources
from typing import Annotated, Literal, NamedTuple

from pydantic import Field, model_validator

from zoo.backbone import SCRATCH, Training
from zoo_harness.records.run import Record, RunRecord
from zoo_harness.reports.wording import (
    NORMALIZATIONS,
    OTHER_WEIGHTS,
    learning_rate_in_words,
    optimizer_in_words,
    pretrained_on,
    training_rows,
)

# This maps each table file in zoo_cards to the recipe that reproduces the table's training settings.
RECIPE_OF_TABLE = {
    "malpure2021_table1.json": "paper",
    "report2023_training.json": "scratch",
    "report2024_results.json": "report",
}

# The training settings of recipes whose settings are not the defaults.
_TRAINING = {"scratch": SCRATCH.training or Training()}

Count = Annotated[int, Field(gt=0)]
Percent = Annotated[float, Field(ge=0, le=100)]
Seconds = Annotated[float, Field(gt=0)]


class PublishedRow(Record):
    """One row of a published table, with accuracies in percent; a field is ``None`` if the source has no such column.

    ``test_accuracy`` was measured on images that had no influence on training. ``val_accuracy`` was measured on images
    that were evaluated during training.
    """

    backbone: str
    trainable_parameters: Count
    val_accuracy: Percent | None = None
    test_accuracy: Percent | None = None
    train_accuracy: Percent | None = None
    train_seconds_per_epoch: Seconds | None = None
    val_seconds_per_epoch: Seconds | None = None
    model: str | None = None
    type: Literal["CNN", "Transformer"] | None = None
    pretrained_on: str | None = None

    @model_validator(mode="after")
    def _has_an_accuracy(self) -> PublishedRow:
        if (self.val_accuracy is None) == (self.test_accuracy is None):
            raise ValueError("one of val_accuracy and test_accuracy must be given")
        return self

    @property
    def accuracy(self) -> float:
        """The published accuracy in percent: the test accuracy if there is one, otherwise the validation accuracy."""
        return float(self.val_accuracy if self.test_accuracy is None else self.test_accuracy)  # type: ignore[arg-type]

    @property
    def measured_on(self) -> str:
        """The split that the published accuracy was measured on, ``test`` or ``validation``."""
        return "validation" if self.test_accuracy is None else "test"


class TrainingSetting(Record):
    """The training settings that a source states for all rows of its table."""

    epochs: Count
    optimizer: Literal["adam", "sgd"]
    learning_rate: Annotated[float, Field(gt=0)]
    batch_size: Count
    input_side: Count


class PublishedTable(Record):
    """A table of results from a publication.

    ``metric`` is the text that model cards print: the metric and the training settings. ``setting`` has the training
    settings as numbers. ``val_fraction`` is the fraction of the training split that was held out for validation.
    """

    source: str
    dataset: str
    metric: str
    setting: TrainingSetting
    rows: tuple[PublishedRow, ...]
    notes: str | None = None
    val_fraction: Annotated[float, Field(gt=0, lt=1)] | None = None


class Published(NamedTuple):
    """One published result: its table row, its table, and the recipe that reproduces its training settings."""

    row: PublishedRow
    table: PublishedTable
    recipe: str


def published_figures(backbone: str, dataset: str | None = None) -> tuple[Published, ...]:
    """Return the published results of a backbone, oldest first, on one dataset or by default on all datasets.

    >>> [figure.row.val_accuracy for figure in published_figures("cait_s24", "cifar10")]
    [96.0, 96.78]
    """
    return tuple(
        Published(row, table, recipe)
        for table, recipe in _tables()
        for row in table.rows
        if row.backbone == backbone and dataset in (None, table.dataset)
    )


def agrees(record: RunRecord, figure: Published) -> bool:
    """Whether a run and a published result for its backbone and dataset have the same recipe, split and epochs."""
    dataset = record.dataset
    return (
        record.settings.recipe == figure.recipe
        and record.results.epochs_done == figure.table.setting.epochs
        and dataset.val_fraction == figure.table.val_fraction
        and (dataset.test is not None) == (figure.row.test_accuracy is not None)
    )


def differences(record: RunRecord, figure: Published) -> list[str]:
    """List the known differences between the settings of a run and those of a published result, one clause each."""
    clauses = [
        f"{what} {ours} instead of {theirs}" for what, ours, theirs in _settings(record, figure) if ours != theirs
    ]
    clauses += _training_differences(record.settings.training, _TRAINING.get(figure.recipe, Training()))
    dataset = record.dataset
    parts = (dataset.per_class, dataset.limit, dataset.fraction, dataset.eval_limit, dataset.eval_fraction)
    if any(part is not None for part in parts) or dataset.val_fraction != figure.table.val_fraction:
        clauses.append(f"part of the data: {dataset.subset}")
    if figure.row.test_accuracy is not None and dataset.test is None:
        clauses.append("accuracy on images that were scored after every epoch instead of a test split kept for the end")
    return clauses


def _settings(record: RunRecord, figure: Published) -> list[tuple[str, object, object]]:
    """Return triples of setting, run's value and published value; if no value is published, repeat the run's value."""
    training, theirs = record.settings.training, figure.table.setting
    side = "{} x {}".format(*record.settings.preprocessing.input_size)
    pretraining = pretrained_on(record) or "not known"
    # A publication that fine-tunes without naming the pretraining data did not start from random weights.
    untrained = record.weights.kind == "random" and figure.recipe != "scratch"
    unnamed = "data that the source does not name" if untrained else pretraining
    return [
        ("recipe", record.settings.recipe, figure.recipe),
        ("epochs", record.results.epochs_done, theirs.epochs),
        ("optimizer", training.optimizer, theirs.optimizer),
        ("learning rate", training.learning_rate, theirs.learning_rate),
        ("batch size", training.batch_size, theirs.batch_size),
        ("input size", side, f"{theirs.input_side} x {theirs.input_side}"),
        ("mean and std", NORMALIZATIONS[record.settings.normalization], NORMALIZATIONS["weights"]),
        ("pretrained on", pretraining, figure.row.pretrained_on or unnamed),
    ]


def _training_differences(ours: Training, theirs: Training) -> Iterator[str]:
    """Yield differences in settings that published tables do not state, such as momentum, schedule and augmentation."""
    mine, recipes = _rest_of_training(ours), _rest_of_training(theirs)
    for name in {**recipes, **mine}:
        if mine.get(name) != recipes.get(name):
            yield f"{name}: {mine.get(name, 'none')} (published: {recipes.get(name, 'none')})"


def _rest_of_training(training: Training) -> dict[str, str]:
    optimizer, rate = optimizer_in_words(training), learning_rate_in_words(training)
    return {
        "momentum and weight decay": optimizer.partition(", ")[2] or "none",
        "schedule of the learning rate": rate.partition(", ")[2] or "constant",
        "checkpoint": "of the last epoch",
        **{name: words for name, words in training_rows(training) if name != OTHER_WEIGHTS},
    }


@cache
def _tables() -> tuple[tuple[PublishedTable, str], ...]:
    files = RECIPE_OF_TABLE.items()
    return tuple((PublishedTable.model_validate_json(read_table(name)), recipe) for name, recipe in files)


def read_table(name: str) -> bytes:
    """Return the content of a file of published results."""
    return resources.files("zoo_cards").joinpath(name).read_bytes()
