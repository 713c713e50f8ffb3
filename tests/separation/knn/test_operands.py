"""Products of operands are lower bounds of half the squared distances, in every precision and at extreme scales."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from zoo_harness.compute.precision import full_precision
from zoo_harness.separation.knn.duplicates import Groups
from zoo_harness.separation.knn.exact_distances import Rows
from zoo_harness.separation.knn.lower_bounds import Frame
from zoo_harness.separation.knn.operands import BFLOAT16, FLOAT32, FLOAT64, Operand
from zoo_harness.separation.knn.projection import Projection, principal_components
from zoo_harness.separation.knn.search import MEMORY_BUDGET

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize("precision", [BFLOAT16, FLOAT32, FLOAT64], ids=["bfloat16", "float32", "float64"])
@pytest.mark.parametrize("rank", [None, 3, 40])
@pytest.mark.parametrize("spread", [0.0, 1.0, 1e4, 1e20])
@pytest.mark.parametrize("outlier", [0.0, 1e22, 1e160])  # makes other squares underflow in float32, in float64
def test_products_are_lower_bounds(precision, rank, spread, outlier):
    rng = np.random.default_rng(15)
    clusters = spread * rng.normal(size=(4, 100))[rng.integers(0, 4, 80)]
    features = torch.from_numpy(clusters + rng.normal(size=(80, 100)))
    features[7, 3] += outlier
    rows = Rows.of(features.to(DEVICE), MEMORY_BUDGET)
    groups = Groups.of(rows, torch.zeros(80, dtype=torch.int64, device=DEVICE), None)
    frame = Frame(rows, groups.first)
    projection = Projection.of(principal_components(frame, groups.first, rank)) if rank else None
    count = len(groups.first)  # with the largest spread, rows of a cluster become equal
    ids = torch.arange(count, device=DEVICE)
    operand = Operand(frame, groups, ids, projection, precision, MEMORY_BUDGET)
    width = operand.coarse.width + 2 * precision.norm_columns
    left, right = (torch.empty(count, width, dtype=precision.products, device=DEVICE) for _ in range(2))
    operand.fill(left, slice(None), left=True)
    operand.fill(right, slice(None), left=False)
    with full_precision(DEVICE, precision.matmul_precision):
        lower = (left @ right.T).cpu().numpy().astype(np.longdouble)
    u = frame.centred(groups.first[operand.ids]).cpu().numpy().astype(np.longdouble)
    squared = ((u[:, None] - u[None, :]) ** 2).sum(2)
    others = ~np.eye(count, dtype=bool)
    assert (lower <= (1 + precision.slack) / 2 * squared)[others].all()
