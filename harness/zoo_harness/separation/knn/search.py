"""Find the nearest reference samples of each sample, exactly and without comparing all pairs in float64.

Each pass of a search filters all pairs by lower bounds and compares the rest in float64. docs/exact-neighbours.md
describes the method, proves that no neighbour is lost, and says what "exact" means.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import suppress

import torch
from torch import Tensor

from zoo_harness.compute.out_of_memory import within_device_memory
from zoo_harness.compute.precision import full_precision
from zoo_harness.separation.knn.candidate_pairs import (
    BFLOAT16,
    FLOAT32,
    FLOAT64,
    SMALLEST_TILE,
    Operand,
    Precision,
    TiledProducts,
)
from zoo_harness.separation.knn.duplicates import Groups
from zoo_harness.separation.knn.exact_distances import Rows
from zoo_harness.separation.knn.lower_bounds import Projection, choose_projection
from zoo_harness.separation.knn.neighbours import NearestSoFar, Neighbours

MEMORY_BUDGET = 768 * 2**20
COMPARED_PER_ROW = 32  # on average; beyond it, float64 products are cheaper than comparing pairs one by one
WIDEST_FLOAT32 = 2**15  # features; beyond it, the error of a float32 product is too large to exclude much


def nearest_neighbours(
    features: Tensor,
    labels: Tensor,
    order: int = 1,
    *,
    references: Tensor | None = None,
    reference_labels: Tensor | None = None,
    memory_budget: int = MEMORY_BUDGET,
) -> Neighbours:
    """Return the ``order`` nearest reference samples of each sample.

    ``features``: (N, D), finite, D at least 1, dtype one of ``EXACT_DTYPES``. ``labels``: (N,) int64 on the same
    device; they only say which of the tied samples have the same label. Without ``references``, samples are neighbours
    of each other, never of themselves, and ``order`` is at most N - 1. With ``references`` (M, D), of the dtype of the
    features, and ``reference_labels`` (M,), a reference equal to a sample is its neighbour at distance 0, and ``order``
    is at most M. ``memory_budget``: bytes of working memory beyond the input; references and features are copied once
    besides. If the device has less memory, the search restarts with half the budget, and raises
    :class:`DeviceMemoryError` if the smallest tiles do not fit.

    >>> nearest_neighbours(torch.tensor([[0.0], [1.0], [3.0]]), torch.tensor([0, 1, 0]), 2).indices
    tensor([[1, 2],
            [0, 2],
            [1, 0]])
    """

    def find(budget: int) -> Neighbours:
        given, every_label = features, labels
        if references is not None and reference_labels is not None:
            given, every_label = torch.cat([references, features]), torch.cat([reference_labels, labels])
        rows = Rows(given, budget)
        groups = Groups(rows, every_label, None if references is None else len(references))
        with full_precision(features.device):
            return _search(rows, groups, order, budget).expand(rows)

    count, width = len(features) + (0 if references is None else len(references)), features.shape[1]
    least = 2 * (2 * SMALLEST_TILE * width * 8 + SMALLEST_TILE**2 * 42)  # tiles are smallest; no less memory is used
    needed = f"{(300 * count + least) / 2**20:,.1f} MiB"
    what = f"the search among {count:,} x {width:,} features on {features.device}, which needs about {needed},"
    return within_device_memory(find, memory_budget, least, what)


def _search(rows: Rows, groups: Groups, order: int, memory_budget: int) -> NearestSoFar:
    """Return the nearest groups of each group: try the passes in turn, each with the radii of those before."""
    # A sample with ``order`` or more equal references has all its neighbours at distance 0.
    searched = (groups.query_labels.count > 0) & (groups.size - groups.itself < order)
    if not searched.any():
        return NearestSoFar(groups, order)
    radius = torch.where(searched, math.inf, -math.inf).to(torch.float64)
    right = (groups.size > 0).nonzero()[:, 0]
    left = right if groups.itself else searched.nonzero()[:, 0]
    max_compared = (COMPARED_PER_ROW + 8 * order) * len(groups.first)

    def run(precision: Precision, projection: Projection | None) -> NearestSoFar:  # what it holds is freed if it fails
        memory = memory_budget * 7 // 16
        one = other = Operand(rows, groups, left, projection, precision, memory)
        if not groups.itself:
            other = Operand(rows, groups, right, projection, precision, memory)
        most = math.inf if precision is FLOAT64 else max_compared
        products = TiledProducts(one, other, radius, memory_budget * 3 // 8)
        return FilterRefine(rows, NearestSoFar(groups, order), products, most).run()

    for precision, projection in _passes(rows, groups.first[left], groups.first[right], order, memory_budget):
        with suppress(TooManyCandidates), full_precision(rows.features.device, precision.matmul_precision):
            return run(precision, projection)
    raise AssertionError("the last pass compares any number of candidates")


def _passes(
    rows: Rows, queries: Tensor, references: Tensor, order: int, memory_budget: int
) -> Iterator[tuple[Precision, Projection | None]]:
    """Yield the passes to try, the fastest first."""
    if rows.width <= WIDEST_FLOAT32:
        projection = choose_projection(rows, queries, references, order, memory_budget)
        if projection is not None:
            yield BFLOAT16, projection
            if projection.rank:
                yield BFLOAT16, Projection(projection.basis)
        yield FLOAT32, None
    yield FLOAT64, None


class TooManyCandidates(Exception):  # noqa: N818 - no error: it ends a pass
    """The pass compared more pairs in float64 than it was allowed."""


class FilterRefine:
    """A pass over all pairs of the operands of ``products``; if these are one, each pair serves both of its groups.

    ``nearest``: empty; the pass fills it. The radius of ``products`` is at least the distance of each group's last
    neighbour, negative for a group without queries; the pass lowers it. ``max_compared``: most pairs to compare in
    float64.
    """

    def __init__(self, rows: Rows, nearest: NearestSoFar, products: TiledProducts, max_compared: float) -> None:
        self.rows, self.nearest, self.products, self.remaining = rows, nearest, products, max_compared

    def run(self) -> NearestSoFar:
        """Return the nearest groups of each group on the left, or raise :class:`TooManyCandidates`."""
        products = self.products
        for rows, columns in products.nearest_tiles():
            self._set_first_radius(
                products.left.ids[rows], products.right.ids[columns], products.lower_bounds(rows, columns)
            )
        for left, right, found in products.candidates():
            self._refine(left, right, found)
        return self.nearest

    def _set_first_radius(self, left: Tensor, right: Tensor, lower: Tensor) -> None:
        """Set the radius of each row to the distance of its nearest among the pairs of least bound in a near tile."""
        order = self.nearest.order
        if len(right) < order:
            return
        bound, column = lower.masked_fill_(left[:, None] == right, math.inf).topk(order, largest=False)
        first = self.nearest.groups.first
        row_ids = left[:, None].expand_as(column).flatten()
        exact = self.rows.squared_distances(first[row_ids], first[right[column].flatten()])
        self._lower_radius(left, exact.view_as(bound).masked_fill_(bound == math.inf, math.inf).amax(1))

    def _lower_radius(self, ids: Tensor, squared: Tensor) -> None:
        found = self.rows.centred_distances(squared).mul_(1 + 2.0**-40).add_(2.0**-500)
        self.products.radius[ids] = torch.minimum(self.products.radius[ids], found)

    def _refine(self, left: Tensor, right: Tensor, products: Tensor) -> None:
        """Compare the pairs that may still hold a neighbour in float64, nearest first."""
        slack = self.products.left.precision.slack
        bound = products.to(torch.float64).clamp_(min=0).mul_(2 / (1 + slack)).sqrt_()
        kept = (bound <= self._radius_of(left, right)) & (left != right)
        index = kept.nonzero()[:, 0]  # once: each call waits for the device
        left, right, bound = left[index], right[index], bound[index]
        # Nearest first, relative to the radius: pairs compared early lower the radius and exclude later ones.
        for part in (bound / self._radius_of(left, right)).argsort().tensor_split(4):
            one, other = left[part], right[part]
            near = (bound[part] <= self._radius_of(one, other)).nonzero()[:, 0]
            self._compare(one[near], other[near])

    def _radius_of(self, left: Tensor, right: Tensor) -> Tensor:
        return torch.maximum(self.products.radius[left], self.products.radius[right])

    def _compare(self, left: Tensor, right: Tensor) -> None:
        self.remaining -= len(left)
        if self.remaining < 0:
            raise TooManyCandidates
        self.nearest.compare(self.rows, left, right, both=self.products.symmetric)
        ids = self.products.left.ids
        self._lower_radius(ids, self.nearest.distance[ids, -1])
