"""Scale features before distances are computed: z-scores, rows of unit length, a range that can be squared.

All results are float64. If there are references, their statistics scale both the references and the samples.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from zoo.errors import DataError
from zoo_harness.separation.knn.exact_distances import CHUNK_ELEMENTS
from zoo_harness.separation.validation import listed

# Sums of squares of numbers near 2^480 do not overflow. Squares of differences 2^500 times smaller than the largest
# feature do not underflow.
TOP_EXPONENT, LOWEST_EXPONENT = 480, -40


def z_scored(features: Tensor, references: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return features and references, each column minus the references' mean, divided by their standard deviation.

    Without references the statistics are those of the features, which are returned twice. A column that is constant
    among the references becomes 0. The standard deviation is that of the population; another divisor would scale all
    distances alike and change no score.

    >>> z_scored(torch.tensor([[0, 5], [4, 5]]))[0]
    tensor([[-1.,  0.],
            [ 1.,  0.]], dtype=torch.float64)
    """
    source = features if references is None else references
    factor, mean, deviation = _moments(source)

    def standardise(part: Tensor) -> Tensor:
        scores = (part * factor - mean) / deviation
        return torch.where(deviation > 0, scores, 0.0)

    scored = _converted(source, standardise)
    if references is None:
        return scored, scored
    samples = _converted(features, standardise)
    beyond = (~samples.isfinite().all(1)).nonzero()[:, 0]
    if len(beyond):
        raise DataError(
            f"z-scores of rows {listed(beyond)} leave the range of float64: they are over 1e300 times as large as the "
            "references; expected samples and references in the same units"
        )
    return samples, scored


def unit_length(features: Tensor, what: str) -> Tensor:
    """Return the rows divided by their length, so that Euclidean distances rank them as cosines do.

    ``what``: the name of the features in errors. Raises :class:`DataError` for rows of zeros: they have no direction.

    >>> unit_length(torch.tensor([[3, 4]]), "features")
    tensor([[0.6000, 0.8000]], dtype=torch.float64)
    """
    # First scale the largest number to about 1: the length of rows near 1e200 would be infinite.
    converted = _converted(features, lambda part: part * _power_of_two(part.abs().amax(1, keepdim=True)))
    lengths = torch.linalg.vector_norm(converted, dim=1, keepdim=True)
    zero = (lengths[:, 0] == 0).nonzero()[:, 0]
    if len(zero):
        raise DataError(
            f"{what} are zero throughout in {len(zero)} of {len(features)} rows ({listed(zero)}), which have no "
            "direction and no cosine; leave these rows out, or use metric 'euclidean'"
        )
    return converted.div_(lengths)


def in_range(features: Tensor, references: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
    """Return both unchanged if their squared distances stay in range, else copies multiplied by a power of two.

    The order of distances stays the same, because multiplying by a power of two is exact.

    >>> in_range(torch.tensor([[1e-300]], dtype=torch.float64))[0].square() > 1
    tensor([[True]])
    """
    given = [features] if references is None else [features, references]
    if features.dtype != torch.float64:
        return features, references
    exponent = math.frexp(max(float(bound.abs()) for rows in given for bound in rows.aminmax()))[1]
    if LOWEST_EXPONENT <= exponent <= TOP_EXPONENT:
        return features, references
    factor = math.ldexp(1.0, min(TOP_EXPONENT - exponent, 1000))  # would overflow for subnormal numbers
    return features * factor, None if references is None else references * factor


def _moments(features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return a power of two for each column, the mean after scaling by it, and the deviation; 0 if constant."""
    lowest, highest = (bound.to(torch.float64) for bound in features.aminmax(dim=0))
    factor = _power_of_two(torch.maximum(lowest.abs(), highest.abs()))
    mean = _sum_over(features, lambda part: part * factor) / len(features)
    variance = _sum_over(features, lambda part: (part * factor - mean).square_()) / len(features)
    # Compare the bounds, because the mean of a constant column may have a rounding error.
    return factor, mean, torch.where(lowest == highest, 0.0, variance.sqrt())


def _power_of_two(largest: Tensor) -> Tensor:
    exponents = torch.frexp(largest).exponent.clamp(-1000, 1000).to(torch.float64)
    return torch.exp2(-exponents)


def _sum_over(features: Tensor, term: Callable[[Tensor], Tensor]) -> Tensor:
    total = torch.zeros(features.shape[1], dtype=torch.float64, device=features.device)
    for part in features.split(_step(features)):
        total += term(part.to(torch.float64)).sum(0)
    return total


def _converted(features: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
    result = torch.empty(features.shape, dtype=torch.float64, device=features.device)
    for target, part in zip(result.split(_step(features)), features.split(_step(features)), strict=True):
        target.copy_(function(part.to(torch.float64)))
    return result


def _step(features: Tensor) -> int:
    return max(1, CHUNK_ELEMENTS // features.shape[1])
