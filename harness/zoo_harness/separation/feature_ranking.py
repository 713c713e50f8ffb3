"""Rank features by greedy forward selection: each step adds the feature that raises the Separation Index most.

Adding a feature never decreases a squared distance. Therefore, to find the nearest neighbour of a sample, a step first
examines the K samples that are nearest by the features chosen so far. Let b be the distance of the sample's neighbour K
+ 1. If one of the K neighbours is still nearer than b after a feature is added, the new nearest neighbour is one of the
K. If all K neighbours are farther than b, the step compares the sample with all samples. For N samples and D features,
the first step takes about N^2 D operations, and step s takes about N^2 + (D - s) N K operations.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from zoo_harness.separation.inputs import prepare_inputs
from zoo_harness.separation.knn.search import MEMORY_BUDGET
from zoo_harness.separation.validation import Array, checked_integer

# The number K of neighbours examined: NEAREST for the first four features, and NEAREST_LATER for later features. The K
# needed shrinks with the number k of chosen features, about as N^(1 / (k + 1)).
NEAREST, NEAREST_LATER = 48, 16
CHUNK = 2**19  # number of values processed at a time, so that they fit in the processor's cache


@dataclass(frozen=True)
class FeatureRanking:
    """The columns of a feature matrix, ranked by greedy forward selection, and the Separation Index after each step.

    ``features``: the column numbers in the order of selection. ``curve``: item k is the Separation Index computed from
    the first k + 1 of these columns.
    """

    features: tuple[int, ...]
    curve: tuple[float, ...]

    @property
    def best(self) -> tuple[int, ...]:
        """The first columns of the ranking, up to the column with which the Separation Index reaches its highest value.

        >>> FeatureRanking((2, 0, 1), (0.5, 0.75, 0.75)).best
        (2, 0)
        """
        return self.features[: self.curve.index(max(self.curve)) + 1]

    def to_dict(self) -> dict[str, list[int] | list[float]]:
        """Return the ranking as plain values, for JSON.

        >>> FeatureRanking((1, 0), (0.5, 0.75)).to_dict()
        {'features': [1, 0], 'curve': [0.5, 0.75], 'best': [1, 0]}
        """
        return {"features": list(self.features), "curve": list(self.curve), "best": list(self.best)}


def rank_features(
    features: Array | Tensor,
    labels: Array | Tensor,
    *,
    most: int | None = None,
    normalize: bool = False,
    per_class: int | None = None,
    seed: int = 0,
    memory_budget: int = MEMORY_BUDGET,
) -> FeatureRanking:
    """Rank the columns of a feature matrix by greedy forward selection on the Separation Index (SI).

    If several columns raise SI equally, the column with the lowest number is chosen. ``most``: the number of columns to
    rank; by default, all columns. The other arguments and the errors are the same as for :func:`zoo.separation`. A
    distance is summed over the columns in the order of the ranking.

    >>> import numpy as np
    >>> rank_features(np.array([[5, 0], [1, 1], [4, 8], [2, 9]]), np.array([0, 0, 1, 1]))
    FeatureRanking(features=(1, 0), curve=(1.0, 1.0))
    """
    inputs = prepare_inputs(
        features, labels, normalize=normalize, per_class=per_class, seed=seed, memory_budget=memory_budget
    )
    width = inputs.features.shape[1]
    steps = width if most is None else checked_integer("most", most, 1, width, ", the number of features")
    search = _Search(inputs.features.to(torch.float64), inputs.labels, inputs.options.memory_budget)
    curve = [search.step() / len(inputs.labels) for _ in range(steps)]
    return FeatureRanking(tuple(search.chosen), tuple(curve))


class _Search:
    """Hold the columns chosen so far, and the squared distances between all rows, computed from these columns.

    The distance from a row to itself is infinite. Distances are stored if N x N float64 numbers fit in half the memory
    budget. If the numbers do not fit, each step computes all distances again.
    """

    def __init__(self, features: Tensor, labels: Tensor, memory_budget: int) -> None:
        self.columns, self.labels = features.T.contiguous(), labels
        self.chosen: list[int] = []
        self.left = list(range(features.shape[1]))
        n = len(features)
        self.blocks = torch.arange(n, device=features.device).split(max(1, min(CHUNK, memory_budget // 64) // n))
        self.keep = 8 * n * n <= memory_budget // 2
        self.kept: dict[int, tuple[Tensor, int]] = {}

    def step(self) -> int:
        """Choose the best remaining column, and count the samples whose nearest neighbour has the sample's label."""
        left = torch.tensor(self.left, device=self.columns.device)
        agreeing = torch.zeros_like(left)
        for block, rows in enumerate(self.blocks):
            agreeing += self._count_agreeing(rows, self._distances(block, rows), left)
        best = int(agreeing.argmax())  # argmax returns the first of several maxima
        self.chosen.append(self.left.pop(best))
        return int(agreeing[best])

    def _distances(self, block: int, rows: Tensor) -> Tensor:
        """Compute from the chosen columns the squared distances between the given rows and all N rows: (rows, N)."""
        distances, summed = self.kept.get(block, (None, 0))
        if distances is None:
            distances = self.columns.new_zeros(len(rows), len(self.labels)).scatter_(1, rows[:, None], math.inf)
        for column in self.chosen[summed:]:
            distances += self._squares(column, rows)
        if self.keep:
            self.kept[block] = distances, len(self.chosen)
        return distances

    def _squares(self, column: int, rows: Tensor) -> Tensor:
        values = self.columns[column]
        return (values[rows, None] - values).square_()

    def _count_agreeing(self, rows: Tensor, distances: Tensor, left: Tensor) -> Tensor:
        """For each remaining column, count the rows whose nearest neighbour has their label if the column is added.

        ``rows``: the row numbers. ``distances``: the squared distances of the rows, computed from the chosen columns.
        ``left``: the numbers of the remaining columns.
        """
        known = min(NEAREST if len(self.chosen) < 4 else NEAREST_LATER, distances.shape[1] - 1)
        nearest, others = distances.topk(known + 1, largest=False)
        bound, nearest, others = nearest[:, known], nearest[:, :known], others[:, :known]
        agreeing = torch.zeros_like(left)
        step = max(1, CHUNK // others.numel())
        for start in range(0, len(left), step):
            columns = self.columns[left[start : start + step]]
            added = (columns[:, rows, None] - columns[:, others]).square_().add_(nearest)
            least = added.amin(2)
            first = torch.where(added == least[:, :, None], others, len(self.labels)).amin(2)
            sure = least < bound
            agreeing[start : start + step] = (sure & (self.labels[first] == self.labels[rows])).sum(1)
            for number, doubtful in enumerate(~sure, start):
                if doubtful.any():
                    agreeing[number] += self._count_doubtful(int(left[number]), rows[doubtful], distances[doubtful])
        return agreeing

    def _count_doubtful(self, column: int, rows: Tensor, distances: Tensor) -> Tensor:
        """Compare the given rows with all samples, and count the rows whose nearest neighbour has the row's label.

        ``distances``: the squared distances of the rows, computed from the chosen columns. ``column``: the column to
        add.
        """
        # argmin returns the first of several minima; min with a dimension may return another one.
        first = self._squares(column, rows).add_(distances).argmin(1)
        return (self.labels[first] == self.labels[rows]).sum()
