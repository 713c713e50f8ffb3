"""Compute squared distances between rows in float64, with the same bits on every device.

docs/exact-neighbours.md says what "exact" means.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

CHUNK_ELEMENTS = 2**18  # float64 numbers in a pass over rows: 2 MB stay in the cache
EXACT_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.uint8, torch.int8, torch.int16)


@dataclass(frozen=True, eq=False)
class Rows:
    """Features as given, read as float64 times a power of two that keeps their squares in range.

    ``features``: (N, D). ``exponent``: of that power of two. ``step``: number of rows to process at a time.
    """

    features: Tensor
    exponent: int
    step: int

    @classmethod
    def of(cls, features: Tensor, memory_budget: int) -> Self:
        """Choose exponent and step for features of one of ``EXACT_DTYPES``."""
        elements = memory_budget // 256
        if features.device.type == "cpu":  # other devices have no such cache, and starting a pass is slow there
            elements = min(CHUNK_ELEMENTS, elements)
        step = chunk_rows(features, elements)
        largest = float(torch.stack([part.to(torch.float64).abs().amax() for part in features.split(step)]).amax())
        # The exponent of a subnormal maximum would make a factor that overflows.
        return cls(features, min(480 - math.frexp(largest)[1], 1000), step)

    def exact(self, index: Tensor) -> Tensor:
        """Return the rows with these indices in float64, scaled."""
        return self.features[index].to(torch.float64) * math.ldexp(1.0, self.exponent)

    def squared_distances(self, left: Tensor, right: Tensor) -> Tensor:
        """Return the squared distance, (P,) float64, scaled, between the rows of each pair of indices."""

        def compare(one: Tensor, other: Tensor) -> Tensor:
            return _sum_of_columns(self.exact(one).sub_(self.exact(other)).square_())

        return by_parts(compare, self.step, left.new_empty(len(left), dtype=torch.float64), left, right)


def chunk_rows(features: Tensor, elements: int = CHUNK_ELEMENTS) -> int:
    """Return the number of rows to process at a time."""
    return max(1, elements // features.shape[1])


def by_parts(function: Callable[..., Tensor], step: int, result: Tensor, *sources: Tensor) -> Tensor:
    """Fill and return ``result`` with the function of ``step`` rows of the sources at a time.

    >>> by_parts(lambda rows: rows.sum(1), 2, torch.empty(3), torch.ones(3, 4))
    tensor([4., 4., 4.])
    """
    # Not a list of results for torch.cat: kept between large temporaries, these would fragment the heap.
    for target, *parts in zip(result.split(step), *(source.split(step) for source in sources), strict=True):
        target.copy_(function(*parts))
    return result


def _sum_of_columns(terms: Tensor) -> Tensor:
    # By halves: a library's sum may depend on shape, strides, threads and device, and ties need equal sums.
    width = terms.shape[1]
    while width > 1:
        kept = (width + 1) // 2
        terms[:, : width - kept] += terms[:, kept:width]
        width = kept
    return terms[:, 0]
