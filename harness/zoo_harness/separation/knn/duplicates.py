"""Collect equal rows into groups, so that the neighbour search compares only one row of each group.

Rows of the same group are not compared with each other, because the distance between equal rows is 0.
"""

from __future__ import annotations

import torch
from torch import Tensor

from zoo_harness.separation.knn.exact_distances import Rows, by_parts


class Groups:
    """Divide rows into groups of equal rows, and list the members and labels of each group.

    The first rows, ``references`` in number, are reference samples. The other rows are queries, which are the samples
    whose neighbours are searched. If ``references`` is ``None``, each row is both a reference sample and a query.
    ``itself``: how often a query occurs among the reference samples: once if ``references`` is ``None``, otherwise 0.
    ``queries``: the row numbers of the queries. ``of_row``: (T,), the group of each row. ``first``: (G,), the lowest
    row number in each group. ``members``: the row numbers of all reference samples, sorted by group and then by row
    number. ``begin``: (G,), the position in ``members`` where each group begins. ``size``: (G,), the number of
    reference samples in each group. ``labels``: (T,) int64, the labels renumbered from 0 without gaps.
    ``member_labels``: the labels of the reference samples in each group. ``query_labels``: the labels of the queries in
    each group.
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
    """List the distinct (group, label) pairs of the given rows; the equal rows of a group may have different labels.

    ``group``, ``label``: (U,), the group and the label of each pair. ``of_row``: for each row, the index of its pair.
    ``begin``: (G,), the index of each group's first pair. ``count``: (G,), the number of pairs of each group; 0 if none
    of the given rows is in the group.
    """

    def __init__(self, group: Tensor, label: Tensor, groups: int, classes: int) -> None:
        self._classes, keys = classes, group * classes + label
        self._keys, self.of_row, self._rows = keys.unique(return_inverse=True, return_counts=True)
        self.group, self.label = self._keys.div(classes, rounding_mode="floor"), self._keys % classes
        self.count = torch.bincount(self.group, minlength=groups)
        self.begin = self.count.cumsum(0) - self.count

    def rows(self, group: Tensor, label: Tensor) -> Tensor:
        """Count the rows for each of the given (group, label) pairs."""
        key = group * self._classes + label
        index = torch.searchsorted(self._keys, key).clamp_(max=len(self._keys) - 1)
        return torch.where(self._keys[index] == key, self._rows[index], 0)

    def expand(self, group: Tensor) -> tuple[Tensor, Tensor]:
        """Return the indices of all (group, label) pairs of the given groups, one group after the other.

        The second tensor returned holds, for each pair, the position of the pair's group in ``group``.
        """
        count = self.count[group]
        entry = torch.arange(len(group), device=group.device).repeat_interleave(count)
        offset = torch.arange(len(entry), device=group.device) - (count.cumsum(0) - count)[entry]
        return self.begin[group[entry]] + offset, entry


def _equal_runs(rows: Rows) -> tuple[Tensor, Tensor]:
    """Return a permutation that puts equal rows side by side, and a mask that is true where a run of equal rows starts.

    Rows in a run of equal rows are in ascending order of their row numbers.
    """
    for seed in range(1000):
        hashes = _hashes(rows, seed)
        order = hashes.argsort(stable=True)
        starts = torch.ones_like(order, dtype=torch.bool)
        starts[1:] = hashes[order[1:]] != hashes[order[:-1]]
        repeats = (~starts).nonzero()[:, 0]
        pairs = zip(order[repeats].split(rows.step), order[repeats - 1].split(rows.step), strict=True)
        # If different rows have the same hash, the loop tries another seed. A collision costs time but no correctness.
        if all(torch.equal(rows.features[one], rows.features[other]) for one, other in pairs):
            return order, starts
    raise AssertionError("1,000 hash functions failed to tell different rows apart")


def _hashes(rows: Rows, seed: int) -> Tensor:
    """Return an int64 hash of each row: a random linear combination of the bits of its numbers, modulo 2^64."""
    generator = torch.Generator("cpu").manual_seed(seed)
    weights = torch.empty(rows.features.shape[1], dtype=torch.int64, device="cpu")
    weights = weights.random_(-(2**63), None, generator=generator).to(rows.features.device)

    def combine(part: Tensor) -> Tensor:
        bits = (part.to(torch.float64) + 0.0).view(torch.int64)  # adding 0 turns -0 into 0
        # A float64 number with few digits ends in zero bits, which every product would keep. The XOR fills these bits.
        return (bits ^ (bits >> 32)).mul_(weights).sum(1)

    return by_parts(combine, rows.step, weights.new_empty(len(rows.features)), rows.features)
