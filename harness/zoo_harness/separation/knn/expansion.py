"""Expand the nearest groups of equal rows to the nearest samples, with the ties for the last place."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from zoo_harness.separation.knn.duplicates import Groups
from zoo_harness.separation.knn.exact_distances import Rows
from zoo_harness.separation.knn.nearest_so_far import NearestSoFar


@dataclass(frozen=True, eq=False)
class Neighbours:
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


def expand_to_samples(rows: Rows, groups: Groups, nearest: NearestSoFar, split: int | None) -> Neighbours:
    """Return the neighbours of each sample, or with ``split`` of each row from that index on."""
    order = nearest.order
    queries = torch.arange(split or 0, len(groups.of_row), device=groups.of_row.device)
    indices = queries.new_empty(len(queries), order)
    distances = nearest.distance.new_empty(len(queries), order)
    tied, same_label = torch.empty_like(queries), torch.empty_like(queries)
    step = max(1, 2**20 // (order + 1) ** 2)
    for start in range(0, len(queries), step):
        part = slice(start, start + step)
        index, distance = _nearest_members(groups, nearest, queries[part], itself=split is None)
        indices[part], distances[part] = index, distance
        tied[part], same_label[part] = _count_tied(
            groups, nearest, queries[part], groups.query_labels.of_query[part], distance[:, -1], itself=split is None
        )
    back = math.ldexp(1.0, -rows.exponent)
    return Neighbours(indices, distances * back * back, tied, same_label)


def _nearest_members(groups: Groups, nearest: NearestSoFar, query: Tensor, *, itself: bool) -> tuple[Tensor, Tensor]:
    """Return the nearest samples among the lowest members of the query's own group and of the nearest others."""
    order, own = nearest.order, groups.of_row[query]
    group = torch.cat([own[:, None], nearest.group[own]], 1)
    distance = torch.cat([torch.zeros_like(nearest.distance[own, :1]), nearest.distance[own]], 1)
    rank = torch.arange(order + itself, device=query.device)
    exists = rank < groups.size[group][:, :, None]
    exists &= (distance < math.inf)[:, :, None]
    index = (groups.begin[group][:, :, None] + rank).clamp_(max=len(groups.members) - 1)
    member = groups.members[index]
    if itself:
        exists &= member != query[:, None, None]
    apart = torch.where(exists, distance[:, :, None], math.inf).flatten(1)
    member = member.flatten(1)
    by_index = member.argsort(1)
    apart, member = apart.gather(1, by_index), member.gather(1, by_index)
    by_distance = apart.argsort(dim=1, stable=True)[:, :order]
    return member.gather(1, by_distance), apart.gather(1, by_distance)


def _count_tied(
    groups: Groups, nearest: NearestSoFar, query: Tensor, pair: Tensor, last: Tensor, *, itself: bool
) -> tuple[Tensor, Tensor]:
    """Return the number of samples at the last distance, and of those with the label of the query."""
    own, label = groups.of_row[query], groups.labels[query]
    equal = last == 0
    tied = torch.where(equal, groups.size[own] - int(itself), 0)
    same_label = torch.where(equal, groups.count_label(own, label) - int(itself), 0)
    # The ties are counted for the last group found; if members of nearer groups fill the order, those are listed.
    counted = nearest.distance[own, -1] == last
    listed = (nearest.distance[own] == last[:, None]) & ~counted[:, None]
    others = nearest.group[own]
    tied += torch.where(listed, groups.size[others], 0).sum(1)
    tied += torch.where(counted, nearest.tied[own], 0)
    same_label += torch.where(listed, groups.count_label(others, label[:, None]), 0).sum(1)
    same_label += torch.where(counted, nearest.tied_same_label[pair], 0)
    return tied, same_label
