"""Expansion."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from zoo_harness.separation.knn.best_so_far import BestKnown
from zoo_harness.separation.knn.duplicates import Groups, Rows


@dataclass(frozen=True, eq=False)
class Neighbours:
    """The nearest reference samples of each sample, on the device of the features.

    ``indices``: (N, order) int64, by distance, equal distances by lowest index. ``squared_distances``: (N, order)
    float64, ascending, in the units of the features (infinite or 0 where these leave the range of float64).
    ``last_tied``: (N,) int64, how many reference samples lie exactly at the last distance, from 1.
    ``last_tied_alike``: how many of those bear the label of the sample itself.
    """

    indices: Tensor
    squared_distances: Tensor
    last_tied: Tensor
    last_tied_alike: Tensor


def of_samples(rows: Rows, groups: Groups, best: BestKnown, split: int | None) -> Neighbours:
    """Expand neighbours of distinct rows to neighbours of samples."""
    order = best.order
    queries = torch.arange(split or 0, len(groups.of_row), device=groups.of_row.device)
    indices = queries.new_empty(len(queries), order)
    distances = best.distance.new_empty(len(queries), order)
    tied, alike = torch.empty_like(queries), torch.empty_like(queries)
    step = max(1, 2**20 // (order + 1) ** 2)
    for start in range(0, len(queries), step):
        place = slice(start, start + step)
        index, distance = _nearest_members(groups, best, queries[place], itself=split is None)
        indices[place], distances[place] = index, distance
        tied[place], alike[place] = _tied_for_last(
            groups, best, queries[place], groups.units.of_query[place], distance[:, -1], itself=split is None
        )
    back = math.ldexp(1.0, -rows.exponent)
    return Neighbours(indices, distances * back * back, tied, alike)


def _nearest_members(groups: Groups, best: BestKnown, query: Tensor, *, itself: bool) -> tuple[Tensor, Tensor]:
    """The nearest samples among the lowest members of the query's own group and of the nearest others."""
    order, own = best.order, groups.of_row[query]
    group = torch.cat([own[:, None], best.group[own]], 1)
    distance = torch.cat([torch.zeros_like(best.distance[own, :1]), best.distance[own]], 1)
    rank = torch.arange(order + itself, device=query.device)
    there = rank < groups.size[group][:, :, None]
    there &= (distance < math.inf)[:, :, None]
    place = (groups.begin[group][:, :, None] + rank).clamp_(max=len(groups.members) - 1)
    member = groups.members[place]
    if itself:
        there &= member != query[:, None, None]
    apart = torch.where(there, distance[:, :, None], math.inf).flatten(1)
    member = member.flatten(1)
    by_index = member.argsort(1)
    apart, member = apart.gather(1, by_index), member.gather(1, by_index)
    nearest = apart.argsort(dim=1, stable=True)[:, :order]
    return member.gather(1, nearest), apart.gather(1, nearest)


def _tied_for_last(
    groups: Groups, best: BestKnown, query: Tensor, unit: Tensor, last: Tensor, *, itself: bool
) -> tuple[Tensor, Tensor]:
    """How many samples lie at the last distance, and how many of them bear the label of the query."""
    own, label = groups.of_row[query], groups.labels[query]
    equal = last == 0
    tied = torch.where(equal, groups.size[own] - int(itself), 0)
    alike = torch.where(equal, groups.alike(own, label) - int(itself), 0)
    whole = best.distance[own, -1] == last
    listed = (best.distance[own] == last[:, None]) & ~whole[:, None]
    others = best.group[own]
    tied += torch.where(listed, groups.size[others], 0).sum(1) + torch.where(whole, best.tied[own], 0)
    alike += torch.where(listed, groups.alike(others, label[:, None]), 0).sum(1) + torch.where(
        whole, best.alike[unit], 0
    )
    return tied, alike
