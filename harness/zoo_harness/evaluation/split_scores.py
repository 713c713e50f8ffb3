"""Computes the scores that a run records for a split: the Separation Index family of order 2, from one search."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from zoo_harness.compute.context import ComputeContext
from zoo_harness.records.run import SplitSeparation
from zoo_harness.separation.index import separation
from zoo_harness.separation.result import Separation
from zoo_harness.separation.scores import DEFAULT_ORDER, SCORES
from zoo_harness.separation.validation import Array, checked_features


@dataclass(frozen=True)
class Scoring:
    """Hold the options of :func:`zoo.separation` for layers, and whether their outputs are pooled."""

    order: int = DEFAULT_ORDER
    pooled: bool = False
    normalize: bool = False
    metric: Literal["euclidean", "cosine"] = "euclidean"
    memory_budget: int = 2**30

    def in_words(self) -> str:
        """Return the options that change the scores, as a phrase.

        >>> Scoring(pooled=True, normalize=True).in_words()
        'layers pooled, euclidean distance, z-scored'
        """
        layers = "layers pooled" if self.pooled else "layers whole"
        return f"{layers}, {self.metric} distance{', z-scored' if self.normalize else ''}"


def score_features(features: Array | Tensor, labels: Tensor, compute: ComputeContext, scoring: Scoring) -> Separation:
    """Score features ``(N, D)``, on the run's device if they fit in half of the memory budget.

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


def split_separation(features: Array | Tensor, labels: Tensor, compute: ComputeContext) -> SplitSeparation | None:
    """Score the features ``(N, D)`` of a split; return ``None`` for a split of one image.

    >>> import torch
    >>> rows, labels = torch.tensor([[0.0], [1.0], [5.0]]), torch.tensor([0, 0, 1])
    >>> found = split_separation(rows, labels, ComputeContext(torch.device("cpu")))
    >>> found.order, found.high.value, found.centre.value
    (2, 0.0, 1.0)
    """
    n = len(labels)
    if n < 2:
        return None
    return recorded(score_features(features, labels, compute, Scoring(order=min(DEFAULT_ORDER, n - 1))))


def recorded(found: Separation) -> SplitSeparation:
    """Return scores of order 1 or 2 as the record of a run has them."""
    figures = ("value", "standard_error", "bootstrap_error", "tied")
    scores = {
        each.key: {"n": found.n, **{name: getattr(found.score(each), name) for name in figures}}
        for each in SCORES
        if found.order == DEFAULT_ORDER or not each.has_orders
    }
    counts = {"duplicates": found.duplicates, "duplicates_unlike": found.duplicates_unlike}
    return SplitSeparation.model_validate(
        {**{each.key: None for each in SCORES}, **scores, "order": found.order, **counts}
    )
