"""The nearest other sample of each sample, exact.

The nearest sample is the one that float64 arithmetic finds on the features as given: squared differences are summed
in a fixed order, equal sums are ties, and the lowest index wins a tie. To compare all pairs that way is far too
slow. A matrix product, which is fast, gives each pair a lower and an upper bound of its squared distance; these
exclude almost every pair, and only the pairs that survive are compared in float64.

Why an excluded pair cannot be a nearest one. Let x be a row as given, m any fixed vector (we take a median),
s a power of two, and y the rounding of s(x - m) to the dtype of the product, whose unit roundoff is u. Let
n = |y|^2, w = D + 2, and for a pair (i, j) let q = |y_i - y_j|^2 and t = s^2 |x_i - x_j|^2.

1. Rounding the coordinates: |y - s(x - m)| <= e|y| with e = u + 2^-52. So |sqrt q - sqrt t| <= e(|y_i| + |y_j|),
   and from (|y_i| + |y_j|)^2 <= 2(n_i + n_j) follows |t - q| / 2 <= (2e + e^2)(n_i + n_j).
2. The product: q/2 is the inner product of (y_i, n_i/2, 1) and (-y_j, 1, n_j/2), w terms whose magnitudes add
   up to at most n_i + n_j. However they are ordered or fused, it errs by at most g(n_i + n_j), g = wu / (1 - wu).
3. Rounding n_i/2 and n_j/2 to the dtype: at most (u/2)(n_i + n_j). Computing n in float64: relatively w 2^-53.
4. Underflow, even where subnormal numbers are flushed: as |s(x - m)| <= 1, at most a = 16 w times the smallest
   normal number.

So with k = g + 3u + w 2^-52 the product differs from t/2 by at most k(n_i + n_j) + a. With n/2 - kn - a/2 in the
place of n/2 (no larger in magnitude, so 2. holds as before) it is a lower bound of t/2, and an upper bound once
2k(n_i + n_j) + 2a is added. A row keeps every pair whose lower bound does not exceed the least upper bound it
has seen. Upper bounds are widened by 2^-44, more than float64 errs in a sum of squares, and rounded upwards.

Subtracting the median removes an offset that all rows share, and an outlier hardly moves it. If the rows form tight
clusters far from the median, too many pairs survive a float32 product; the search then starts again with float64
products, and what survives these is compared pair by pair, in chunks.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

import torch
from torch import Tensor

from zoo_harness.equal_rows import Groups, Rows, by_parts
from zoo_harness.full_precision import full_precision

MEMORY_BUDGET = 512 * 2**20
LARGEST_TILE, SMALLEST_TILE = 2048, 16
SURVIVORS_PER_ROW = 32  # on average; with more, float64 products are cheaper than comparing them one by one
WIDEST_FLOAT32 = 2**20  # features; beyond, the error of a float32 product excludes too little


@dataclass(frozen=True, eq=False)
class NearestNeighbours:
    """The nearest other sample of each sample: three (N,) int64 tensors on the device of the features.

    ``indices``: the nearest, of several equally near ones the lowest. ``tied``: how many are equally near, from 1.
    ``tied_alike``: how many of these have the label of the sample itself, from 0 to ``tied``.
    """

    indices: Tensor
    tied: Tensor
    tied_alike: Tensor


def nearest_neighbours(features: Tensor, labels: Tensor, *, memory_budget: int = MEMORY_BUDGET) -> NearestNeighbours:
    """Return the nearest other sample of each sample. A faster search would replace this function and no other.

    ``features``: (N, D), finite, N at least 2, D at least 1, dtype one of ``EXACT_DTYPES``. ``labels``: (N,) int64
    on the same device; they do not steer the search, they only say which of the tied samples are alike.
    ``memory_budget``: bytes, beyond the input, to work in.

    >>> nearest_neighbours(torch.tensor([[0.0], [1.0], [2.0]]), torch.tensor([0, 1, 0])).indices
    tensor([1, 0, 1])
    """
    rows = Rows.of(features, memory_budget)
    groups = Groups.of(rows, labels)
    with full_precision(features.device):
        return _search(rows, groups, memory_budget).of_samples()


def _search(rows: Rows, groups: Groups, memory_budget: int) -> _Best:
    if groups.singles == 0:
        return _Best(groups)
    if rows.features.shape[1] <= WIDEST_FLOAT32:
        with suppress(_TooManySurvivors):
            most = SURVIVORS_PER_ROW * len(groups.first)
            return _sweep(_Screen(rows, groups.first, torch.float32), groups, memory_budget, most)
    return _sweep(_Screen(rows, groups.first, torch.float64), groups, memory_budget, math.inf)


def _sweep(screen: _Screen, groups: Groups, memory_budget: int, most: float) -> _Best:
    """Return the best of each group after all tiles, unless more than ``most`` pairs survive."""
    best = _Best(groups)
    tile = _tile(screen, memory_budget)
    capacity = memory_budget // 1024
    survivors = _Survivors(screen, groups.singles, capacity + min(tile, len(groups.first)) ** 2, most)
    for lower, rows, columns in _tiles(screen, groups.singles, tile):
        survivors.admit(lower, rows, columns)
        if survivors.count > capacity:
            best.compare(screen.rows, *survivors.take())
    best.compare(screen.rows, *survivors.take())
    return best


# Screening


class _Screen:
    """Centred, scaled coordinates of the groups, and what turns their products into bounds (see the module).

    ``first``: a sample of each group. ``half``: for each group, the term that makes products lower bounds.
    ``slack``: its share in the gap to the upper bounds.
    """

    def __init__(self, rows: Rows, first: Tensor, dtype: torch.dtype) -> None:
        self.rows, self.first, self.dtype = rows, first, dtype
        parts = first.split(rows.step)
        centre = rows.exact(parts[0]).median(0).values  # of some rows: the groups come in random order
        reach = max(float((rows.exact(part) - centre).abs().amax()) for part in parts)
        # At least 300: a larger scale would raise the underflow of the exact squares above our bound on underflow.
        exponent = max(math.frexp(reach)[1], 300)
        self.shift = centre * -math.ldexp(1.0, -exponent)
        self.factor = math.ldexp(1.0, rows.exponent - exponent)
        self.terms = rows.features.shape[1] + 2
        norms = by_parts(self._squared_norms, rows.step, torch.float64, first)
        self.half, self.slack = _bounds(norms, self.terms, dtype)

    def fill(self, side: Tensor, groups: slice, *, left: bool) -> None:
        """Write the rows of one side of a product, (y, n/2, 1) for the left and (-y, 1, n/2) for the right."""
        step = self.rows.step
        for place, part in zip(side.split(step), self.first[groups].split(step), strict=True):
            place[:, :-2] = self._coordinates(part)
        side[:, -2 if left else -1] = self.half[groups]
        side[:, -1 if left else -2] = 1
        if not left:
            side[:, :-2].neg_()

    def _coordinates(self, samples: Tensor) -> Tensor:
        given = self.rows.features[samples].to(torch.float64)
        return torch.add(self.shift, given, alpha=self.factor).to(self.dtype)

    def _squared_norms(self, samples: Tensor) -> Tensor:
        return self._coordinates(samples).to(torch.float64).square_().sum(1)


def _bounds(norms: Tensor, terms: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return half and slack of each group (see :class:`_Screen`) from its n."""
    unit = torch.finfo(dtype).eps / 2
    relative = terms * unit / (1 - terms * unit) + 3 * unit + terms * 2.0**-52
    absolute = 16 * terms * torch.finfo(dtype).tiny
    half = norms * (0.5 - relative) - absolute / 2
    return half.to(dtype), norms * (2 * relative) + absolute


