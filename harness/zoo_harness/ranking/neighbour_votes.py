"""Compute the scores SI and k-NN: the share of images whose nearest other images have the same label."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from zoo_harness.ranking.moments import Array
from zoo_harness.ranking.score import RankScore

NEIGHBOURS = 5


class Neighbours(NamedTuple):
    """Hold the ``labels`` (N, order) of the images nearest to each of N images, and each image's ``own`` label (N,)."""

    labels: Array
    own: Array


def nearest_labels(features: Any, labels: Any, order: int = NEIGHBOURS, memory_budget: int | None = None) -> Neighbours:
    """Find the labels of the ``order`` nearest other images of each image by exact Euclidean distance."""
    import torch

    from zoo_harness.separation.knn.search import MEMORY_BUDGET, nearest_neighbours

    rows, own = torch.as_tensor(features), torch.as_tensor(labels)
    order = min(order, len(rows) - 1)
    found = nearest_neighbours(rows, own, order, memory_budget=memory_budget or MEMORY_BUDGET)
    return Neighbours(own[found.indices].numpy(), own.numpy())


def si(neighbours: Neighbours) -> RankScore:
    """Return the share of images whose nearest other image has the same label, in [0, 1].

    The score is the Separation Index, which equals leave-one-out 1-NN accuracy; docs/separation.md gives the source.

    >>> si(Neighbours(np.array([[0], [1], [0]]), np.array([0, 1, 1]))).hits.tolist()
    [True, True, False]
    """
    return _accuracy(neighbours.labels[:, 0] == neighbours.own)


def k_nearest(neighbours: Neighbours) -> RankScore:
    """Return the leave-one-out accuracy of k-NN, in [0, 1]: the k nearest other images vote for the label of an image.

    If several labels get equally many votes, the label of the nearest image among them wins. The details contain ``k``.

    >>> k_nearest(Neighbours(np.array([[0, 1, 1], [0, 1, 2]]), np.array([1, 0]))).value
    1.0
    """
    votes = (neighbours.labels[:, :, None] == neighbours.labels[:, None, :]).sum(2)
    winner = np.take_along_axis(neighbours.labels, votes.argmax(1)[:, None], 1)[:, 0]
    score = _accuracy(winner == neighbours.own)
    return RankScore(score.value, {"k": neighbours.labels.shape[1]}, hits=score.hits)


def _accuracy(hits: Array) -> RankScore:
    return RankScore(float(hits.mean()), hits=hits)
