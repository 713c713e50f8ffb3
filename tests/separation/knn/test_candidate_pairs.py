"""Candidate pairs: all pairs within a radius are listed, each once; products bound half the squared distances."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from zoo_harness.compute.precision import full_precision
from zoo_harness.separation.knn.candidate_pairs import BFLOAT16, FLOAT32, FLOAT64, SMALLEST_TILE, Operand, TiledProducts
from zoo_harness.separation.knn.duplicates import Groups
from zoo_harness.separation.knn.exact_distances import Rows
from zoo_harness.separation.knn.lower_bounds import Projection, principal_components
from zoo_harness.separation.knn.search import MEMORY_BUDGET

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
PRECISIONS = {"bfloat16": BFLOAT16, "float32": FLOAT32}
SMALL = 2**17  # bytes for a tile and a list: tiles of 32 rows or fewer, and several lists


class Operands(NamedTuple):
    left: Operand
    right: Operand
    radius: Tensor
    points: Tensor

    @property
    def symmetric(self):
        return self.left is self.right


def operands(precision, symmetric, rank=None, offset=0.0):
    """Rows in clusters, each with the distance of its nearest as its radius, but some that exclude every pair."""
    rng = np.random.default_rng(0)
    centres = 3 * rng.normal(size=(5, 70))
    values = centres[rng.integers(0, 5, 150)] + rng.normal(size=(150, 70)) + offset
    rows = Rows(torch.from_numpy(values).to(DEVICE), MEMORY_BUDGET)
    groups = Groups(rows, torch.zeros(150, dtype=torch.int64, device=DEVICE), None)
    projection = Projection(principal_components(rows, groups.first, rank), rank) if rank else None
    ids = torch.arange(150, device=DEVICE)
    points = rows.centred(groups.first)
    radius = torch.cdist(points, points).fill_diagonal_(torch.inf).amin(1) * (1 + 1e-9)
    radius[::11] = -torch.inf
    left = Operand(rows, groups, ids if symmetric else ids[:47], projection, precision, MEMORY_BUDGET)
    right = left if symmetric else Operand(rows, groups, ids[47:], projection, precision, MEMORY_BUDGET)
    return Operands(left, right, radius, points)


def listed(products):
    """Return the pairs of groups, and the length of each list."""
    found, lengths = set(), []
    for left, right, _products in products.candidates():
        lengths.append(len(left))
        pairs = set(zip(left.tolist(), right.tolist(), strict=True))
        assert len(pairs) == len(left)
        assert not pairs & found
        found |= pairs
    return found, lengths


@pytest.mark.parametrize("memory", [SMALL, 2**24])
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize(("rank", "offset"), [(None, 0.0), (None, 1e4), (9, 0.0)])
def test_all_pairs_within_a_radius_are_listed_and_few_others(memory, precision, symmetric, rank, offset):
    given = operands(PRECISIONS[precision], symmetric, rank, offset)
    with full_precision(DEVICE, PRECISIONS[precision].matmul_precision):
        found, _lengths = listed(TiledProducts(given.left, given.right, given.radius, memory))
    distance = torch.cdist(given.points, given.points)
    reach = torch.maximum(given.radius[:, None], given.radius) if symmetric else given.radius[:, None]
    near = (distance <= reach)[given.left.ids][:, given.right.ids]
    if symmetric:
        near.triu_(1)
    left, right = near.nonzero(as_tuple=True)
    within = set(zip(given.left.ids[left].tolist(), given.right.ids[right].tolist(), strict=True))
    assert within <= found
    assert len(within) > 10
    assert len(found) < len(given.left.ids) * len(given.right.ids) / 4


@pytest.mark.parametrize("symmetric", [True, False])
def test_full_lists_lose_nothing_and_repeat_nothing(symmetric):
    given = operands(FLOAT32, symmetric, rank=9)
    given.radius.fill_(torch.inf)
    whole, one_list = listed(TiledProducts(given.left, given.right, given.radius, 2**24))
    pairs = 150 * 149 // 2 if symmetric else 47 * 103
    assert len(whole) == pairs
    assert one_list == [pairs]
    products = TiledProducts(given.left, given.right, given.radius, 1)
    assert products.tile == SMALLEST_TILE
    piecewise, lengths = listed(products)
    assert piecewise == whole
    assert len(lengths) > pairs / SMALLEST_TILE**2
    assert max(lengths) <= 2 * SMALLEST_TILE**2


def test_radii_that_are_lowered_count_from_the_next_tile():
    given = operands(FLOAT32, True)
    given.radius.fill_(torch.inf)
    lists = TiledProducts(given.left, given.left, given.radius, 1).candidates()
    assert len(next(lists)[0])
    given.radius.fill_(-torch.inf)
    assert [len(left) for left, _right, _products in lists] == [0]


@pytest.mark.parametrize("symmetric", [True, False])
def test_the_nearest_tile_of_ordered_rows_is_their_own(symmetric):
    given = operands(FLOAT32, symmetric, rank=9)
    products = TiledProducts(given.left, given.right, given.radius, SMALL)
    for rows, columns in products.nearest_tiles():
        assert rows == columns or not symmetric
        assert 0 <= columns.start < columns.stop <= len(given.right.ids)


@pytest.mark.parametrize("precision", [BFLOAT16, FLOAT32, FLOAT64], ids=["bfloat16", "float32", "float64"])
@pytest.mark.parametrize("rank", [None, 3, 40])
@pytest.mark.parametrize("spread", [0.0, 1.0, 1e4, 1e20])
@pytest.mark.parametrize("outlier", [0.0, 1e22, 1e160])  # makes other squares underflow in float32, in float64
def test_products_are_lower_bounds(precision, rank, spread, outlier):
    rng = np.random.default_rng(15)
    clusters = spread * rng.normal(size=(4, 100))[rng.integers(0, 4, 80)]
    features = torch.from_numpy(clusters + rng.normal(size=(80, 100)))
    features[7, 3] += outlier
    rows = Rows(features.to(DEVICE), MEMORY_BUDGET)
    groups = Groups(rows, torch.zeros(80, dtype=torch.int64, device=DEVICE), None)
    projection = Projection(principal_components(rows, groups.first, rank), rank) if rank else None
    count = len(groups.first)  # with the largest spread, rows of a cluster become equal
    ids = torch.arange(count, device=DEVICE)
    operand = Operand(rows, groups, ids, projection, precision, MEMORY_BUDGET)
    with full_precision(DEVICE, precision.matmul_precision):
        products = TiledProducts(operand, operand, torch.empty(0), MEMORY_BUDGET)
        lower = products.lower_bounds(slice(0, count), slice(0, count))
    lower = lower.cpu().numpy().astype(np.longdouble)
    u = rows.centred(groups.first[operand.ids]).cpu().numpy().astype(np.longdouble)
    squared = ((u[:, None] - u[None, :]) ** 2).sum(2)
    others = ~np.eye(count, dtype=bool)
    assert (lower <= (1 + precision.slack) / 2 * squared)[others].all()
