"""Compute squared distances between rows in float64, with bit-identical results on every device.

docs/exact-neighbours.md defines what "exact" means for these distances.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

CHUNK_ELEMENTS = 2**18  # float64 numbers processed at a time on a CPU: 2 MB fit in the processor's cache
EXACT_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.uint8, torch.int8, torch.int16)


class Rows:
    """Convert parts of an (N, D) feature matrix x to float64 when they are needed, and scale them by powers of two.

    The dtype of the features is one of ``EXACT_DTYPES``. The method :meth:`squared_distances` multiplies x by
    2^``exponent``, so that squares neither overflow nor vanish. The method :meth:`centred` returns u = s (x - m). In
    this formula m is a median row, and s is the power of two that makes every coordinate of u at most 1. ``step``: the
    number of rows to process at a time.
    """

    def __init__(self, features: Tensor, memory_budget: int) -> None:
        elements = memory_budget // 256
        if features.device.type == "cpu":  # small chunks suit a CPU's cache; a GPU needs few, large operations
            elements = min(CHUNK_ELEMENTS, elements)
        self.features, self.width = features, features.shape[1]
        self.step, self.exponent = chunk_rows(features, elements), 0
        # If the largest feature is subnormal, an unlimited exponent would make 2^exponent overflow.
        self.exponent = min(480 - self._largest_exponent(), 1000)
        # Subtracting a sample's median removes an offset that all rows share; an outlier hardly changes the median.
        sample = features[:: max(1, len(features) // self.step)][: self.step]
        median = self._scaled(sample).median(0).values
        # With an exponent below 300, exact squares could lose more to underflow than the search's error bounds allow.
        self._unit = max(self._largest_exponent(median), 300)
        self._shift = median * -math.ldexp(1.0, -self._unit)

    def squared_distances(self, left: Tensor, right: Tensor) -> Tensor:
        """Return the squared distances between scaled rows, (P,) float64, for P pairs of row numbers."""

        def compare(one: Tensor, other: Tensor) -> Tensor:
            apart = self._scaled(self.features[one]).sub_(self._scaled(self.features[other]))
            return _sum_of_columns(apart.square_())

        return by_parts(compare, self.step, left.new_empty(len(left), dtype=torch.float64), left, right)

    def centred(self, index: Tensor, columns: slice = slice(None)) -> Tensor:
        """Return the centred and scaled coordinates u of the given rows, (len(index), D) float64.

        ``columns``: the slice of columns to return.
        """
        given = self.features[:, columns][index].to(torch.float64)
        return torch.add(self._shift[columns], given, alpha=math.ldexp(1.0, self.exponent - self._unit))

    def centred_distances(self, squared: Tensor) -> Tensor:
        """Convert results of :meth:`squared_distances` to distances in the units of :meth:`centred`."""
        unit = math.ldexp(1.0, -self._unit)
        return (squared * unit * unit).sqrt_()

    def _scaled(self, rows: Tensor) -> Tensor:
        return rows.to(torch.float64) * math.ldexp(1.0, self.exponent)

    def _largest_exponent(self, origin: Tensor | float = 0.0) -> int:
        parts = [(self._scaled(part) - origin).abs().amax() for part in self.features.split(self.step)]
        return math.frexp(float(torch.stack(parts).amax()))[1]


def chunk_rows(features: Tensor, elements: int = CHUNK_ELEMENTS) -> int:
    """Return how many rows of the features together hold at most ``elements`` numbers; return at least 1."""
    return max(1, elements // features.shape[1])


def by_parts(function: Callable[..., Tensor], step: int, result: Tensor, *sources: Tensor) -> Tensor:
    """Apply a function to ``step`` rows of the sources at a time, and write the function's values into ``result``.

    >>> by_parts(lambda rows: rows.sum(1), 2, torch.empty(3), torch.ones(3, 4))
    tensor([4., 4., 4.])
    """
    # A list of partial results for torch.cat would fragment the heap, because large temporaries lie between the parts.
    for target, *parts in zip(result.split(step), *(source.split(step) for source in sources), strict=True):
        target.copy_(function(*parts))
    return result


def _sum_of_columns(terms: Tensor) -> Tensor:
    # Add the upper half of the columns to the lower half until one column is left. The order of additions in torch.sum
    # may depend on shape, strides, threads and device, but equal distances must have equal sums everywhere.
    width = terms.shape[1]
    while width > 1:
        kept = (width + 1) // 2
        terms[:, : width - kept] += terms[:, kept:width]
        width = kept
    return terms[:, 0]
