"""The nearest neighbours by plain float64 arithmetic: every pair, row by row, and a full sort.

Slow and short on purpose: an independent reference for the search that screens pairs first. Squared differences are
added feature after feature, so equal rows are at exactly equal distances from any other.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

MEMORY_BUDGET = 512 * 2**20


@dataclass(frozen=True, eq=False)
class Neighbours:
    """The nearest reference samples of each sample.

    ``indices``: (N, order) int64, by distance, equal distances by lowest index. ``squared_distances``: (N, order)
    float64, ascending. ``last_tied``: (N,) int64, from 1, how many reference samples lie exactly at the distance of
    the last neighbour. ``last_tied_alike``: (N,) int64, how many of those bear the label of the sample.
    """

    indices: Tensor
    squared_distances: Tensor
    last_tied: Tensor
    last_tied_alike: Tensor


def nearest_neighbours(
    features: Tensor,
    labels: Tensor,
    order: int = 1,
    *,
    references: Tensor | None = None,
    reference_labels: Tensor | None = None,
    memory_budget: int = MEMORY_BUDGET,
) -> Neighbours:
    """Return the ``order`` nearest references of each row; without references the other rows, never itself.

    ``features``: (N, D), finite. ``labels``: (N,) int64. ``references``: (M, D), with ``reference_labels`` (M,).
    ``order``: at most M, or N - 1 without references.

    >>> nearest_neighbours(torch.tensor([[0.0], [1.0], [2.0]]), torch.tensor([0, 1, 0]), 2).indices
    tensor([[1, 2],
            [0, 2],
            [1, 0]])
    """
    others = features if references is None else references
    other_labels = labels if reference_labels is None else reference_labels
    columns = others.to(torch.float64).T.contiguous()
    step = max(1, min(2**18, memory_budget // 64) // len(others))
    found = []
    for start in range(0, len(features), step):
        rows = slice(start, start + step)
        distances = _squared_distances(features[rows].to(torch.float64), columns)
        if references is None:
            distances.diagonal(start).fill_(math.inf)
        nearest, indices = distances.sort(dim=1, stable=True)
        tied = distances == nearest[:, order - 1 : order]
        alike = tied & (labels[rows, None] == other_labels)
        # Copies: a view would keep the whole sorted square.
        found.append((indices[:, :order].clone(), nearest[:, :order].clone(), tied.sum(1), alike.sum(1)))
    return Neighbours(*(torch.cat(parts) for parts in zip(*found, strict=True)))


def _squared_distances(rows: Tensor, columns: Tensor) -> Tensor:
    total = rows.new_zeros(len(rows), columns.shape[1])
    for own, others in zip(rows.T, columns, strict=True):
        total += (own[:, None] - others).square_()
    return total
