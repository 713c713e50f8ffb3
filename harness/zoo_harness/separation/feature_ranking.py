"""Forward ranking of features: at each step the one that raises the Separation Index most.

Adding a feature can only increase squared distances. Take the K nearest neighbours by the features chosen so far, and
let b be the distance of the next one after them. Once a feature is added, the nearest neighbour is among these K if the
best of them is then nearer than b. Only rows for which that fails are compared with all samples. For N samples and D
features a step takes about N^2 + (D - step) N K operations, the first one N^2 D.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from zoo_harness.separation.inputs import prepare_inputs
from zoo_harness.separation.knn.search import MEMORY_BUDGET
from zoo_harness.separation.validation import Array, checked_integer

NEAREST, NEAREST_LATER = 48, 16  # about N^(1 / (k + 1)) after k features; "later": from the fourth
CHUNK = 2**19  # numbers processed at a time: they stay in the cache


@dataclass(frozen=True)
class FeatureRanking:
    """Columns in the order in which they raise the Separation Index most, and the index after each one.

    ``features``: column numbers. ``curve``: the Separation Index of the first, the first two, ... of them.
    """

    features: tuple[int, ...]
    curve: tuple[float, ...]

    @property
    def best(self) -> tuple[int, ...]:
        """The shortest prefix of ``features`` that reaches the highest value of the curve.

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
    """Rank the columns by greedy forward selection; of several that raise SI equally, the first column wins.

    ``features``, ``labels``, ``normalize``, ``per_class``, ``seed``, ``memory_budget`` and errors: as for
    :func:`zoo.separation`. ``most``: number of columns to rank; all by default. Squared differences are added in the
    order of the ranking.

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
    """The columns chosen so far and the squared distances by them, infinite from a row to itself.

    The distances are kept if N x N float64 numbers fit in half the memory budget, else summed again in each step.
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
        """Choose the best remaining column; return the number of samples whose nearest neighbour has their label."""
        left = torch.tensor(self.left, device=self.columns.device)
        agreeing = torch.zeros_like(left)
        for block, rows in enumerate(self.blocks):
            agreeing += self._count_agreeing(rows, self._distances(block, rows), left)
        best = int(agreeing.argmax())  # the first of several
        self.chosen.append(self.left.pop(best))
        return int(agreeing[best])

    def _distances(self, block: int, rows: Tensor) -> Tensor:
        """Return the squared distances of these rows to all by the chosen columns, (rows, N)."""
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
        """Return, for each column in ``left``, the number of rows that agree with their nearest once it is added."""
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
        """Return the number of agreeing rows among those that have to be compared with all samples."""
        # argmin returns the first of several minima; min with a dimension does not guarantee that.
        first = self._squares(column, rows).add_(distances).argmin(1)
        return (self.labels[first] == self.labels[rows]).sum()
