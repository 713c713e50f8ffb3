"""The parts of a comparison of runs: the figures of each run, and the runs that were left out."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from zoo_harness.records.run import (
    Count,
    Epochs,
    Measurement,
    NotNegative,
    Proportion,
    Record,
    ScoreMeasurement,
    Seconds,
    Seed,
    SeparationSettings,
)

Percent = Annotated[float, Field(ge=0, le=100)]


class PublishedFigure(Record):
    """A published figure of the same backbone, recipe, dataset, split and number of epochs; ``None`` if not stated.

    ``recipe``: the recipe that reproduces the setting of its table. ``differences``: the known differences of the run
    in other settings, one clause each.
    """

    source: str
    recipe: str = ""
    accuracy_percent: Percent
    train_accuracy_percent: Percent | None
    trained_parameters: Count
    train_seconds_per_epoch: Seconds | None
    evaluation_seconds_per_epoch: Seconds | None
    differences: tuple[str, ...]


class OtherSetting(Record):
    """A published figure of the same backbone and dataset in another setting, and the differences of the settings."""

    source: str
    recipe: str = ""
    accuracy_percent: Percent
    differences: tuple[str, ...]


class PublishedScores(Record):
    """Published scores of the Separation Index, beside ours of the same features on the same split, by key.

    ``features``: ``raw pixels``, ``before training`` or ``after training`` for the input of the classifier, or the path
    of a layer. ``images``: the number of ours. ``si_error``: the bootstrap standard error of our SI. ``agrees``:
    whether backbone, recipe, dataset, split and epochs agree. ``differences``: the known differences of ours, one
    clause each. ``remarks``: what the source leaves open, or where its values contradict each other.
    """

    source: str
    features: str
    split: str
    images: Count
    ours: dict[str, float]
    si_error: NotNegative
    published: dict[str, float]
    agrees: bool
    differences: tuple[str, ...]
    remarks: tuple[str, ...] = ()


class ComparedRun(Record):
    """The figures of one finished run; ``None`` if not measured.

    ``accuracy`` and the scores are of ``split``. Seconds per epoch are means. ``separation`` has the settings of the
    scores, ``layer`` the scored layer; the test split is not scored before training. ``images`` numbers the sets of
    images, from 1: runs with the same number have the same images (``fingerprint``), split and classes.
    ``frozen_part_seconds``: the time in which the run computed the outputs of ``frozen_part_computed`` images, if it
    trained on cached outputs; those of the others came from an earlier run. The seconds per epoch do not contain it.
    ``commit``: that of the repository which ``run`` names, ``None`` for a folder.
    ``no_predictions``: why the predictions cannot be read, ``None`` if they were.
    ``type``: that of the backbone in a published table.
    ``published_otherwise``: the published figures that are not in ``published``.
    ``published_separation``: the published scores of the Separation Index, with ours beside them.
    """

    run: str
    backbone: str
    type: Literal["CNN", "Transformer"] | None = None
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
    total_seconds: Seconds | None = None
    frozen_part_seconds: Seconds | None = None
    frozen_part_computed: Count = 0
    images: Count = 0
    fingerprint: str = ""
    commit: str | None = None
    no_predictions: str | None = None
    published: tuple[PublishedFigure, ...] = ()
    published_otherwise: tuple[OtherSetting, ...] = ()
    published_separation: tuple[PublishedScores, ...] = ()


class ImageSet(Record):
    """The images of a run's accuracy; ``differs``: how they differ from those of the first run, ``None`` for these."""

    dataset: str
    split: str
    images: Count
    classes: Count
    fingerprint: str
    differs: str | None


class ComparedRow(Record):
    """One run, or several with the same settings and other seeds; their figures are means, ``None`` if one lacks it.

    ``runs``: their places in the comparison's ``runs``, from 0, the lowest seed first. ``accuracy_error``: the mean of
    their standard errors over images. ``accuracy_sd``: the standard deviation of their accuracies, over seeds.
    """

    runs: tuple[Count, ...]
    seeds: tuple[Seed, ...]
    images: Count
    accuracy: Proportion | None
    accuracy_error: NotNegative | None
    accuracy_sd: NotNegative | None
    train_accuracy: Proportion | None
    si_before: float | None
    si_after: float | None
    train_seconds_per_epoch: Seconds | None
    evaluation_seconds_per_epoch: Seconds | None
    total_seconds: Seconds | None


class RowDifference(Record):
    """How the accuracy of a row differs from that of its baseline; both are places in the comparison's ``rows``.

    ``difference``, with ``standard_error`` over images, is in [-1, 1]; of several seeds it is that of their means.
    ``tested`` names the two runs that ``test`` compares, those of the lowest seeds: ``mcnemar`` is McNemar's mid-p test
    on the same images, of which ``row_only`` and ``baseline_only`` are classified correctly by one run alone;
    ``z`` compares the two accuracies as if of different images, where predictions are missing. ``p_holm`` is corrected
    for all ``pairs`` of rows on these images. ``p_seeds``: the paired t test over the ``seeds`` that both rows have, if
    there are at least three.
    """

    row: Count
    baseline: Count
    difference: Annotated[float, Field(ge=-1, le=1)]
    standard_error: NotNegative
    test: Literal["mcnemar", "z"]
    tested: tuple[str, str]
    row_only: Count | None
    baseline_only: Count | None
    p: Proportion
    p_holm: Proportion
    pairs: Count
    p_seeds: Proportion | None = None
    seeds: Count = 0


class LeftOutRun(Record):
    """A run that cannot be compared, and the reason: the code of the error and its message."""

    run: str
    code: str
    message: str
