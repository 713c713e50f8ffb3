"""Collapse equal rows to groups, so that the search compares one row of each group.

Equal rows are at distance 0 of each other, which needs no search.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from zoo_harness.separation.knn.exact_distances import Rows, by_parts


@dataclass(frozen=True, eq=False)
class Groups:
    """Groups of equal rows. Each row is a reference sample or a query; without references, each is both.

    ``of_row``: (T,), the group of each row. ``first``: (G,), the lowest row of each group. ``members``: the reference
    rows, group by group, lowest first. ``begin``, ``size``: (G,), the position of each group's first member in
    ``members``, and the number of its members. ``labels``: (T,), counted from 0 without gaps. ``query_labels``: the
    labels of the queries in each group.
    """

    of_row: Tensor
    first: Tensor
    members: Tensor
    begin: Tensor
    size: Tensor
    labels: Tensor
    query_labels: QueryLabels
    _classes: int
    _keys: Tensor
    _counts: Tensor

    @classmethod
    def of(cls, rows: Rows, labels: Tensor, references: int | None) -> Self:
        """Group all rows; the first ``references`` of them are reference samples, the others are queries.

        Without ``references`` all rows are both. ``labels`` are any (T,) int64.
        """
        order, starts = _equal_runs(rows)
        begin = starts.nonzero()[:, 0]
        of_row = torch.empty_like(order)
        of_row[order] = starts.cumsum(0) - 1
        members = order if references is None else order[order < references]
        size = torch.bincount(of_row[members], minlength=len(begin))
        names, labels = labels.unique(return_inverse=True)
        queries = slice(references or 0, None)
        query_labels = QueryLabels.of(of_row[queries], labels[queries], len(begin), len(names))
        keys, counts = (of_row[members] * len(names) + labels[members]).unique(return_counts=True)
        first_member = size.cumsum(0) - size
        return cls(of_row, order[begin], members, first_member, size, labels, query_labels, len(names), keys, counts)

    def count_label(self, group: Tensor, label: Tensor) -> Tensor:
        """Return the number of reference samples in each group that have the label."""
        key = group * self._classes + label
        index = torch.searchsorted(self._keys, key).clamp_(max=len(self._keys) - 1)
        return torch.where(self._keys[index] == key, self._counts[index], 0)


@dataclass(frozen=True, eq=False)
class QueryLabels:
    """The distinct pairs of group and label among the queries: a tie may agree with one label and not with another.

    ``group``, ``label``: (U,), of each pair. ``of_query``: the pair of each query. ``begin``, ``count``: (G,), the
    first pair of each group and the number of its pairs, 0 for a group without queries.
    """

    group: Tensor
    label: Tensor
    of_query: Tensor
    begin: Tensor
    count: Tensor

    @classmethod
    def of(cls, group: Tensor, label: Tensor, groups: int, classes: int) -> Self:
        """Find the pairs from the group and the label of each query."""
        keys, of_query = (group * classes + label).unique(return_inverse=True)
        of_pair = keys.div(classes, rounding_mode="floor")
        count = torch.bincount(of_pair, minlength=groups)
        return cls(of_pair, keys % classes, of_query, count.cumsum(0) - count, count)

    def expand(self, group: Tensor) -> tuple[Tensor, Tensor]:
        """Return the pairs of each of these groups, one after the other, and for each the position of its group."""
        count = self.count[group]
        entry = torch.arange(len(group), device=group.device).repeat_interleave(count)
        offset = torch.arange(len(entry), device=group.device) - (count.cumsum(0) - count)[entry]
        return self.begin[group[entry]] + offset, entry


def _equal_runs(rows: Rows) -> tuple[Tensor, Tensor]:
    """Return an order with equal rows side by side, lower indices first, and the start of each run of equal rows."""
    for seed in range(1000):
        hashes = _hashes(rows, seed)
        order = hashes.argsort(stable=True)
        starts = torch.ones_like(order, dtype=torch.bool)
        starts[1:] = hashes[order[1:]] != hashes[order[:-1]]
        repeats = (~starts).nonzero()[:, 0]
        pairs = zip(order[repeats].split(rows.step), order[repeats - 1].split(rows.step), strict=True)
        # Different rows may share a hash: then the next seed is tried, which costs time but no correctness.
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
