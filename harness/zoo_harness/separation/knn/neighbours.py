"""Keep the nearest groups of every group among the pairs compared so far, and expand them to the nearest samples.

Both count the ties for the last place.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from zoo_harness.separation.knn.duplicates import Groups
from zoo_harness.separation.knn.exact_distances import Rows


class Neighbours(NamedTuple):
    """The nearest reference samples of each sample, on the device of the features.

    ``indices``: (N, order) int64, by distance, equal distances by lowest index. ``squared_distances``: (N, order)
    float64, ascending, in the units of the features (infinite or 0 where these leave the range of float64).
    ``last_tied``: (N,) int64, the number of reference samples exactly at the last distance, from 1.
    ``last_tied_same_label``: the number of those that have the label of the sample itself.
    """

    indices: Tensor
    squared_distances: Tensor
    last_tied: Tensor
    last_tied_same_label: Tensor


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
        labels = self.groups.query_labels
        self.tied[touched[closer]] = 0
        self.tied_same_label[labels.expand(touched[closer])[0]] = 0
        # If the last distance stayed, the ties found before are counted already.
        uncounted = closer[torch.searchsorted(touched, group)] | (known >= len(old[0]))
        tied = (uncounted & (distance == self.distance[group, -1])).nonzero()[:, 0]
        group, other = group[tied], other[tied]
        self.tied.index_add_(0, group, self.groups.size[other])
        pair, entry = labels.expand(group)
        self.tied_same_label.index_add_(0, pair, self.groups.member_labels.rows(other[entry], labels.label[pair]))

    def _keep_nearest(self, group: Tensor, other: Tensor, distance: Tensor) -> None:
        order = self.groups.first[other].argsort()
        order = order[distance[order].argsort(stable=True)]
        order = order[group[order].argsort(stable=True)]
        group, other, distance = group[order], other[order], distance[order]
        rank = torch.arange(len(group), device=group.device) - torch.searchsorted(group, group)
        kept = (rank < self.order).nonzero()[:, 0]
        self.group[group[kept], rank[kept]] = other[kept]
        self.distance[group[kept], rank[kept]] = distance[kept]

    def expand(self, rows: Rows) -> Neighbours:
        """Return the neighbours of each query."""
        step = max(1, 2**20 // (self.order + 1) ** 2)
        parts = [self._of_queries(query) for query in self.groups.queries.split(step)]
        indices, distances, tied, same_label = map(torch.cat, zip(*parts, strict=True))
        back = math.ldexp(1.0, -rows.exponent)
        return Neighbours(indices, distances * back * back, tied, same_label)

    def _of_queries(self, query: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        own = self.groups.of_row[query]
        group = torch.cat([own[:, None], self.group[own]], 1)
        distance = torch.nn.functional.pad(self.distance[own], (1, 0))  # of the own group: 0
        indices, distances = self._nearest_members(query, group, distance)
        return indices, distances, *self._count_tied(query, group, distance, distances[:, -1])

    def _nearest_members(self, query: Tensor, group: Tensor, distance: Tensor) -> tuple[Tensor, Tensor]:
        """Return the nearest samples among the lowest members of these groups."""
        groups = self.groups
        rank = torch.arange(self.order + groups.itself, device=query.device)
        exists = (rank < groups.size[group][:, :, None]) & (distance < math.inf)[:, :, None]
        index = (groups.begin[group][:, :, None] + rank).clamp_(max=len(groups.members) - 1)
        member = groups.members[index]
        if groups.itself:
            exists &= member != query[:, None, None]
        apart = torch.where(exists, distance[:, :, None], math.inf).flatten(1)
        member, by_index = member.flatten(1).sort(1)
        apart, by_distance = apart.gather(1, by_index).sort(dim=1, stable=True)
        return member.gather(1, by_distance[:, : self.order]), apart[:, : self.order]

    def _count_tied(self, query: Tensor, group: Tensor, distance: Tensor, last: Tensor) -> tuple[Tensor, Tensor]:
        """Return the number of samples at the last distance, and of those with the label of the query."""
        groups, own, label = self.groups, group[:, 0], self.groups.labels[query]
        # The ties are counted for the last group found; if members of nearer groups fill the order, those are listed.
        counted = distance[:, -1] == last
        listed = distance == last[:, None]
        listed[:, 1:] &= ~counted[:, None]
        itself = torch.where(last == 0, groups.itself, 0)
        tied = torch.where(listed, groups.size[group], 0).sum(1) - itself
        same_label = torch.where(listed, groups.member_labels.rows(group, label[:, None]), 0).sum(1) - itself
        counted_same = self.tied_same_label[groups.query_labels.of_row[query - groups.queries[0]]]
        return tied + torch.where(counted, self.tied[own], 0), same_label + torch.where(counted, counted_same, 0)