def _tile(screen: _Screen, memory_budget: int) -> int:
    """Return how many rows a tile may have for its coordinates and products, and its pairs as survivors, to fit."""
    item = screen.half.element_size()
    tile = LARGEST_TILE
    while tile > SMALLEST_TILE:
        if tile * screen.terms * 2 * item + tile**2 * (3 * item + 64) <= memory_budget * 7 // 8:
            break
        tile //= 2
    return tile


def _tiles(screen: _Screen, singles: int, tile: int) -> Iterator[tuple[Tensor, slice, slice]]:
    """Yield lower bounds of t/2, and where in the square of all pairs they are; the next overwrite them.

    Each pair is in one tile, above the diagonal of that square; what is not above it stands as infinite. Pairs of
    which neither is one of the first ``singles`` may be left out.
    """
    groups = len(screen.first)
    size = min(tile, groups)
    left, right = (screen.half.new_empty(size, screen.terms) for _ in range(2))
    products = screen.half.new_empty(size * size)
    for i in range(0, singles, tile):
        rows = slice(i, min(i + tile, groups))
        height = rows.stop - i
        screen.fill(left[:height], rows, left=True)
        for j in range(i, groups, tile):
            columns = slice(j, min(j + tile, groups))
            width = columns.stop - j
            screen.fill(right[:width], columns, left=False)
            lower = products[: height * width].view(height, width)
            torch.mm(left[:height], right[:width].T, out=lower)
            if i == j:
                lower.masked_fill_(torch.ones_like(lower, dtype=torch.bool).tril_(), math.inf)
            yield lower, rows, columns


# Survivors


class _TooManySurvivors(Exception):  # noqa: N818 - no error: it ends an attempt
    pass


