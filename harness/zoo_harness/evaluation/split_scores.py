"""The five scores that a run records of a split: SI, high-order, soft and anti SI of order 2, and centre SI.

They are those of the reports that the Separation Index comes from. One search gives all five.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from zoo_harness.compute.context import ComputeContext
from zoo_harness.records.run import ScoreMeasurement, SplitSeparation
from zoo_harness.separation.index import separation
from zoo_harness.separation.result import Separation
from zoo_harness.separation.score import Score
from zoo_harness.separation.validation import Array, checked_features


@dataclass(frozen=True)
class Scoring:
    """How layers are scored: see :func:`zoo.separation` and :func:`~zoo_harness.layer_features.layer_features`."""

    order: int = 2
    pooled: bool = False
    normalize: bool = False
    metric: Literal["euclidean", "cosine"] = "euclidean"
    memory_budget: int = 2**30

    def in_words(self) -> str:
        """What changes the scores, for a reader.

        >>> Scoring(pooled=True, normalize=True).in_words()
        'layers pooled, euclidean distance, z-scored'
        """
        layers = "layers pooled" if self.pooled else "layers whole"
        return f"{layers}, {self.metric} distance{', z-scored' if self.normalize else ''}"


def score_features(features: Array | Tensor, labels: Tensor, compute: ComputeContext, scoring: Scoring) -> Separation:
    """The scores of features ``(N, D)``, on the run's device where they fit in half of the memory budget.

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


ORDER = 2


def split_separation(features: Array | Tensor, labels: Tensor, compute: ComputeContext) -> SplitSeparation | None:
    """The scores of features ``(N, D)`` of a split; ``None`` for a split of one image.

    >>> import torch
    >>> points, labels = torch.tensor([[0.0], [1.0], [5.0]]), torch.tensor([0, 0, 1])
    >>> found = split_separation(points, labels, ComputeContext(torch.device("cpu")))
    >>> found.order, found.high.value, found.centre.value
    (2, 0.0, 1.0)
    """
    n = len(labels)
    if n < 2:
        return None
    return recorded(score_features(features, labels, compute, Scoring(order=min(ORDER, n - 1))))


def recorded(found: Separation) -> SplitSeparation:
    """What the record of a run keeps of scores of order 1 or 2."""
    whole, n = found.order == ORDER, found.n
    return SplitSeparation(
        order=2 if whole else 1,
        si=_measurement(found.si, n),
        high=_measurement(found.high[ORDER], n) if whole else None,
        soft=_measurement(found.soft[ORDER], n) if whole else None,
        anti=_measurement(found.anti[ORDER], n) if whole else None,
        centre=_measurement(found.centre, n),
        duplicates=found.duplicates,
        duplicates_unlike=found.duplicates_unlike,
    )


def _measurement(score: Score, n: int) -> ScoreMeasurement:
    return ScoreMeasurement(
        value=score.value,
        standard_error=score.standard_error,
        n=n,
        bootstrap_error=score.bootstrap_error,
        tied=score.tied,
    )
