"""The record of a ranking: ``rank.json``, with everything that its table and its tiers are made from."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from zoo.backbone import Preprocessing
from zoo_harness.records.normalization import NormalizationSource
from zoo_harness.records.run import Count, Record, WeightsRecord

RANK, PLOT = "rank.json", "rank.png"
TOP_1 = "imagenet_top1"
"""The name of the published accuracies among the scores, as their baseline."""


class ScoreRecord(Record):
    """One score of one backbone; ``value`` is ``None`` if there is a ``reason`` for it.

    ``details``: of the computation, such as ``iterations`` and ``converged``. ``hits``: whether each image was
    classified correctly, one bit an image in the order of the images, in hexadecimal digits.
    """

    value: float | None = Field(allow_inf_nan=False)
    reason: str = ""
    details: dict[str, Any] = Field(default_factory=dict)
    seconds: float = 0.0
    hits: str | None = None


class Drop(Record):
    """Why a backbone was left out early: the paired test against the best backbone on the images seen so far."""

    images: Count
    against: str
    first_only: Count
    second_only: Count
    p: float


class RankedBackbone(Record):
    """One backbone: where its weights come from, what was read of it, and its scores on ``images`` images.

    ``tier``: 1 for the best and all that the paired test cannot tell from it; ``None`` if it was dropped before all
    images were seen. ``weights``: ``None`` for raw pixels. ``width``: of its features. ``source_classes``: of its own
    classifier, if it has one. ``seconds``: to read the images. ``computed``: the number of images that were run through
    the network; the outputs of the others were cached; ``None`` in older records.
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


class Failure(Record):
    """A backbone that was left out because of an error."""

    name: str
    code: str
    message: str


class KnownAccuracy(Record):
    """The accuracy of a ranked backbone after training, the mean over its ``runs``; ``images`` of the split ``split``.

    ``standard_error``: over the images of one run. ``tuned``: whether this ranking trained it.
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
    """How well a score foretold the accuracies of the same ``n`` backbones; higher is better for both.

    ``score``: a key of the scores, or ``imagenet_top1`` for the published accuracies, which are the baseline.
    ``weighted_tau``: by hyperbolic weights, so that the top counts most, in [-1, 1]. ``kendall``: tau-b. ``p``: the
    share of permutations whose weighted tau is at least as high. ``regret_1`` and ``regret_3``: the accuracy lost by
    taking the score's best, or the best of its three best, in the unit of the accuracies. Correlations and ``p`` are
    ``None`` for fewer than 5 backbones or constant values; ``reason`` says so. ``below_chance_level``: whether one in
    twenty random orders does as well.
    """

    score: str
    n: Count
    weighted_tau: float | None
    kendall: float | None
    p: float | None
    regret_1: float
    regret_3: float
    reason: str = ""
    below_chance_level: bool


class RankRecord(Record):
    """A ranking of backbones on the training split of a dataset; ``backbones`` are in the order of the table.

    ``images``: those of the training split, or of its subset; ``rounds``: the numbers of images that were read.
    ``stopped``: why fewer than all were read. ``input_size``: height and width in pixels, if the user chose one for all
    networks. ``accuracies`` and ``foresight``: after ``--tune`` and ``--against``.
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

    @property
    def images_seen(self) -> int:
        """The number of images that the backbones of the last round have seen."""
        return self.rounds[-1] if self.rounds else self.images
