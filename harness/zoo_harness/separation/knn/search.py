"""Find the nearest reference samples of each sample, exactly and without comparing all pairs in float64.

docs/exact-neighbours.md describes the method, proves that no neighbour is lost, and says what "exact" means.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import suppress

import torch
from torch import Tensor

from zoo_harness.compute.out_of_memory import within_device_memory
from zoo_harness.compute.precision import full_precision
from zoo_harness.separation.knn.candidate_pairs import BFLOAT16, FLOAT32, FLOAT64, SMALLEST_TILE, Operand, Precision
from zoo_harness.separation.knn.duplicates import Groups
from zoo_harness.separation.knn.exact_distances import Rows
from zoo_harness.separation.knn.filter_refine import FilterRefine, TooManyCandidates
from zoo_harness.separation.knn.lower_bounds import Frame
from zoo_harness.separation.knn.neighbours import NearestSoFar, Neighbours
from zoo_harness.separation.knn.projection import Projection, choose_projection

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
        given, every_label, split = features, labels, None
        if references is not None and reference_labels is not None:
            split = len(references)
            given, every_label = torch.cat([references, features]), torch.cat([reference_labels, labels])
        rows = Rows.of(given, budget)
        groups = Groups(rows, every_label, split)
        with full_precision(features.device):
            nearest = _search(rows, groups, order, split, budget)
        return nearest.expand(rows, split)

    count, width = len(features) + (0 if references is None else len(references)), features.shape[1]
    least = 2 * (2 * SMALLEST_TILE * width * 8 + SMALLEST_TILE**2 * 42)  # tiles are smallest; no less memory is used
    needed = f"{(300 * count + least) / 2**20:,.1f} MiB"
    what = f"the search among {count:,} x {width:,} features on {features.device}, which needs about {needed},"
    return within_device_memory(find, memory_budget, least, what)


def _search(rows: Rows, groups: Groups, order: int, split: int | None, memory_budget: int) -> NearestSoFar:
    """Return the nearest groups of each group: try the passes in turn, each with the radii of those before."""
    searched = groups.query_labels.count > 0
    # A sample with ``order`` or more equal references has all its neighbours at distance 0.
    searched &= groups.size - int(split is None) < order
    radius = torch.where(searched, math.inf, -math.inf).to(torch.float64)
    if not searched.any():
        return NearestSoFar(groups, order)
    left = (groups.size > 0 if split is None else searched).nonzero()[:, 0]
    right = (groups.size > 0).nonzero()[:, 0]
    frame = Frame(rows, groups.first[torch.cat([left, right]).unique() if split else right])
    max_compared = (COMPARED_PER_ROW + 8 * order) * len(groups.first)

    def run(precision: Precision, projection: Projection | None) -> NearestSoFar:  # what it holds is freed if it fails
        memory = memory_budget * 7 // 16
        one = other = Operand(frame, groups, left, projection, precision, memory)
        if split is not None:
            other = Operand(frame, groups, right, projection, precision, memory)
        most = math.inf if precision is FLOAT64 else max_compared
        nearest = NearestSoFar(groups, order)
        return FilterRefine(frame, nearest, one, other, radius, memory_budget * 3 // 8, most).run()

    for precision, projection in _passes(frame, groups.first[left], groups.first[right], order, memory_budget):
        with suppress(TooManyCandidates), full_precision(rows.features.device, precision.matmul_precision):
            return run(precision, projection)
    raise AssertionError("the last pass compares any number of candidates")


def _passes(
    frame: Frame, queries: Tensor, references: Tensor, order: int, memory_budget: int
) -> Iterator[tuple[Precision, Projection | None]]:
    """Yield the passes to try, the fastest first."""
    if frame.width <= WIDEST_FLOAT32:
        projection = choose_projection(frame, queries, references, order, memory_budget)
        if projection is not None:
            yield BFLOAT16, projection
            if projection.coarse is not None:
                yield BFLOAT16, projection.whole
        yield FLOAT32, None
    yield FLOAT64, None
