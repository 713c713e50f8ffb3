"""The five scores that a run records of a split: SI, high-order, soft and anti SI of order 2, and centre SI.

They are those of the reports that the Separation Index comes from. One search gives all five.
"""

from __future__ import annotations

from torch import Tensor

from zoo_harness.feature_input import Array
from zoo_harness.layer_curve import Scoring, score_features
from zoo_harness.run_record import ScoreMeasurement, SplitSeparation
from zoo_harness.score import Score
from zoo_harness.separation import Separation
from zoo_harness.train import Conditions

ORDER = 2


def split_separation(features: Array | Tensor, labels: Tensor, conditions: Conditions) -> SplitSeparation | None:
    """The scores of features ``(N, D)`` of a split; ``None`` for a split of one image.

    >>> import torch
    >>> points, labels = torch.tensor([[0.0], [1.0], [5.0]]), torch.tensor([0, 0, 1])
    >>> found = split_separation(points, labels, Conditions(torch.device("cpu")))
    >>> found.order, found.high.value, found.centre.value
    (2, 0.0, 1.0)
    """
    n = len(labels)
    if n < 2:
        return None
    return recorded(score_features(features, labels, conditions, Scoring(order=min(ORDER, n - 1))))


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
