"""The record of a ranking, ``rank.json``, which contains all data of the ranking's table and tiers."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from zoo.backbone import Preprocessing
from zoo_harness.records.normalization import NormalizationSource
from zoo_harness.records.run import Count, DuplicatesRecord, Record, WeightsRecord

RANK, PLOT = "rank.json", "rank.png"
TOP_1 = "imagenet_top1"
"""The name under which published ImageNet accuracies appear among the scores, as a baseline for the other scores."""


class ScoreRecord(Record):
    """One score of one backbone; if ``value`` is ``None``, ``reason`` explains why.

    ``details`` holds facts about the computation, such as ``iterations`` and ``converged``. ``hits`` holds one bit per
    image, in the order of the images, as hexadecimal digits: 1 if the image was classified correctly.
    """

    value: float | None = Field(allow_inf_nan=False)
    reason: str = ""
    details: dict[str, Any] = Field(default_factory=dict)
    seconds: float = 0.0
    hits: str | None = None


class Drop(Record):
    """The paired test that dropped a backbone early: a comparison with the best backbone on the images read so far."""

    images: Count
    against: str
    first_only: Count
    second_only: Count
    p: float


class BehindRecord(Record):
    """How much a backbone scores below the best backbone, by the score that sorts the table, on the same images.

    ``difference`` is the score of the best backbone minus the score of this backbone, and ``standard_error`` the
    standard error of the difference. ``p`` is the mid-p-value of McNemar's test, and ``adjusted_p`` the same value
    after Holm's correction, which determines tier 1. ``adjusted_p`` is ``None`` for a backbone that was dropped early.
    """

    difference: float
    standard_error: float
    p: float
    adjusted_p: float | None


class RankedBackbone(Record):
    """One backbone of a ranking: the origin of its weights, the scored layer, and its scores on ``images`` images.

    ``tier`` is 1 for the best backbone and for all backbones that the paired test cannot distinguish from it; a
    backbone that was dropped before the last image has no tier. ``weights`` is ``None`` for raw pixels. ``width`` is
    the number of features. ``source_classes`` is the number of classes of the pretrained classifier, if there is one.
    ``seconds`` is the time to read the images. ``computed`` is the number of images that ran through the network; the
    features of the remaining images came from the cache. Older records lack ``computed``. If the row is a run
    that was trained on images of the ranking's dataset, ``trained_on_dataset`` is true, and its scores are too high.
    ``behind`` is ``None`` for the best backbone, and in older records.
    """

    name: str
    title: str
    network: str
    derived_from: str | None
    weights: WeightsRecord | None
    license: str | None
    parameters: Count
    imagenet_top1: float | None
    preprocessing: Preprocessing | None
    layer: str
    width: Count
    source_classes: int | None
    images: Count
    seconds: float
    computed: Count | None = None
    scores: dict[str, ScoreRecord]
    tier: int | None = None
    dropped: Drop | None = None
    control: bool = False
    trained_on_dataset: bool = False
    behind: BehindRecord | None = None


class Failure(Record):
    """A backbone that is excluded from the ranking because of an error."""

    name: str
    code: str
    message: str


class KnownAccuracy(Record):
    """The accuracy of a ranked backbone after training, on ``images`` images of ``split``; the mean over ``runs``.

    ``standard_error`` is over the images of one run. ``tuned`` means that this ranking fine-tuned the backbone.
    """

    name: str
    accuracy: float
    standard_error: float
    split: str
    images: Count
    fingerprint: str
    runs: tuple[str, ...]
    tuned: bool
    seconds: float | None = None


class Foresight(Record):
    """How well the order of ``n`` backbones by a score agrees with their order by accuracy.

    ``score`` is the name of a score, or ``imagenet_top1`` for the published ImageNet accuracies, which are a baseline.
    ``weighted_tau``, in [-1, 1], is Kendall's tau with hyperbolic weights, so that the top of the order counts most.
    ``kendall`` is tau-b. ``p`` is the share of random permutations whose weighted tau is at least as high. ``regret_1``
    is the accuracy lost by choosing the backbone with the best score instead of the most accurate one. ``regret_3`` is
    the loss if the most accurate of the three best-scored backbones is chosen. Correlations and ``p`` are ``None`` for
    fewer than 5 backbones or constant values; ``reason`` then gives the cause. ``below_chance_level`` tells whether
    more than one in twenty random orders agree with the accuracies as well as the score does; it is ``None`` without
    ``p``.
    """

    score: str
    n: Count
    weighted_tau: float | None
    kendall: float | None
    p: float | None
    regret_1: float
    regret_3: float
    reason: str = ""
    below_chance_level: bool | None


class RankRecord(Record):
    """A ranking of backbones on the training split of a dataset; ``backbones`` are in the order of the table.

    ``images`` is the number of images of the training split or of its subset. ``rounds`` lists the number of images
    that the backbones had read after each round. ``stopped`` is the reason why not all images were read.
    ``input_size`` is height and width in pixels, if the user chose the same size for all networks. ``accuracies`` and
    ``foresight`` are filled in by ``--tune`` and ``--against``. ``duplicates`` counts equal images of the training
    split; ``None`` in old records, for which duplicates were not counted.
    """

    format: Literal["blockzoo rank 1"] = "blockzoo rank 1"
    command: tuple[str, ...]
    versions: dict[str, str]
    dataset: str
    title: str
    classes: tuple[str, ...]
    images: Count
    per_class: tuple[Count, ...]
    subset: str
    fingerprint: str
    normalization: NormalizationSource = "weights"
    seed: int
    sort: str
    rounds: tuple[Count, ...]
    backbones: tuple[RankedBackbone, ...]
    failures: tuple[Failure, ...] = ()
    input_size: tuple[Count, Count] | None = None
    seconds: float
    stopped: str = ""
    accuracies: tuple[KnownAccuracy, ...] = ()
    foresight: tuple[Foresight, ...] = ()
    left_out_runs: tuple[str, ...] = ()
    duplicates: tuple[DuplicatesRecord, ...] | None = None

    @property
    def images_seen(self) -> int:
        """The number of images that the backbones of the last round have read."""
        return self.rounds[-1] if self.rounds else self.images
