"""Collapse equal rows to groups, so that the search compares one row of each group.

Equal rows are at distance 0 of each other, which needs no search.
"""

from __future__ import annotations

import torch
from torch import Tensor

from zoo_harness.separation.knn.exact_distances import Rows, by_parts


class Groups:
    """Groups of equal rows; the first ``references`` rows are reference samples, the others are queries.

    Without ``references`` each row is both, and ``itself`` is 1, else 0. ``queries``: their rows. ``of_row``: (T,), the
    group of each row. ``first``: (G,), its lowest row.
    ``members``: the reference rows, group by group, lowest first. ``begin``, ``size``: (G,), the position of
    each group's first member in ``members``, and the number of its members. ``labels``: (T,) int64, counted from 0
    without gaps. ``member_labels``, ``query_labels``: those of the members and of the queries in each group.
    """

    def __init__(self, rows: Rows, labels: Tensor, references: int | None) -> None:
        order, starts = _equal_runs(rows)
        self.first = order[starts]
        self.of_row = torch.empty_like(order)
        self.of_row[order] = starts.cumsum(0) - 1
        self.members = order if references is None else order[order < references]
        self.size = torch.bincount(self.of_row[self.members], minlength=len(self.first))
        self.begin = self.size.cumsum(0) - self.size
        names, self.labels = labels.unique(return_inverse=True)
        self.itself = int(references is None)
        self.queries = torch.arange(references or 0, len(order), device=order.device)
        self.member_labels, self.query_labels = (
            LabelsOfGroups(self.of_row[some], self.labels[some], len(self.first), len(names))
            for some in (self.members, self.queries)
        )


class LabelsOfGroups:
    """The distinct (group, label) pairs of some rows; the equal rows of a group may have different labels.

    ``group``, ``label``: (U,), of each pair. ``of_row``: the pair of each row. ``begin``, ``count``: (G,), the first
    pair of each group and the number of its pairs, 0 for a group without such rows.
    """

    def __init__(self, group: Tensor, label: Tensor, groups: int, classes: int) -> None:
        self._classes, keys = classes, group * classes + label
        self._keys, self.of_row, self._rows = keys.unique(return_inverse=True, return_counts=True)
        self.group, self.label = self._keys.div(classes, rounding_mode="floor"), self._keys % classes
        self.count = torch.bincount(self.group, minlength=groups)
        self.begin = self.count.cumsum(0) - self.count

    def rows(self, group: Tensor, label: Tensor) -> Tensor:
        """Return the number of rows in each group that have the label."""
        key = group * self._classes + label
        index = torch.searchsorted(self._keys, key).clamp_(max=len(self._keys) - 1)
        return torch.where(self._keys[index] == key, self._rows[index], 0)

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

    return by_parts(combine, rows.step, weights.new_empty(len(rows.features)), rows.features)
