"""Read rows in float64, and compute squared distances between them with the same bits on every device.

docs/exact-neighbours.md says what "exact" means.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

CHUNK_ELEMENTS = 2**18  # float64 numbers in a pass over rows: 2 MB stay in the cache
EXACT_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.uint8, torch.int8, torch.int16)


class Rows:
    """Features as given, (N, D), of one of ``EXACT_DTYPES``, read in float64 and scaled by powers of two.

    Squared distances are those of x times 2^``exponent``, so that squares stay in range. The vectors of a search come
    from u = s (x - m): m is a median row, s a power of two, each coordinate of u at most 1. ``step``: number of rows to
    process at a time.
    """

    def __init__(self, features: Tensor, memory_budget: int) -> None:
        elements = memory_budget // 256
        if features.device.type == "cpu":  # other devices have no such cache, and starting a pass is slow there
            elements = min(CHUNK_ELEMENTS, elements)
        self.features, self.width = features, features.shape[1]
        self.step, self.exponent = chunk_rows(features, elements), 0
        # The exponent of a subnormal maximum would make a factor that overflows.
        self.exponent = min(480 - self._largest_exponent(), 1000)
        # The median of a sample: enough against a common offset, and an outlier hardly moves it.
        sample = features[:: max(1, len(features) // self.step)][: self.step]
        median = self._scaled(sample).median(0).values
        # At least 300: a larger scale would raise the underflow of the exact squares above our bound on underflow.
        self._unit = max(self._largest_exponent(median), 300)
        self._shift = median * -math.ldexp(1.0, -self._unit)

    def squared_distances(self, left: Tensor, right: Tensor) -> Tensor:
        """Return the squared distance, (P,) float64, scaled, between the rows of each pair of indices."""

        def compare(one: Tensor, other: Tensor) -> Tensor:
            apart = self._scaled(self.features[one]).sub_(self._scaled(self.features[other]))
            return _sum_of_columns(apart.square_())

        return by_parts(compare, self.step, left.new_empty(len(left), dtype=torch.float64), left, right)

    def centred(self, index: Tensor, columns: slice = slice(None)) -> Tensor:
        """Return the coordinates u of these rows, (len(index), D) float64, or some columns of them."""
        given = self.features[:, columns][index].to(torch.float64)
        return torch.add(self._shift[columns], given, alpha=math.ldexp(1.0, self.exponent - self._unit))

    def centred_distances(self, squared: Tensor) -> Tensor:
        """Return the distances in the units of u, for :meth:`squared_distances`."""
        unit = math.ldexp(1.0, -self._unit)
        return (squared * unit * unit).sqrt_()

    def _scaled(self, rows: Tensor) -> Tensor:
        return rows.to(torch.float64) * math.ldexp(1.0, self.exponent)

    def _largest_exponent(self, origin: Tensor | float = 0.0) -> int:
        parts = [(self._scaled(part) - origin).abs().amax() for part in self.features.split(self.step)]
        return math.frexp(float(torch.stack(parts).amax()))[1]


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
