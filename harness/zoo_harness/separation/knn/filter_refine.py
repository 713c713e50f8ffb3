"""One pass of the search over all pairs: filter them by lower bounds, compare the rest in float64.

docs/exact-neighbours.md says why no neighbour is lost.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from zoo_harness.separation.knn.candidate_pairs import CandidatePairs, TiledProducts
from zoo_harness.separation.knn.lower_bounds import Frame
from zoo_harness.separation.knn.nearest_so_far import NearestSoFar
from zoo_harness.separation.knn.operands import Operand

STARTING_TILES = 1  # nearest tiles in which the first radius of a row is looked for


class TooManyCandidates(Exception):  # noqa: N818 - no error: it ends a pass
    """The pass compared more pairs in float64 than it was allowed."""


class FilterRefine:
    """A pass over all pairs of ``left`` and ``right``; if these are one, each pair serves both of its groups.

    ``nearest``: empty; the pass fills it. ``radius``: (G,) float64, at least the distance of each group's last
    neighbour, negative for a group without queries; the pass lowers it. ``memory``: bytes for products.
    ``max_compared``: most pairs to compare in float64.
    """

    def __init__(
        self,
        frame: Frame,
        nearest: NearestSoFar,
        left: Operand,
        right: Operand,
        radius: Tensor,
        memory: int,
        max_compared: float,
    ) -> None:
        self.frame, self.nearest, self.radius = frame, nearest, radius
        self.groups, self.order = nearest.groups, nearest.order
        self.left, self.right, self.symmetric = left, right, left is right
        self.remaining = max_compared
        self._set_thresholds()
        self.products = TiledProducts(left, right, memory)

    def run(self) -> NearestSoFar:
        """Return the nearest groups of each group on the left, or raise :class:`TooManyCandidates`."""
        for rows, near in self.products.nearest_tiles(STARTING_TILES):
            self._set_first_radius(rows, near)
        self._set_thresholds()
        for pairs in self.products.candidates():
            self._refine(pairs)
        return self.nearest

    def _set_thresholds(self) -> None:
        self.left.set_thresholds(self.radius)
        if not self.symmetric:
            self.right.threshold.fill_(-math.inf)

    def _set_first_radius(self, rows: slice, near: list[slice]) -> None:
        """Set the radius of each row to the distance of its nearest among the pairs of least bound in near tiles."""
        distances = torch.cat([self._nearest_in_tile(rows, columns) for columns in near], 1)
        if distances.shape[1] >= self.order:
            self._lower_radius(self.left.ids[rows], distances.topk(self.order, largest=False).values[:, -1])

    def _nearest_in_tile(self, rows: slice, columns: slice) -> Tensor:
        """Return squared distances, (rows, at most order), of the pairs of least bound; infinite for no pair."""
        left, right = self.left.ids[rows], self.right.ids[columns]
        lower = self.products.lower_bounds(rows, columns)
        lower.masked_fill_(left[:, None] == right, math.inf)
        bound, column = lower.topk(min(self.order, len(right)), largest=False)
        row_ids = left[:, None].expand_as(column)
        first = self.groups.first
        exact = self.frame.rows.squared_distances(first[row_ids.flatten()], first[right[column].flatten()])
        return exact.view_as(bound).masked_fill_(bound == math.inf, math.inf)

    def _lower_radius(self, ids: Tensor, squared: Tensor) -> None:
        found = self.frame.scaled(squared).sqrt_().mul_(1 + 2.0**-40).add_(2.0**-500)
        self.radius[ids] = torch.minimum(self.radius[ids], found)

    def _refine(self, pairs: CandidatePairs) -> None:
        """Compare the pairs that may still hold a neighbour in float64, nearest first."""
        rows, columns, products = pairs
        kept = products <= self._pair_threshold(rows, columns)
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
        for part in (bound / self._pair_radius(left, right)).argsort().tensor_split(4):
            one, other = left[part], right[part]
            near = (bound[part] <= self._pair_radius(one, other)).nonzero()[:, 0]
            self._compare(one[near], other[near])

    def _compare(self, left: Tensor, right: Tensor) -> None:
        self.remaining -= len(left)
        if self.remaining < 0:
            raise TooManyCandidates
        self.nearest.compare(self.frame.rows, left, right, both=self.symmetric)
        self._lower_radius(self.left.ids, self.nearest.distance[self.left.ids, -1])
        self._set_thresholds()

    def _pair_radius(self, left: Tensor, right: Tensor) -> Tensor:
        return torch.maximum(self.radius[left], self.radius[right]) if self.symmetric else self.radius[left]

    def _pair_threshold(self, rows: Tensor, columns: Tensor) -> Tensor:
        of_rows = self.left.threshold[rows]
        return torch.maximum(of_rows, self.right.threshold[columns]) if self.symmetric else of_rows

    def _fine_bounds(self, rows: Tensor, columns: Tensor) -> Tensor:
        """Return lower bounds of the true distances, float64, from the longer vectors."""
        one, other = self.left.fine, self.right.fine
        assert one and other  # noqa: S101, PT018 - the caller has looked
        left_vectors, right_vectors = one.of(slice(None)), other.of(slice(None))
        bounds = torch.empty(len(rows), dtype=torch.float64, device=rows.device)
        shrink = 1 - (one.width + 8) * torch.finfo(one.dtype).eps
        step = max(1, 2**19 // one.width)
        for target, left, right in zip(bounds.split(step), rows.split(step), columns.split(step), strict=True):
            apart = (left_vectors[left] - right_vectors[right]).square_().sum(1).to(torch.float64).sqrt_()
            target.copy_(apart.mul_(shrink).sub_(one.error[left]).sub_(other.error[right]))
        return bounds
