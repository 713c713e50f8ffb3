"""Keep the groups of equal rows nearest to each group while pairs are compared, and convert these groups to samples.

The module also counts ties: the samples whose distance equals the distance of the last neighbour.
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

    ``indices``: (N, order) int64, the nearest sample first; the lower index comes first if distances are equal.
    ``squared_distances``: (N, order) float64, ascending, in the units of the features. A squared distance outside the
    range of float64 is infinite or 0. ``last_tied``: (N,) int64, the number of reference samples at exactly the
    distance of the last neighbour, including the last neighbour. ``last_tied_same_label``: (N,) int64, the number of
    reference samples at the distance of the last neighbour that have the sample's own label.
    """

    indices: Tensor
    squared_distances: Tensor
    last_tied: Tensor
    last_tied_same_label: Tensor


class NearestSoFar:
    """Keep, for each group of equal rows, the ``order`` nearest other groups among the pairs compared so far.

    A group can be a neighbour only if it contains a reference sample. ``distance``: (G, order) float64, the squared
    distances in ascending order; infinite for neighbours not yet found. ``group``: (G, order), the neighbouring groups;
    if groups are equally near, the group with the lowest row number comes first. ``tied``: (G,), the number of
    reference samples at the distance of the last neighbour. ``tied_same_label``: (U,), for each (group, label) pair of
    the queries, the number of reference samples at the distance of the last neighbour that have the label.
    """

    def __init__(self, groups: Groups, order: int) -> None:
        self.groups, self.order = groups, order
        self.distance = groups.first.new_full((len(groups.first), order), math.inf, dtype=torch.float64)
        self.group = groups.first.new_zeros(len(groups.first), order)
        self.tied = torch.zeros_like(groups.first)
        self.tied_same_label = torch.zeros_like(groups.query_labels.group)

    def compare(self, rows: Rows, left: Tensor, right: Tensor, *, both: bool) -> None:
        """Compute the distances of pairs of groups in float64, and keep the nearest groups.

        Each pair must be passed only once, because a repeated pair would be counted as a tie. If ``both`` is true, each
        group of a pair is a possible neighbour of the other group. If ``both`` is false, only the right group of a pair
        is a possible neighbour of the left group.
        """
        distance = rows.squared_distances(self.groups.first[left], self.groups.first[right])
        self._update(left, right, distance)
        if both:
            self._update(right, left, distance)

    def _update(self, group: Tensor, other: Tensor, distance: Tensor) -> None:
        near = (distance <= self.distance[group, -1]).nonzero()[:, 0]  # reused below, because nonzero() waits for a GPU
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
        # If this call has not changed a group's last distance, `tied` already includes the ties found in earlier calls.
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
        """Convert the nearest groups of each group to the nearest samples of each query."""
        step = max(1, 2**20 // (self.order + 1) ** 2)
        parts = [self._of_queries(query) for query in self.groups.queries.split(step)]
        indices, distances, tied, same_label = map(torch.cat, zip(*parts, strict=True))
        back = math.ldexp(1.0, -rows.exponent)
        return Neighbours(indices, distances * back * back, tied, same_label)

    def _of_queries(self, query: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        own = self.groups.of_row[query]
        group = torch.cat([own[:, None], self.group[own]], 1)
        distance = torch.nn.functional.pad(self.distance[own], (1, 0))  # the distance of a query to its own group is 0
        indices, distances = self._nearest_members(query, group, distance)
        return indices, distances, *self._count_tied(query, group, distance, distances[:, -1])

    def _nearest_members(self, query: Tensor, group: Tensor, distance: Tensor) -> tuple[Tensor, Tensor]:
        """Return the indices and squared distances of the nearest samples among the members of the given groups."""
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
        """For each query, count the samples at distance ``last``, and those of them that have the query's label."""
        groups, own, label = self.groups, group[:, 0], self.groups.labels[query]
        # `tied` counts the samples at the distance of the last neighbouring group. If members of nearer groups already
        # fill the neighbours of a query, the tied samples are counted from the list of groups instead.
        counted = distance[:, -1] == last
        listed = distance == last[:, None]
        listed[:, 1:] &= ~counted[:, None]
        itself = torch.where(last == 0, groups.itself, 0)
        tied = torch.where(listed, groups.size[group], 0).sum(1) - itself
        same_label = torch.where(listed, groups.member_labels.rows(group, label[:, None]), 0).sum(1) - itself
        counted_same = self.tied_same_label[groups.query_labels.of_row[query - groups.queries[0]]]
        return tied + torch.where(counted, self.tied[own], 0), same_label + torch.where(counted, counted_same, 0)
