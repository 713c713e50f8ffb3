"""The Separation Index of order one, exact: the share of samples whose nearest other sample has their label.

The nearest neighbour is the one that float64 arithmetic finds on the features as given: squared differences
are summed in a fixed order, equal sums are ties, the lowest index wins a tie. To compare all pairs that way is
far too slow, so cheap products exclude almost every pair and only the rest is compared in float64.

Why an excluded pair cannot be a nearest one. Let x be a row as given, m any fixed vector (we take a median),
s a power of two, and y the rounding of s(x - m) to the dtype of the product, whose unit roundoff is u. Let
n = |y|^2, w = D + 2, and for a pair q = |y_i - y_j|^2 and t = s^2 |x_i - x_j|^2.

1. Rounding the coordinates: |y - s(x - m)| <= e|y| with e = u + 2^-52. So |sqrt q - sqrt t| <= e(|y_i| + |y_j|),
   and from (|y_i| + |y_j|)^2 <= 2(n_i + n_j) follows |t - q| / 2 <= (2e + e^2)(n_i + n_j).
2. The product: q/2 is the inner product of (y_i, n_i/2, 1) and (-y_j, 1, n_j/2), w terms whose magnitudes add
   up to at most n_i + n_j. However they are ordered or fused, it errs by at most g(n_i + n_j), g = wu / (1 - wu).
3. Rounding n/2 to the dtype: at most (u/4)(n_i + n_j) a side. Computing n in float64: relatively w 2^-53.
4. Underflow, even where subnormal numbers are flushed: as |s(x - m)| <= 1, at most a = 16 w times the smallest
   normal number.

So with k = g + 3u + w 2^-52 the product differs from t/2 by at most k(n_i + n_j) + a. With n/2 - kn - a/2 in the
place of n/2 (no larger in magnitude, so 2. holds as before) it is a lower bound of t/2, and an upper bound once
2k(n_i + n_j) + 2a is added. A row keeps every pair whose lower bound does not exceed the least upper bound it
has seen. Upper bounds are widened by 2^-44, more than float64 errs in a sum of squares, and rounded upwards.

The median takes away any common offset, and no outlier moves it, as it would the mean. Of tight clusters far from
it too many pairs survive float32; the search then starts again with float64 products, and what even these cannot
exclude is compared pair by pair, in chunks.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from zoo.errors import DataError, UsageError

MEMORY_BUDGET = 512 * 2**20
LARGEST_TILE, SMALLEST_TILE = 2048, 16
SURVIVORS_PER_ROW = 32  # on average; with more, float64 products are cheaper than comparing them one by one
WIDEST_FLOAT32 = 2**20  # features; beyond, the error of a float32 product excludes too little
CHUNK_ELEMENTS = 2**18  # float64 numbers in a pass over rows: 2 MB stay in the cache
EXACT_DTYPES = (
    *(torch.float16, torch.bfloat16, torch.float32, torch.float64),
    *(torch.uint8, torch.int8, torch.int16),
)

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, eq=False)
class SeparationIndex:
    """How well classes are separated at order one, and how far ties could change that.

    ``value``: in [0, 1]. ``standard_error``: binomial, sqrt(value (1 - value) / n). ``n``: samples. ``ties``:
    samples whose nearest distance is attained by more than one other sample. ``tied_disagreements``: those of
    them that would count differently if another of the tied samples won. ``nearest``: (N,) int64, the neighbour
    that counted.
    """

    value: float
    standard_error: float
    n: int
    ties: int
    tied_disagreements: int
    nearest: Tensor


@dataclass(frozen=True, eq=False)
class NearestNeighbours:
    """The nearest other sample of each sample: three (N,) int64 tensors on the device of the features.

    ``indices``: the nearest, of several equally near ones the lowest. ``tied``: how many are equally near, from 1.
    ``tied_alike``: how many of these have the label of the sample itself, from 0 to ``tied``.
    """

    indices: Tensor
    tied: Tensor
    tied_alike: Tensor


def separation_index(
    features: Array | Tensor, labels: Array | Tensor, *, memory_budget: int = MEMORY_BUDGET
) -> SeparationIndex:
    """Return the share of samples whose nearest other sample, in Euclidean distance, has the same label.

    ``features``: (N, D), real and finite, two rows and one column or more; any strides, any device. ``labels``:
    (N,) integers from 0, gaps allowed. A sample whose class has no other sample counts as a miss.
    ``memory_budget``: bytes, beyond the input, to work in. About 300 bytes a sample and a few rows are needed
    however little is allowed, and features other than 16 to 64 bit floats and 8 or 16 bit integers are first
    copied to float64.

    Raises :class:`UsageError` for shapes and types that cannot be meant, :class:`DataError` for values.

    Formula: (1/n) sum_i [label of the nearest other sample of i = label of i], M. Kalhor, A. Kalhor and Rahmani
    2020, arXiv 2012.13717; it equals the accuracy of leave-one-out 1-nearest-neighbour classification. It stays
    at 1 once the classes separate, however far apart they are.

    >>> features = np.array([[0.0], [1.0], [4.0], [6.0], [6.5]])
    >>> separation_index(features, np.array([0, 0, 0, 1, 1])).value
    0.8
    """
    if isinstance(memory_budget, bool) or not isinstance(memory_budget, int) or memory_budget < 1:
        raise UsageError(f"memory_budget {memory_budget!r} is not a positive number of bytes")
    points = _checked_features(features)
    classes = _checked_labels(labels, points)
    return _score(nearest_neighbours(points, classes, memory_budget=memory_budget), classes)


def nearest_neighbours(features: Tensor, labels: Tensor, *, memory_budget: int = MEMORY_BUDGET) -> NearestNeighbours:
    """Return the nearest other sample of each sample, exact in float64: the seam behind which faster engines go.

    ``features``: (N, D), finite, N at least 2, D at least 1, dtype one of ``EXACT_DTYPES``. ``labels``: (N,) int64
    on the same device; they do not steer the search, they only say which of the tied samples are alike.

    >>> nearest_neighbours(torch.tensor([[0.0], [1.0], [2.0]]), torch.tensor([0, 1, 0])).indices
    tensor([1, 0, 1])
    """
    rows = _Rows.of(features, memory_budget)
    groups = _Groups.of(rows, labels)
    with _full_precision(features.device):
        return groups.spread(_search(rows, groups, memory_budget))


def _score(neighbours: NearestNeighbours, labels: Tensor) -> SeparationIndex:
    n = len(labels)
    value = int((labels[neighbours.indices] == labels).sum()) / n
    undecided = (neighbours.tied_alike > 0) & (neighbours.tied_alike < neighbours.tied)
    return SeparationIndex(
        value=value,
        standard_error=math.sqrt(value * (1 - value) / n),
        n=n,
        ties=int((neighbours.tied > 1).sum()),
        tied_disagreements=int(undecided.sum()),
        nearest=neighbours.indices,
    )


# Rows in float64, and groups of equal rows


@dataclass(frozen=True, eq=False)
class _Rows:
    """Features as given, read as float64 times a power of two that keeps their squares in range."""

    features: Tensor
    exponent: int
    step: int

    @classmethod
    def of(cls, features: Tensor, memory_budget: int) -> Self:
        elements = min(CHUNK_ELEMENTS, memory_budget // 256)
        step = max(1, elements // features.shape[1])
        largest = max(float(part.to(torch.float64).abs().amax()) for part in features.split(step))
        # The exponent of a subnormal maximum would make a factor that overflows.
        return cls(features, min(480 - math.frexp(largest)[1], 1000), step)

    def exact(self, index: Tensor | slice) -> Tensor:
        return self.features[index].to(torch.float64) * math.ldexp(1.0, self.exponent)

    def squared_distances(self, left: Tensor, right: Tensor) -> Tensor:
        def compare(one: Tensor, other: Tensor) -> Tensor:
            return _sum_of_columns(self.exact(one).sub_(self.exact(other)).square_())

        return _by_parts(compare, self.step, torch.float64, left, right)


def _by_parts(function: Callable[..., Tensor], step: int, dtype: torch.dtype, *sources: Tensor) -> Tensor:
    """One number for each row of the sources, computed from ``step`` rows at a time."""
    # Not a list of results for torch.cat: kept between large temporaries, these would fragment the heap.
    result = torch.empty(len(sources[0]), dtype=dtype, device=sources[0].device)
    for place, *parts in zip(result.split(step), *(source.split(step) for source in sources), strict=True):
        place.copy_(function(*parts))
    return result


def _sum_of_columns(terms: Tensor) -> Tensor:
    # By halves: a library's sum may depend on shape, strides, threads and device, and ties need equal sums.
    width = terms.shape[1]
    while width > 1:
        kept = (width + 1) // 2
        terms[:, : width - kept] += terms[:, kept:width]
        width = kept
    return terms[:, 0]


@dataclass(frozen=True, eq=False)
class _Groups:
    """Samples with equal rows, as groups; groups of one sample come first, only these need a search.

    ``first`` and ``second`` are the lowest indices in each group, ``of_sample`` the group of each sample.
    """

    of_sample: Tensor
    first: Tensor
    second: Tensor
    size: Tensor
    singles: int
    labels: Tensor
    classes: int
    keys: Tensor
    counts: Tensor

    @classmethod
    def of(cls, rows: _Rows, labels: Tensor) -> Self:
        order, starts = _equal_runs(rows)
        begin = starts.nonzero()[:, 0]
        size = torch.diff(begin, append=begin.new_tensor([len(order)]))
        singles_first = (size > 1).to(torch.uint8).argsort(stable=True)
        of_sample = torch.empty_like(order)
        of_sample[order] = singles_first.argsort()[starts.cumsum(0) - 1]
        begin = begin[singles_first]
        size = size[singles_first]
        names, labels = labels.unique(return_inverse=True)
        keys, counts = (of_sample * len(names) + labels).unique(return_counts=True)
        second = order[(begin + 1).clamp(max=len(order) - 1)]
        singles = int((size == 1).sum())
        return cls(of_sample, order[begin], second, size, singles, labels, len(names), keys, counts)

    def alike(self, group: Tensor, label: Tensor) -> Tensor:
        """How many members of each group bear the label."""
        key = group * self.classes + label
        place = torch.searchsorted(self.keys, key).clamp_(max=len(self.keys) - 1)
        return torch.where(self.keys[place] == key, self.counts[place], 0)

    def spread(self, best: _Best) -> NearestNeighbours:
        """From groups to samples: a sample with equals has these as its nearest, at distance 0."""
        own = self.of_sample
        repeated = self.size[own] > 1
        itself = torch.arange(len(own), device=own.device)
        twin = torch.where(self.first[own] == itself, self.second[own], self.first[own])
        return NearestNeighbours(
            torch.where(repeated, twin, best.index[own]),
            torch.where(repeated, self.size[own] - 1, best.tied[own]),
            torch.where(repeated, self.alike(own, self.labels) - 1, best.alike[own]),
        )


def _equal_runs(rows: _Rows) -> tuple[Tensor, Tensor]:
    """An order that puts equal rows side by side, lower indices first, and where each run of equals starts."""
    for seed in range(1000):
        hashes = _hashes(rows, seed)
        order = hashes.argsort(stable=True)
        starts = torch.ones_like(order, dtype=torch.bool)
        starts[1:] = hashes[order[1:]] != hashes[order[:-1]]
        repeats = (~starts).nonzero()[:, 0]
        pairs = zip(order[repeats].split(rows.step), order[repeats - 1].split(rows.step), strict=True)
        # Different rows may share a hash: then another one is tried, so luck costs time but never exactness.
        if all(torch.equal(rows.features[one], rows.features[other]) for one, other in pairs):
            return order, starts
    raise AssertionError("1,000 hash functions failed to tell different rows apart")


def _hashes(rows: _Rows, seed: int) -> Tensor:
    """One int64 for each row, equal for equal rows: a random combination of the bits, modulo 2^64."""
    generator = torch.Generator("cpu").manual_seed(seed)
    weights = torch.empty(rows.features.shape[1], dtype=torch.int64, device="cpu")
    weights = weights.random_(-(2**63), None, generator=generator).to(rows.features.device)

    def combine(part: Tensor) -> Tensor:
        bits = (part.to(torch.float64) + 0.0).view(torch.int64)  # adding 0 makes -0 and 0 the same
        # Short numbers end in zeros, which a product modulo 2^64 would keep; so mix the upper half in.
        return (bits ^ (bits >> 32)).mul_(weights).sum(1)

    return _by_parts(combine, rows.step, torch.int64, rows.features)


# The best known of each group, and the exact comparison


@dataclass(eq=False)
class _Best:
    """For each group the least squared distance seen, the lowest index attaining it, how many samples do."""

    distance: Tensor
    index: Tensor
    tied: Tensor
    alike: Tensor

    @classmethod
    def unknown(cls, groups: _Groups) -> Self:
        distance = torch.full_like(groups.first, math.inf, dtype=torch.float64)
        index = torch.full_like(groups.first, len(groups.of_sample))
        return cls(distance, index, torch.zeros_like(index), torch.zeros_like(index))

    def learn(self, groups: _Groups, here: Tensor, there: Tensor, distance: Tensor) -> None:
        """Take in pairs of groups; a pair told twice would be counted as a tie with itself."""
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


# Screening


@dataclass(frozen=True, eq=False)
class _Screen:
    """Centred, scaled coordinates of the groups, and what turns their products into bounds (see the module)."""

    rows: _Rows
    first: Tensor
    dtype: torch.dtype
    shift: Tensor
    factor: float
    half: Tensor
    slack: Tensor

    @classmethod
    def of(cls, rows: _Rows, first: Tensor, dtype: torch.dtype) -> Self:
        parts = first.split(rows.step)
        centre = rows.exact(parts[0]).median(0).values  # of some rows: the groups come in random order
        reach = max(float((rows.exact(part) - centre).abs().amax()) for part in parts)
        # At least 300: a larger scale would raise the underflow of the exact squares above our bound on underflow.
        exponent = max(math.frexp(reach)[1], 300)
        shift = centre * -math.ldexp(1.0, -exponent)
        factor = math.ldexp(1.0, rows.exponent - exponent)
        bare = cls(rows, first, dtype, shift, factor, shift, shift)
        norms = _by_parts(bare.squared_norms, rows.step, torch.float64, first)
        return cls(rows, first, dtype, shift, factor, *_bounds(norms, rows.features.shape[1], dtype))

    def coordinates(self, samples: Tensor) -> Tensor:
        given = self.rows.features[samples].to(torch.float64)
        return torch.add(self.shift, given, alpha=self.factor).to(self.dtype)

    def squared_norms(self, samples: Tensor) -> Tensor:
        return self.coordinates(samples).to(torch.float64).square_().sum(1)

    def fill(self, side: Tensor, groups: slice, *, left: bool) -> None:
        """Write the rows of one side of a product, (y, n/2, 1) for the left and (-y, 1, n/2) for the right."""
        step = self.rows.step
        for place, part in zip(side.split(step), self.first[groups].split(step), strict=True):
            place[:, :-2] = self.coordinates(part)
        side[:, -2 if left else -1] = self.half[groups]
        side[:, -1 if left else -2] = 1
        if not left:
            side[:, :-2].neg_()


def _bounds(norms: Tensor, width: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The term of each row that makes products lower bounds, and its share in the gap to the upper bounds."""
    terms = width + 2
    unit = torch.finfo(dtype).eps / 2
    relative = terms * unit / (1 - terms * unit) + 3 * unit + terms * 2.0**-52
    absolute = 16 * terms * torch.finfo(dtype).tiny
    half = norms * (0.5 - relative) - absolute / 2
    return half.to(dtype), norms * (2 * relative) + absolute


