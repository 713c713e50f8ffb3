"""The record of a ranking: ``rank.json``, with everything that its table and its tiers are made from."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from zoo.backbone import Preprocessing
from zoo_harness.records.run import Count, Record, WeightsRecord

RANK = "rank.json"


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
    classifier, if it has one.
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
    scores: dict[str, ScoreRecord]
    tier: int | None = None
    dropped: Drop | None = None
    control: bool = False


class Failure(Record):
    """A backbone that was left out because of an error."""

    name: str
    code: str
    message: str


class RankRecord(Record):
    """A ranking of backbones on the training split of a data set; ``backbones`` are in the order of the table.

    ``input_size``: height and width in pixels, if the user chose one for all networks.
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
    seed: int
    sort: str
    rounds: tuple[Count, ...]
    backbones: tuple[RankedBackbone, ...]
    failures: tuple[Failure, ...] = ()
    input_size: tuple[Count, Count] | None = None
    seconds: float
