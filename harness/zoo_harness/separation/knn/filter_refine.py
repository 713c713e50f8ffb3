"""One pass of the search over all pairs: filter them by lower bounds, compare the rest in float64.

docs/exact-neighbours.md says why no neighbour is lost.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from zoo_harness.separation.knn.candidate_pairs import CandidatePairs, Operand, TiledProducts
from zoo_harness.separation.knn.exact_distances import by_parts
from zoo_harness.separation.knn.lower_bounds import Frame
from zoo_harness.separation.knn.neighbours import NearestSoFar


class TooManyCandidates(Exception):  # noqa: N818 - no error: it ends a pass
    """The pass compared more pairs in float64 than it was allowed."""


@dataclass(eq=False)
class FilterRefine:
    """A pass over all pairs of ``left`` and ``right``; if these are one, each pair serves both of its groups.

    ``nearest``: empty; the pass fills it. ``radius``: (G,) float64, at least the distance of each group's last
    neighbour, negative for a group without queries; the pass lowers it. ``memory``: bytes for products.
    ``remaining``: most pairs to compare in float64.
    """

    frame: Frame
    nearest: NearestSoFar
    left: Operand
    right: Operand
    radius: Tensor
    memory: int
    remaining: float

    def run(self) -> NearestSoFar:
        """Return the nearest groups of each group on the left, or raise :class:`TooManyCandidates`."""
        self.symmetric = self.left is self.right
        self.left.set_thresholds(self.radius)
        if not self.symmetric:
            self.right.threshold.fill_(-math.inf)
        products = TiledProducts(self.left, self.right, self.memory)
        for rows, columns in products.nearest_tiles():
            self._set_first_radius(self.left.ids[rows], self.right.ids[columns], products.lower_bounds(rows, columns))
        self.left.set_thresholds(self.radius)
        for pairs in products.candidates():
            self._refine(pairs)
        return self.nearest

    def _set_first_radius(self, left: Tensor, right: Tensor, lower: Tensor) -> None:
        """Set the radius of each row to the distance of its nearest among the pairs of least bound in a near tile."""
        order = self.nearest.order
        if len(right) < order:
            return
        bound, column = lower.masked_fill_(left[:, None] == right, math.inf).topk(order, largest=False)
        first = self.nearest.groups.first
        row_ids = left[:, None].expand_as(column).flatten()
        exact = self.frame.rows.squared_distances(first[row_ids], first[right[column].flatten()])
        self._lower_radius(left, exact.view_as(bound).masked_fill_(bound == math.inf, math.inf).amax(1))

    def _lower_radius(self, ids: Tensor, squared: Tensor) -> None:
        found = self.frame.scaled(squared).sqrt_().mul_(1 + 2.0**-40).add_(2.0**-500)
        self.radius[ids] = torch.minimum(self.radius[ids], found)

    def _refine(self, pairs: CandidatePairs) -> None:
        """Compare the pairs that may still hold a neighbour in float64, nearest first."""
        rows, columns, products = pairs
        kept = products <= self._of_pairs(self.left.threshold, self.right.threshold, rows, columns)
        if not self.symmetric:
            kept &= self.left.ids[rows] != self.right.ids[columns]
        index = kept.nonzero()[:, 0]  # once: each call waits for the device
        rows, columns, products = rows[index], columns[index], products[index]
        left, right = self.left.ids[rows], self.right.ids[columns]
        if self.left.fine and self.right.fine:
            bound = self._fine_bounds(rows, columns)
        else:
            bound = products.to(torch.float64).clamp_(min=0).mul_(2 / (1 + self.left.precision.slack)).sqrt_()
        # Nearest first, relative to the radius: pairs compared early lower the radius and exclude later ones.
        for part in (bound / self._of_pairs(self.radius, self.radius, left, right)).argsort().tensor_split(4):
            one, other = left[part], right[part]
            near = (bound[part] <= self._of_pairs(self.radius, self.radius, one, other)).nonzero()[:, 0]
            self._compare(one[near], other[near])

    def _compare(self, left: Tensor, right: Tensor) -> None:
        self.remaining -= len(left)
        if self.remaining < 0:
            raise TooManyCandidates
        self.nearest.compare(self.frame.rows, left, right, both=self.symmetric)
        self._lower_radius(self.left.ids, self.nearest.distance[self.left.ids, -1])
        self.left.set_thresholds(self.radius)

    def _of_pairs(self, of_left: Tensor, of_right: Tensor, left: Tensor, right: Tensor) -> Tensor:
        """Return the value of each pair: the larger one if the pair serves both, else that of the left."""
        return torch.maximum(of_left[left], of_right[right]) if self.symmetric else of_left[left]

    def _fine_bounds(self, rows: Tensor, columns: Tensor) -> Tensor:
        """Return lower bounds of the true distances, float64, from the longer vectors."""
        one, other = self.left.fine, self.right.fine
        assert one and other  # noqa: S101, PT018 - the caller has looked
        left_vectors, right_vectors = one.of(slice(None)), other.of(slice(None))
        shrink = 1 - (one.width + 8) * torch.finfo(one.dtype).eps

        def bound(left: Tensor, right: Tensor) -> Tensor:
            apart = (left_vectors[left] - right_vectors[right]).square_().sum(1).to(torch.float64).sqrt_()
            return apart.mul_(shrink).sub_(one.error[left]).sub_(other.error[right])

        bounds = torch.empty(len(rows), dtype=torch.float64, device=rows.device)
        return by_parts(bound, max(1, 2**19 // one.width), bounds, rows, columns)