# The search


class _TooManySurvivors(Exception):  # noqa: N818 - no error: it ends an attempt
    pass


def _search(rows: _Rows, groups: _Groups, memory_budget: int) -> _Best:
    if groups.singles == 0:
        return _Best.unknown(groups)
    if rows.features.shape[1] <= WIDEST_FLOAT32:
        with suppress(_TooManySurvivors):
            most = SURVIVORS_PER_ROW * len(groups.first)
            return _sweep(_Screen.of(rows, groups.first, torch.float32), groups, memory_budget, most)
    return _sweep(_Screen.of(rows, groups.first, torch.float64), groups, memory_budget, math.inf)


def _sweep(screen: _Screen, groups: _Groups, memory_budget: int, most: float) -> _Best:
    """The best of each group after all tiles, unless more than ``most`` pairs survive."""
    best, compared = _Best.unknown(groups), 0
    limit = torch.full_like(screen.half, -math.inf)
    limit[: groups.singles] = math.inf
    tile = _tile(screen, memory_budget)
    capacity = memory_budget // 1024
    survivors = _Survivors.none_yet(limit, capacity + min(tile, len(limit)) ** 2)
    for lower, rows, columns, last in _tiles(screen, groups.singles, tile):
        survivors.admit(lower, limit, screen.slack, rows, columns)
        if survivors.count and (last or survivors.count > capacity):
            here, there = survivors.take(limit)
            compared += len(here)
            if compared > most:
                raise _TooManySurvivors
            distance = screen.rows.squared_distances(groups.first[here], groups.first[there])
            best.learn(groups, here, there, distance)
            best.learn(groups, there, here, distance)
    return best


