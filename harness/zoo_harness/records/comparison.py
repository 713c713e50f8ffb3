"""The parts of a comparison of runs: the figures of each run, and the runs that were left out."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from zoo_harness.records.run import (
    Count,
    Epochs,
    Measurement,
    Record,
    ScoreMeasurement,
    Seconds,
    Seed,
    SeparationSettings,
)

Percent = Annotated[float, Field(ge=0, le=100)]


class PublishedFigure(Record):
    """A published figure of the same backbone, recipe, dataset, split and number of epochs; ``None`` if not stated.

    ``differences``: the known differences of the run in other settings, one clause each.
    """

    source: str
    accuracy_percent: Percent
    train_accuracy_percent: Percent | None
    trained_parameters: Count
    train_seconds_per_epoch: Seconds | None
    evaluation_seconds_per_epoch: Seconds | None
    differences: tuple[str, ...]


class ComparedRun(Record):
    """The figures of one finished run; ``None`` if not measured.

    ``accuracy`` and the scores are of ``split``. Seconds per epoch are means. ``separation`` has the settings of the
    scores, ``layer`` the scored layer; the test split is not scored before training.
    """

    run: str
    backbone: str
    recipe: str
    dataset: str
    subset: str
    split: str
    seed: Seed
    epochs: Epochs
    trained_parameters: Count
    total_parameters: Count
    accuracy: Measurement | None
    train_accuracy: Measurement | None
    layer: str | None
    separation: SeparationSettings
    si_before: ScoreMeasurement | None
    si_after: ScoreMeasurement | None
    train_seconds_per_epoch: Seconds | None
    evaluation_seconds_per_epoch: Seconds | None
    published: tuple[PublishedFigure, ...] = ()


class LeftOutRun(Record):
    """A run that cannot be compared, and the reason: the code of the error and its message."""

    run: str
    code: str
    message: str
