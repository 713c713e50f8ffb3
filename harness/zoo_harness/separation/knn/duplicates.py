"""Rows of features in float64, their exact distances, and the groups of samples whose rows are equal.

Equal rows are at distance 0, so only the samples without an equal need a search, among one sample of each group.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Self

import torch
from torch import Tensor

from zoo_harness.compute.triton_support import can_run, proves_itself

FEWEST_NUMBERS = 2**22  # fewer are compared before a kernel is compiled
CHUNK_ELEMENTS = 2**18  # float64 numbers in a pass over rows: 2 MB stay in the cache
EXACT_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.uint8, torch.int8, torch.int16)


@dataclass(frozen=True, eq=False)
class Rows:
    """Features as given, read as float64 times a power of two that keeps their squares in range.

    ``features``: (N, D). ``exponent``: of that power of two. ``step``: rows to work on at a time.
    """

    features: Tensor
    exponent: int
    step: int

    @classmethod
    def of(cls, features: Tensor, memory_budget: int) -> Self:
        """Choose exponent and step for features of one of ``EXACT_DTYPES``."""
        elements = memory_budget // 256
        if features.device.type == "cpu":  # other devices have no cache to stay in, and begin each pass slowly
            elements = min(CHUNK_ELEMENTS, elements)
        step = max(1, elements // features.shape[1])
        largest = float(torch.stack([part.to(torch.float64).abs().amax() for part in features.split(step)]).amax())
        # The exponent of a subnormal maximum would make a factor that overflows.
        return cls(features, min(480 - math.frexp(largest)[1], 1000), step)

    def exact(self, index: Tensor) -> Tensor:
        """Return these rows in float64, scaled."""
        return self.features[index].to(torch.float64) * math.ldexp(1.0, self.exponent)

    def squared_distances(self, left: Tensor, right: Tensor) -> Tensor:
        """Return the squared distance, scaled, of each row in ``left`` from its partner in ``right``."""
        if _kernel_compares(self.features, len(left)):
            from zoo_harness.separation.knn.distances_kernel import squared_distances  # imports triton

            scale = torch.full((1,), math.ldexp(1.0, self.exponent), dtype=torch.float64, device=left.device)
            return squared_distances(self.features, scale, left, right)
        return self._squared_distances_by_torch(left, right)

    def _squared_distances_by_torch(self, left: Tensor, right: Tensor) -> Tensor:
        def compare(one: Tensor, other: Tensor) -> Tensor:
            return _sum_of_columns(self.exact(one).sub_(self.exact(other)).square_())

        return by_parts(compare, self.step, torch.float64, left, right)


def _kernel_compares(features: Tensor, pairs: int) -> bool:
    width = features.shape[1]
    if pairs * width < FEWEST_NUMBERS or not can_run(features.device):
        return False
    from zoo_harness.separation.knn.distances_kernel import WIDEST

    fits = 16 <= width <= WIDEST and features.stride(1) == 1
    return fits and _kernel_works(features.device, features.dtype, (width - 1).bit_length())


@cache
def _kernel_works(device: torch.device, dtype: torch.dtype, levels: int) -> bool:
    """Whether the kernel for up to 2^levels columns gives what torch gives, bit for bit."""

    def example() -> bool:
        from zoo_harness.separation.knn.distances_kernel import squared_distances

        generator = torch.Generator("cpu").manual_seed(0)
        values = torch.randn(64, 2**levels - 3, generator=generator, dtype=torch.float32, device="cpu").abs_() * 30
        rows = Rows(values.to(device, dtype), 400, 16)
        left, right = (torch.randint(0, 64, (50,), generator=generator, device="cpu").to(device) for _ in range(2))
        scale = torch.full((1,), 2.0**400, dtype=torch.float64, device=device)
        ours = squared_distances(rows.features, scale, left, right)
        return torch.equal(ours, rows._squared_distances_by_torch(left, right))

    return proves_itself("distances", device, example)


def by_parts(function: Callable[..., Tensor], step: int, dtype: torch.dtype, *sources: Tensor) -> Tensor:
    """Return one number for each row of the sources, computed from ``step`` rows at a time.

    >>> by_parts(lambda rows: rows.sum(1), 2, torch.float32, torch.ones(3, 4))
    tensor([4., 4., 4.])
    """
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
class Groups:
    """Rows that are equal, as groups; rows are reference samples, or queries, or in a self join both at once.

    ``of_row``: (T,), the group of each row. ``first``: (G,), the lowest row of each group. ``members``: the reference
    rows, group by group, lowest first. ``begin``, ``size``: (G,), where each group's begin, and how many they are.
    ``labels``: (T,), counted from 0 without gaps. ``units``: what is asked about, group and label, by group.
    """

    of_row: Tensor
    first: Tensor
    members: Tensor
    begin: Tensor
    size: Tensor
    labels: Tensor
    units: Units
    _classes: int
    _keys: Tensor
    _counts: Tensor

    @classmethod
    def of(cls, rows: Rows, labels: Tensor, references: int | None) -> Self:
        """Group all rows; the first ``references`` of them may be neighbours, the others ask for theirs.

        Without ``references`` all rows are both. ``labels`` are any (T,) int64.
        """
        order, starts = _equal_runs(rows)
        begin = starts.nonzero()[:, 0]
        of_row = torch.empty_like(order)
        of_row[order] = starts.cumsum(0) - 1
        members = order if references is None else order[order < references]
        size = torch.bincount(of_row[members], minlength=len(begin))
        names, labels = labels.unique(return_inverse=True)
        asking = slice(references or 0, None)
        units = Units.of(of_row[asking], labels[asking], len(begin), len(names))
        keys, counts = (of_row[members] * len(names) + labels[members]).unique(return_counts=True)
        starts_of = size.cumsum(0) - size
        return cls(of_row, order[begin], members, starts_of, size, labels, units, len(names), keys, counts)

    def alike(self, group: Tensor, label: Tensor) -> Tensor:
        """Return how many reference samples of each group bear the label."""
        key = group * self._classes + label
        place = torch.searchsorted(self._keys, key).clamp_(max=len(self._keys) - 1)
        return torch.where(self._keys[place] == key, self._counts[place], 0)


@dataclass(frozen=True, eq=False)
class Units:
    """Groups of queries apart by label, since what is tied may agree with one label and not with another.

    ``group``, ``label``: (U,). ``of_query``: the unit of each query. ``begin``, ``count``: (G,), which units are a
    group's; groups without queries have none.
    """

    group: Tensor
    label: Tensor
    of_query: Tensor
    begin: Tensor
    count: Tensor

    @classmethod
    def of(cls, group: Tensor, label: Tensor, groups: int, classes: int) -> Self:
        """Make the units of queries of these groups and labels."""
        keys, of_query = (group * classes + label).unique(return_inverse=True)
        of_unit = keys.div(classes, rounding_mode="floor")
        count = torch.bincount(of_unit, minlength=groups)
        return cls(of_unit, keys % classes, of_query, count.cumsum(0) - count, count)

    def expand(self, group: Tensor) -> tuple[Tensor, Tensor]:
        """Return the units of each of these groups, one after the other, and which entry each belongs to."""
        count = self.count[group]
        entry = torch.arange(len(group), device=group.device).repeat_interleave(count)
        offset = torch.arange(len(entry), device=group.device) - (count.cumsum(0) - count)[entry]
        return self.begin[group[entry]] + offset, entry


def _equal_runs(rows: Rows) -> tuple[Tensor, Tensor]:
    """Return an order with equal rows side by side, lower indices first, and where each run of equals starts."""
    for seed in range(1000):
        hashes = _hashes(rows, seed)
        order = hashes.argsort(stable=True)
        starts = torch.ones_like(order, dtype=torch.bool)
        starts[1:] = hashes[order[1:]] != hashes[order[:-1]]
        repeats = (~starts).nonzero()[:, 0]
        pairs = zip(order[repeats].split(rows.step), order[repeats - 1].split(rows.step), strict=True)
        # Different rows may share a hash: then we try another one, which takes time but leaves no error.
        if all(torch.equal(rows.features[one], rows.features[other]) for one, other in pairs):
            return order, starts
    raise AssertionError("1,000 hash functions failed to tell different rows apart")


def _hashes(rows: Rows, seed: int) -> Tensor:
    """Return an int64 for each row, equal for equal rows: a random combination of the bits, modulo 2^64."""
    generator = torch.Generator("cpu").manual_seed(seed)
    weights = torch.empty(rows.features.shape[1], dtype=torch.int64, device="cpu")
    weights = weights.random_(-(2**63), None, generator=generator).to(rows.features.device)

    def combine(part: Tensor) -> Tensor:
        bits = (part.to(torch.float64) + 0.0).view(torch.int64)  # adding 0 makes -0 and 0 the same
        # Short numbers end in zeros, which a product modulo 2^64 would keep; so mix the upper half in.
        return (bits ^ (bits >> 32)).mul_(weights).sum(1)

    return by_parts(combine, rows.step, torch.int64, rows.features)