def _tile(screen: _Screen, memory_budget: int) -> int:
    """Rows in a tile such that coordinates, products and all of its pairs as survivors fit the budget."""
    width, item = screen.rows.features.shape[1] + 2, screen.half.element_size()
    tile = LARGEST_TILE
    while tile > SMALLEST_TILE:
        if tile * width * 2 * item + tile**2 * (3 * item + 64) <= memory_budget * 7 // 8:
            break
        tile //= 2
    return tile


def _tiles(screen: _Screen, singles: int, tile: int) -> Iterator[tuple[Tensor, slice, slice, bool]]:
    """Lower bounds of t/2, where in all pairs they are, and whether they are the last; the next overwrite them.

    Each pair is in one tile, above the diagonal of all pairs; what is not stands as infinite. Pairs of which neither
    is one of the first ``singles`` may be left out.
    """
    groups = len(screen.first)
    size = min(tile, groups)
    left, right = (screen.half.new_empty(size, screen.rows.features.shape[1] + 2) for _ in range(2))
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
            yield lower, rows, columns, i + tile >= singles and columns.stop == groups


@dataclass(eq=False)
class _Survivors:
    """Pairs of groups, each once, that the limits known so far could not exclude, with their lower bounds."""

    # Filled in place: small tensors kept between large temporaries would fragment the heap.
    here: Tensor
    there: Tensor
    lower: Tensor
    count: int = 0

    @classmethod
    def none_yet(cls, limit: Tensor, capacity: int) -> Self:
        here, there = (torch.empty(capacity, dtype=torch.int64, device=limit.device) for _ in range(2))
        return cls(here, there, limit.new_empty(capacity))

    def admit(self, lower: Tensor, limit: Tensor, slack: Tensor, rows: slice, columns: slice) -> None:
        """Screen one tile for its rows, then for its columns, and lower the limits of both."""
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

    def take(self, limit: Tensor) -> tuple[Tensor, Tensor]:
        """Hand over all pairs that even the limits known by now do not exclude, and keep none."""
        here, there, lower = self.here[: self.count], self.there[: self.count], self.lower[: self.count]
        self.count = 0
        still = lower <= torch.maximum(limit[here], limit[there])
        return here[still], there[still]


