"""The nearest other groups of every group among the pairs compared so far, and who is tied for the last place."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from zoo_harness.separation.knn.duplicates import Groups, Rows


class BestKnown:
    """For each group its ``order`` nearest other groups with reference samples, by distance, then lowest index.

    ``distance``: (G, order) float64, infinite where nothing is known yet. ``group``: (G, order). ``tied``: (G,), how
    many reference samples lie at the last distance. ``alike``: (U,) of each unit, how many of these bear its label.
    """

    def __init__(self, groups: Groups, order: int) -> None:
        self.groups, self.order = groups, order
        self.distance = groups.first.new_full((len(groups.first), order), math.inf, dtype=torch.float64)
        self.group = groups.first.new_zeros(len(groups.first), order)
        self.tied = torch.zeros_like(groups.first)
        self.alike = torch.zeros_like(groups.units.group)

    def compare(self, rows: Rows, here: Tensor, there: Tensor, *, both: bool) -> None:
        """Compare pairs of groups in float64; a pair given twice would be counted as a tie with itself.

        With ``both``, each is a possible neighbour of the other.
        """
        distance = rows.squared_distances(self.groups.first[here], self.groups.first[there])
        self._learn(here, there, distance)
        if both:
            self._learn(there, here, distance)

    def _learn(self, here: Tensor, there: Tensor, distance: Tensor) -> None:
        near = (distance <= self.distance[here, -1]).nonzero()[:, 0]  # once: a device is waited for each time
        here, there, distance = here[near], there[near], distance[near]
        if len(here) == 0:
            return
        touched = here.unique()
        before = self.distance[touched, -1]
        old = (touched.repeat_interleave(self.order), self.group[touched].flatten(), self.distance[touched].flatten())
        row, other, space = (torch.cat(parts) for parts in zip(old, (here, there, distance), strict=True))
        known = (space < math.inf).nonzero()[:, 0]
        row, other, space = row[known], other[known], space[known]
        self._rank(row, other, space)
        last = self.distance[touched, -1]
        closer = last < before
        self._forget(touched[closer])
        # Where the last distance stayed, those tied before are counted already.
        recount = closer[torch.searchsorted(touched, row)]
        recount |= known >= len(old[0])
        last_of_all = (recount & (space == self.distance[row, -1])).nonzero()[:, 0]
        self._count(row[last_of_all], other[last_of_all])

    def _rank(self, row: Tensor, other: Tensor, space: Tensor) -> None:
        """Keep the nearest of each row."""
        order = self.groups.first[other].argsort()
        order = order[space[order].argsort(stable=True)]
        order = order[row[order].argsort(stable=True)]
        row, other, space = row[order], other[order], space[order]
        place = torch.arange(len(row), device=row.device)
        rank = place - torch.searchsorted(row, row)
        kept = (rank < self.order).nonzero()[:, 0]
        self.group[row[kept], rank[kept]] = other[kept]
        self.distance[row[kept], rank[kept]] = space[kept]

    def _forget(self, groups: Tensor) -> None:
        self.tied[groups] = 0
        self.alike[self.groups.units.expand(groups)[0]] = 0

    def _count(self, row: Tensor, other: Tensor) -> None:
        self.tied.index_add_(0, row, self.groups.size[other])
        unit, entry = self.groups.units.expand(row)
        self.alike.index_add_(0, unit, self.groups.alike(other[entry], self.groups.units.label[unit]))
