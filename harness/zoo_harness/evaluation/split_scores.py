"""Compute the separation scores that a run records for a split."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from zoo_harness.compute.context import ComputeContext
from zoo_harness.records import option_checks
from zoo_harness.records.run import DEFAULT_SEPARATION, DatasetRecord, SeparationSettings, SplitRecord, SplitSeparation
from zoo_harness.separation.index import separation
from zoo_harness.separation.result import Separation
from zoo_harness.separation.scores import DEFAULT_ORDER, SCORES, too_few_per_class
from zoo_harness.separation.validation import Array, checked_features


@dataclass(frozen=True)
class Scoring:
    """Options for scoring layers: the options of :func:`zoo.separation`, and whether layer outputs are pooled."""

    order: int = DEFAULT_ORDER
    pooled: bool = False
    normalize: bool = False
    metric: Literal["euclidean", "cosine"] = "euclidean"
    memory_budget: int = 2**30

    @classmethod
    def of(cls, settings: SeparationSettings, images: int, *, pooled: bool = False) -> Scoring:
        """Convert the settings of a run to scoring options for a split with the given number of images, at least 2.

        If the split has only two images, the default order 2 is lowered to 1.
        """
        order = min(settings.order, images - 1) if settings.order == DEFAULT_ORDER else settings.order
        return cls(order, pooled, settings.normalize == "zscore", settings.metric)

    def in_words(self) -> str:
        """Return a text that describes the options that affect the scores.

        >>> Scoring(pooled=True, normalize=True).in_words()
        'layers pooled, euclidean distance, z-scored'
        """
        layers = "layers pooled" if self.pooled else "layers whole"
        return f"{layers}, {self.metric} distance{', z-scored' if self.normalize else ''}"


def check_settings(settings: SeparationSettings, dataset: DatasetRecord) -> list[str]:
    """Return warnings for splits in which a class has too few images for the separation scores.

    Raises :class:`~zoo.errors.UsageError` if a split has too few images for an order above the default. If the order is
    the default, a split of two images is scored with order 1.
    """
    warnings = []
    for split in filter(None, (dataset.train, dataset.evaluation, dataset.test)):
        if settings.order > DEFAULT_ORDER:
            option_checks.check_order(settings.order, split.split, split.images)
        warnings += class_warnings(split, dataset.classes, settings.order)
    return warnings


def class_warnings(split: SplitRecord, classes: tuple[str, ...], order: int) -> list[str]:
    """Return warnings for classes with a single image in a split, and for classes with at most ``order`` images."""
    counts = dict(zip(classes, split.per_class, strict=True))
    return list(too_few_per_class(f"split {split.split!r}", counts, order)) if split.images > 1 else []


def score_features(features: Array | Tensor, labels: Tensor, compute: ComputeContext, scoring: Scoring) -> Separation:
    """Compute the separation scores of features ``(N, D)``.

    If the features fit in half of the memory budget, they are moved to the device of the run.

    >>> import torch
    >>> found = score_features(torch.eye(3), torch.tensor([0, 0, 1]), ComputeContext(torch.device("cpu")), Scoring())
    >>> found.order, found.n
    (2, 3)
    """
    half = scoring.memory_budget // 2
    if features.nbytes <= half:
        features, labels = checked_features(features).to(compute.device), labels.to(compute.device)
    return separation(
        features,
        labels,
        scoring.order,
        metric=scoring.metric,
        normalize=scoring.normalize,
        seed=compute.seed,
        memory_budget=half,
    )


def split_separation(
    features: Array | Tensor,
    labels: Tensor,
    compute: ComputeContext,
    settings: SeparationSettings = DEFAULT_SEPARATION,
) -> SplitSeparation | None:
    """Compute the separation scores of the features ``(N, D)`` of a split; return ``None`` for a split of one image.

    >>> import torch
    >>> rows, labels = torch.tensor([[0.0], [1.0], [5.0]]), torch.tensor([0, 0, 1])
    >>> found = split_separation(rows, labels, ComputeContext(torch.device("cpu")))
    >>> found.order, found.high.value, found.centre.value
    (2, 0.0, 1.0)
    """
    n = len(labels)
    return None if n < 2 else recorded(score_features(features, labels, compute, Scoring.of(settings, n)))


def recorded(found: Separation) -> SplitSeparation:
    """Convert the scores of the largest order to the form in which ``run.json`` records them."""
    figures = ("value", "standard_error", "bootstrap_error", "tied")
    scores = {
        each.key: {"n": found.n, **{name: getattr(found.score(each), name) for name in figures}}
        for each in SCORES
        if found.order > 1 or not each.has_orders
    }
    settings = {
        "order": found.order,
        "metric": found.metric,
        "normalize": "zscore" if found.normalize else "none",
        "duplicates": found.duplicates,
        "duplicates_unlike": found.duplicates_unlike,
    }
    return SplitSeparation.model_validate({**{each.key: None for each in SCORES}, **scores, **settings})
