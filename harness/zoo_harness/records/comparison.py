"""The records that make up a comparison of runs: the results of each run, the tests, and the excluded runs."""

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
    """A published result with the run's backbone, recipe, dataset, split and epochs; ``None`` means not published.

    ``recipe`` is the backbone's recipe that has the settings of the published table. ``differences`` lists the known
    differences between the settings of the run and of the publication.
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
    """A published result with the run's backbone and dataset but other settings, and how these settings differ."""

    source: str
    recipe: str = ""
    accuracy_percent: Percent
    differences: tuple[str, ...]


class PublishedScores(Record):
    """Published Separation Index scores, and the scores that zoo computed from the same features on the same split.

    ``features``: ``raw pixels``, ``before training`` or ``after training`` for the input of the classifier, or the path
    of a layer. ``images``: the number of images that zoo scored. ``si_error``: the bootstrap standard error of the SI.
    ``agrees``: whether the run has the published backbone, recipe, dataset, split and epochs. ``differences``: the
    known differences between run and publication. ``remarks``: gaps or contradictions in the source.
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
    """The results of one finished run; a value that was not measured is ``None``.

    ``accuracy`` and the Separation Index ``si_after`` were measured on ``split``. Seconds per epoch are means over the
    epochs. ``separation`` holds the settings of the scores, and ``layer`` is the scored layer. ``si_before`` is
    ``None`` for the test split, which is not scored before training. ``images`` numbers the sets of evaluated images
    from 1: two runs with the same number evaluated the same images (``fingerprint``), split and classes.

    If the run trained on cached outputs of the frozen layers, ``frozen_part_seconds`` is the time to compute the
    outputs of ``frozen_part_computed`` images; the seconds per epoch exclude this time. The outputs of the remaining
    images came from an earlier run. ``commit`` is the commit of the Hub repository that ``run`` names, or ``None`` for
    a folder. ``no_predictions`` is the reason why the predictions cannot be read, or ``None``.

    ``settings`` maps each setting in which runs of this backbone and recipe differ to the value of this run.

    ``type`` is the type of the backbone in a published table. ``published`` lists published results with the settings
    of the run, and ``published_otherwise`` lists published results with other settings. ``published_separation`` lists
    published scores of the Separation Index beside our scores.
    """

    run: str
    backbone: str
    type: Literal["CNN", "Transformer"] | None = None
    recipe: str
    dataset: str
    subset: str
    settings: dict[str, str] = Field(default_factory=dict)
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
    """The images on which an accuracy was measured; ``differs`` says how they differ from the first run's images."""

    dataset: str
    split: str
    images: Count
    classes: Count
    fingerprint: str
    differs: str | None


class ComparedRow(Record):
    """A row of the comparison: one run, or several runs that differ only in their seed.

    The values of several runs are means, or ``None`` if a run lacks the value. ``runs`` are indices into the runs of
    the comparison, from 0, sorted by seed. ``accuracy_error`` is the mean of the runs' standard errors over images.
    ``accuracy_sd`` is the standard deviation of the runs' accuracies over seeds.
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
    """The accuracy of one row minus the accuracy of its baseline; ``row`` and ``baseline`` are indices of rows.

    ``difference`` is in [-1, 1] and has a ``standard_error`` over images; for several seeds, mean accuracies are
    compared. ``test`` compares the two runs in ``tested``, the runs with the lowest seeds. ``mcnemar`` is McNemar's
    mid-p test on the same images: ``row_only`` images are classified correctly only by the row's run, and
    ``baseline_only`` images only by the baseline's run. ``z`` is used if predictions are missing: it treats the two
    accuracies as measured on different images. ``p_holm`` is corrected for all ``pairs`` of rows on these images.
    ``p_seeds`` is the paired t test over the ``seeds`` that both rows have, if there are at least three.
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
    """A run that is excluded from the comparison, with the code and the message of the error."""

    run: str
    code: str
    message: str