def _admitted(
    lower: Tensor, limit: Tensor, slack: Tensor, slack_across: Tensor, admitted: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Row, column and lower bound of what survives in each row, after lowering ``limit`` in place.

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


# What the user gave


def _checked_features(given: Array | Tensor) -> Tensor:
    features = _as_tensor(given, "features")
    if features.is_complex() or features.dtype == torch.bool or features.layout is not torch.strided:
        raise UsageError(f"features are {_kind(features)}; expected real numbers in a dense array")
    if features.ndim != 2:
        raise UsageError(f"features have shape {_shape(features)}; expected (samples, features): pool or flatten")
    samples, width = features.shape
    if samples < 2:
        raise DataError(f"features hold {samples} samples; a nearest other sample needs at least two")
    if width < 1:
        raise DataError(f"features have shape {_shape(features)}; expected at least one number for each sample")
    if features.device.type == "mps":  # no float64 there
        features = features.cpu()
    _refuse_non_finite(features)
    return features if features.dtype in EXACT_DTYPES else _in_float64(features)


def _in_float64(features: Tensor) -> Tensor:
    exact = features.to(torch.float64)
    if not features.is_floating_point() and float(exact.abs().amax()) >= 2.0**53:
        raise DataError(
            "features hold integers of 2^53 or more, which float64 cannot tell apart; scale them down first"
        )
    return exact


def _refuse_non_finite(features: Tensor) -> None:
    step = max(1, CHUNK_ELEMENTS // features.shape[1])
    finite = _by_parts(lambda part: part.to(torch.float64).isfinite().all(1), step, torch.bool, features)
    bad = (~finite).nonzero()[:, 0]
    if len(bad):
        rows = ", ".join(str(row) for row in bad[:5].tolist()) + (", ..." if len(bad) > 5 else "")
        raise DataError(
            f"features hold NaN or infinity in {len(bad)} of {len(finite)} rows ({rows}); "
            "expected finite numbers: see what computed them, or leave these rows out"
        )


def _checked_labels(given: Array | Tensor, features: Tensor) -> Tensor:
    labels = _as_tensor(given, "labels")
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise UsageError(f"labels are {_kind(labels)}; expected integers, the class of each sample")
    if labels.shape != features.shape[:1]:
        raise UsageError(f"labels have shape {_shape(labels)}; expected ({len(features)},), one for each sample")
    labels = labels.to(device=features.device, dtype=torch.int64)
    bad = (labels < 0).nonzero()[:, 0]
    if len(bad):
        first = int(bad[0])
        raise DataError(
            f"{len(bad)} of {len(labels)} labels are negative, the first {int(labels[first])} at sample {first}; "
            "expected classes counted from 0: leave unlabelled samples out"
        )
    return labels


def _as_tensor(given: Array | Tensor, what: str) -> Tensor:
    if isinstance(given, Tensor):
        return given.detach()
    if not isinstance(given, np.ndarray):
        raise UsageError(f"{what} are of type {type(given).__name__}; expected a numpy array or a torch tensor")
    if given.dtype.kind not in "biufc" or given.dtype.itemsize > 16 or given.dtype == np.longdouble:
        raise UsageError(f"{what} are of dtype {given.dtype}; expected numbers of at most 64 bits")
    if not given.dtype.isnative or any(step < 0 or step % given.itemsize for step in given.strides):
        given = np.ascontiguousarray(given, dtype=given.dtype.newbyteorder("="))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of arrays that may not be written to: we only read
        return torch.from_numpy(given)


def _kind(tensor: Tensor) -> str:
    layout = "" if tensor.layout is torch.strided else f" ({tensor.layout})"
    return f"{tensor.dtype}".removeprefix("torch.") + layout


def _shape(tensor: Tensor) -> tuple[int, ...]:
    return tuple(tensor.shape)


# Products in full precision


@contextmanager
def _full_precision(device: torch.device) -> Iterator[None]:
    """Rule out TF32, bfloat16 and autocast, under which the error of a product exceeds the bound."""
    backends: Any = torch.backends
    # Before torch 2.9 there is one setting for all; since then it sets a switch of each backend too.
    switches = (backends.cuda.matmul, backends.mkldnn.matmul) if hasattr(backends.mkldnn, "matmul") else ()
    before = [switch.fp32_precision for switch in switches]
    setting = "highest"
    with suppress(RuntimeError):  # raised where the user set a switch to something else than the setting
        setting = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("highest")
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(setting)
        for switch, precision in zip(switches, before, strict=True):
            switch.fp32_precision = precision