class _Survivors:
    """Pairs of groups, each once, that the limits known so far could not exclude, with their lower bounds.

    ``limit``: of each group, the least upper bound seen. ``count``: pairs held. ``remaining``: more to take at most.
    """

    def __init__(self, screen: _Screen, singles: int, capacity: int, most: float) -> None:
        self.slack = screen.slack
        self.limit = torch.full_like(screen.half, -math.inf)  # which keeps nothing, for groups that need no search
        self.limit[:singles] = math.inf
        # Filled in place: small tensors kept between large temporaries would fragment the heap.
        self.here, self.there = (screen.first.new_empty(capacity) for _ in range(2))
        self.lower = screen.half.new_empty(capacity)
        self.count = 0
        self.remaining = most

    def admit(self, lower: Tensor, rows: slice, columns: slice) -> None:
        """Screen one tile for its rows, then for its columns, and lower the limits of both."""
        limit, slack = self.limit, self.slack
        nothing = limit.new_full((lower.shape[1],), -math.inf)
        here, there, bound = _admitted(lower, limit[rows], slack[rows], slack[columns], nothing)
        self._add(here + rows.start, there + columns.start, bound)
        admitted = limit[rows].clone()  # on the diagonal, rows and columns share their limits
        there, here, bound = _admitted(lower.T, limit[columns], slack[columns], slack[rows], admitted)
        self._add(here + rows.start, there + columns.start, bound)

    def _add(self, here: Tensor, there: Tensor, lower: Tensor) -> None:
        place = slice(self.count, self.count + len(lower))
        self.here[place], self.there[place], self.lower[place] = here, there, lower
        self.count = place.stop

    def take(self) -> tuple[Tensor, Tensor]:
        """Hand over all pairs that even the limits known by now do not exclude, and keep none."""
        here, there, lower = self.here[: self.count], self.there[: self.count], self.lower[: self.count]
        self.count = 0
        still = lower <= torch.maximum(self.limit[here], self.limit[there])
        here, there = here[still], there[still]
        self.remaining -= len(here)
        if self.remaining < 0:
            raise _TooManySurvivors
        return here, there


def _admitted(
    lower: Tensor, limit: Tensor, slack: Tensor, slack_across: Tensor, admitted: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return row, column and lower bound of what survives in each row, after lowering ``limit`` in place.

    Leaves out what survived already for the sake of its column: there ``lower`` does not exceed ``admitted``.
    """
    least = lower.amin(1)
    rows = ((least <= limit) & (least < math.inf)).nonzero()[:, 0]
    part = lower[rows]
    reach, at = part.min(1)
    upper = (reach.to(torch.float64) + slack[rows] + slack_across[at]) * (1 + 2.0**-44)
    upper = upper.to(lower.dtype).nextafter(limit.new_tensor(math.inf))  # the conversion may round down
    limit[rows] = torch.minimum(limit[rows], upper)
    row, column = ((part <= limit[rows, None]) & (part > admitted)).nonzero(as_tuple=True)
    return rows[row], column, part[row, column]


# The best known


class _Best:
    """For each group the least squared distance seen, the lowest index attaining it, how many samples do."""

    def __init__(self, groups: Groups) -> None:
        self.groups = groups
        self.distance = torch.full_like(groups.first, math.inf, dtype=torch.float64)
        self.index = torch.full_like(groups.first, len(groups.of_sample))
        self.tied = torch.zeros_like(groups.first)
        self.alike = torch.zeros_like(groups.first)

    def compare(self, rows: Rows, here: Tensor, there: Tensor) -> None:
        """Compare pairs of groups in float64; a pair given twice would be counted as a tie with itself."""
        distance = rows.squared_distances(self.groups.first[here], self.groups.first[there])
        self._learn(here, there, distance)
        self._learn(there, here, distance)

    def _learn(self, here: Tensor, there: Tensor, distance: Tensor) -> None:
        groups = self.groups
        least = self.distance.scatter_reduce(0, here, distance, "amin")
        nearer = least < self.distance
        self.index[nearer] = len(groups.of_sample)
        self.tied[nearer] = 0
        self.alike[nearer] = 0
        self.distance = least
        attained = distance == least[here]
        here, there = here[attained], there[attained]
        self.index.scatter_reduce_(0, here, groups.first[there], "amin")
        self.tied.index_add_(0, here, groups.size[there])
        self.alike.index_add_(0, here, groups.alike(there, groups.labels[groups.first[here]]))

    def of_samples(self) -> NearestNeighbours:
        """From groups to samples: a sample with equals has these as its nearest, at distance 0."""
        groups, own = self.groups, self.groups.of_sample
        repeated = groups.size[own] > 1
        itself = torch.arange(len(own), device=own.device)
        twin = torch.where(groups.first[own] == itself, groups.second[own], groups.first[own])
        return NearestNeighbours(
            torch.where(repeated, twin, self.index[own]),
            torch.where(repeated, groups.size[own] - 1, self.tied[own]),
            torch.where(repeated, groups.alike(own, groups.labels) - 1, self.alike[own]),
        )
