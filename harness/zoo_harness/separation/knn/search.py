"""Find the exact nearest reference samples of each sample, without computing the distances of all pairs in float64.

Each pass of a search excludes pairs by lower bounds of their distances, and compares the remaining pairs in float64.
The page docs/exact-neighbours.md describes the method, proves that no neighbour is lost, and defines "exact".
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
COMPARED_PER_ROW = 32  # if more candidate pairs per row remain on average, a more precise pass saves time
WIDEST_FLOAT32 = 2**15  # with more features, a float32 product is too inexact to exclude many pairs


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

    ``features``: (N, D), finite, D at least 1, with one of the dtypes ``EXACT_DTYPES``. ``labels``: (N,) int64 on the
    device of the features. Labels do not affect which neighbours are found; they only serve to count the tied
    neighbours that have the sample's label. If ``references`` is ``None``, the neighbours of a sample are other
    samples, and ``order`` is at most N - 1. ``references``: (M, D), with the dtype of the features;
    ``reference_labels``: (M,). With references, ``order`` is at most M, and a reference that equals a sample is a
    neighbour at distance 0.

    ``memory_budget``: bytes of working memory. The input and one joint copy of references and features do not count
    towards the budget. If the device runs out of memory, the search restarts with half the budget. The function raises
    :class:`DeviceMemoryError` if even the smallest tiles do not fit.

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
    least = 2 * (2 * SMALLEST_TILE * width * 8 + SMALLEST_TILE**2 * 42)  # a smaller budget would not save memory
    needed = f"{(300 * count + least) / 2**20:,.1f} MiB"
    what = f"the neighbour search in {count:,} x {width:,} features on {features.device}, which needs about {needed},"
    return within_device_memory(find, memory_budget, least, what)


def _search(rows: Rows, groups: Groups, order: int, memory_budget: int) -> NearestSoFar:
    """Return the nearest groups of each group of equal rows, by trying the passes of a search until a pass succeeds.

    A pass fails if too many candidate pairs remain. Each pass starts with the radii that earlier passes have found.
    """
    # If a sample equals at least ``order`` references, all its neighbours are at distance 0 and need no search.
    searched = (groups.query_labels.count > 0) & (groups.size - groups.itself < order)
    if not searched.any():
        return NearestSoFar(groups, order)
    radius = torch.where(searched, math.inf, -math.inf).to(torch.float64)
    right = (groups.size > 0).nonzero()[:, 0]
    left = right if groups.itself else searched.nonzero()[:, 0]
    max_compared = (COMPARED_PER_ROW + 8 * order) * len(groups.first)

    # Each pass is a function call, so that its local variables are freed before the next pass starts.
    def run(precision: Precision, projection: Projection | None) -> NearestSoFar:
        memory = memory_budget * 7 // (16 if groups.itself else 32)  # the references need memory of their own
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
    """Yield the precision and the projection of each pass to try, the fastest pass first."""
    if rows.width <= WIDEST_FLOAT32:
        projection = choose_projection(rows, queries, references, order, memory_budget)
        if projection is not None:
            yield BFLOAT16, projection
            if projection.rank:
                yield BFLOAT16, Projection(projection.basis)
        yield FLOAT32, None
    yield FLOAT64, None


class TooManyCandidates(Exception):  # noqa: N818 - it ends a pass of the search and is not an error
    """A pass of the neighbour search would compare more pairs in float64 than its limit allows."""


class FilterRefine:
    """Run one pass of the neighbour search: exclude pairs by lower bounds, and compare the other pairs in float64.

    ``nearest``: an empty :class:`NearestSoFar`, which the pass fills. ``products`` computes the lower bounds. If the
    left and the right operand of ``products`` are the same object, each pair updates the neighbours of both groups. The
    pass lowers ``products.radius``. The caller sets the radius of a group to at least the distance of the group's last
    neighbour. Groups that need no search get a negative radius. ``max_compared``: the largest number of pairs to
    compare in float64.
    """

    def __init__(self, rows: Rows, nearest: NearestSoFar, products: TiledProducts, max_compared: float) -> None:
        self.rows, self.nearest, self.products, self.remaining = rows, nearest, products, max_compared

    def run(self) -> NearestSoFar:
        """Return the nearest groups of each left group, or raise :class:`TooManyCandidates`."""
        products = self.products
        for rows, columns in products.nearest_tiles():
            self._set_first_radius(
                products.left.ids[rows], products.right.ids[columns], products.lower_bounds(rows, columns)
            )
        for left, right, found in products.candidates():
            self._refine(left, right, found)
        return self.nearest

    def _set_first_radius(self, left: Tensor, right: Tensor, lower: Tensor) -> None:
        """Compare each left group with the right groups that have the lowest bounds, and lower the group's radius.

        The new radius is the largest of the ``order`` distances computed.
        """
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
        """Compare the candidate pairs within the current radii in float64, starting with the smallest lower bounds."""
        slack = self.products.left.precision.slack
        bound = products.to(torch.float64).clamp_(min=0).mul_(2 / (1 + slack)).sqrt_()
        kept = (bound <= self._radius_of(left, right)) & (left != right)
        index = kept.nonzero()[:, 0]  # reused below, because nonzero() waits for a GPU
        left, right, bound = left[index], right[index], bound[index]
        # Pairs are sorted by bound / radius. The pairs compared first lower the radii, which excludes later pairs.
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
