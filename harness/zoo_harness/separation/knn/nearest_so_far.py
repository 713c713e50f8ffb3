"""Keep the nearest groups of every group among the pairs compared so far, and count the ties for the last place."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from zoo_harness.separation.knn.duplicates import Groups
from zoo_harness.separation.knn.exact_distances import Rows


class NearestSoFar:
    """For each group its ``order`` nearest other groups with reference samples, by distance, then lowest index.

    ``distance``: (G, order) float64, squared, infinite until known. ``group``: (G, order). ``tied``: (G,), the number
    of reference samples at the last distance. ``tied_same_label``: (U,), for each pair of group and label among the
    queries, the number of tied samples with that label.
    """

    def __init__(self, groups: Groups, order: int) -> None:
        self.groups, self.order = groups, order
        self.distance = groups.first.new_full((len(groups.first), order), math.inf, dtype=torch.float64)
        self.group = groups.first.new_zeros(len(groups.first), order)
        self.tied = torch.zeros_like(groups.first)
        self.tied_same_label = torch.zeros_like(groups.query_labels.group)

    def compare(self, rows: Rows, left: Tensor, right: Tensor, *, both: bool) -> None:
        """Compare pairs of groups in float64; each pair may be given once, else it counts as a tie with itself.

        ``both``: each group of a pair is a possible neighbour of the other; else only the right one of the left one.
        """
        distance = rows.squared_distances(self.groups.first[left], self.groups.first[right])
        self._update(left, right, distance)
        if both:
            self._update(right, left, distance)

    def _update(self, group: Tensor, other: Tensor, distance: Tensor) -> None:
        near = (distance <= self.distance[group, -1]).nonzero()[:, 0]  # once: each call waits for the device
        group, other, distance = group[near], other[near], distance[near]
        if len(group) == 0:
            return
        touched = group.unique()
        before = self.distance[touched, -1]
        old = (touched.repeat_interleave(self.order), self.group[touched].flatten(), self.distance[touched].flatten())
        group, other, distance = (torch.cat(parts) for parts in zip(old, (group, other, distance), strict=True))
        known = (distance < math.inf).nonzero()[:, 0]
        group, other, distance = group[known], other[known], distance[known]
        self._keep_nearest(group, other, distance)
        closer = self.distance[touched, -1] < before
        self._reset_ties(touched[closer])
        # Where the last distance stayed, the ties found before are counted already.
        uncounted = closer[torch.searchsorted(touched, group)]
        uncounted |= known >= len(old[0])
        tied = (uncounted & (distance == self.distance[group, -1])).nonzero()[:, 0]
        self._count_ties(group[tied], other[tied])

    def _keep_nearest(self, group: Tensor, other: Tensor, distance: Tensor) -> None:
        order = self.groups.first[other].argsort()
        order = order[distance[order].argsort(stable=True)]
        order = order[group[order].argsort(stable=True)]
        group, other, distance = group[order], other[order], distance[order]
        rank = torch.arange(len(group), device=group.device) - torch.searchsorted(group, group)
        kept = (rank < self.order).nonzero()[:, 0]
        self.group[group[kept], rank[kept]] = other[kept]
        self.distance[group[kept], rank[kept]] = distance[kept]

    def _reset_ties(self, groups: Tensor) -> None:
        self.tied[groups] = 0
        self.tied_same_label[self.groups.query_labels.expand(groups)[0]] = 0

    def _count_ties(self, group: Tensor, other: Tensor) -> None:
        self.tied.index_add_(0, group, self.groups.size[other])
        labels = self.groups.query_labels
        pair, entry = labels.expand(group)
        self.tied_same_label.index_add_(0, pair, self.groups.count_label(other[entry], labels.label[pair]))
