"""Projected rows: their distances bound the true ones from below, and a projection is chosen only if it saves time."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from zoo_harness.separation.knn.exact_distances import Rows
from zoo_harness.separation.knn.lower_bounds import (
    ProjectedRows,
    Projection,
    choose_projection,
    principal_components,
)
from zoo_harness.separation.knn.search import MEMORY_BUDGET


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1.0, 1e-20, 1e20])
@pytest.mark.parametrize("rank", [None, 1, 10, 59, 60])
def test_distances_of_vectors_are_lower_bounds(dtype, scale, rank):
    rng = np.random.default_rng(21)
    features = torch.from_numpy((rng.normal(size=(4, 60)).repeat(23, axis=0)[:90] + rng.normal(size=(90, 60))) * scale)
    features[3] *= 1e6
    ids = torch.arange(90)
    rows = Rows(features, MEMORY_BUDGET)
    basis = None if rank is None else principal_components(rows, ids, rank)
    projected = ProjectedRows(rows, ids, basis, dtype, MEMORY_BUDGET)
    w, h = projected.kept.double().numpy().astype(np.longdouble), projected.error.numpy()
    u = rows.centred(ids).numpy().astype(np.longdouble)
    bound = np.sqrt(((w[:, None] - w[None]) ** 2).sum(2)) - h[:, None] - h[None]
    assert (bound <= np.sqrt(((u[:, None] - u[None]) ** 2).sum(2))).all()


def test_vectors_that_are_not_kept_are_computed_again():
    features = torch.randn(50, 8, generator=torch.Generator().manual_seed(0))
    rows, ids = Rows(features, 2**20), torch.arange(50)
    rows.step = 7
    basis = principal_components(rows, ids, 3)
    kept, computed = (ProjectedRows(rows, ids, basis, torch.float32, memory) for memory in (800, 799))
    assert kept.kept is not None
    assert computed.kept is None
    assert torch.equal(kept.of(slice(3, 48)), computed.of(slice(3, 48)))
    assert torch.equal(kept.norms, computed.norms)


def test_a_projection_is_chosen_only_if_it_saves_time():
    random = torch.Generator().manual_seed(0)
    noise = torch.randn(5000, 1024, generator=random)
    flat = Rows(noise[:, :20] @ torch.randn(20, 1024, generator=random) + 0.01 * noise, MEMORY_BUDGET)
    ids = torch.arange(5000)
    found = choose_projection(flat, ids, ids, 1, MEMORY_BUDGET)
    assert found is not None
    assert found.rank == 32
    whole = choose_projection(Rows(noise, MEMORY_BUDGET), ids, ids, 1, MEMORY_BUDGET)
    assert whole is not None
    assert whole.rank == 0
    assert choose_projection(flat, ids[:100], ids, 1, MEMORY_BUDGET) is None
    assert choose_projection(flat, ids, ids, 1, 2**20) is None  # no room for a sample


@pytest.mark.parametrize("rank", [1, 10, 59, 60])
@pytest.mark.parametrize("scale", [1e-20, 1.0, 1e20])
def test_principal_components_lengthen_no_vector_and_keep_the_variance(rank, scale):
    random = torch.Generator().manual_seed(1)
    spread = torch.exp(-torch.arange(60) / 5).double()
    features = torch.randn(400, 60, generator=random).double() * spread * scale
    rows = Rows(features, MEMORY_BUDGET)
    basis = principal_components(rows, torch.arange(400), rank)
    assert torch.linalg.matrix_norm(basis, ord=2) <= 1
    u = rows.centred(torch.arange(400))
    kept = (u @ basis).square().sum() / u.square().sum()
    assert kept > 0.99 * spread[:rank].square().sum() / spread.square().sum() - 0.05


def test_rows_near_each_other_come_side_by_side():
    random = torch.Generator().manual_seed(2)
    cluster = torch.arange(64) % 4
    features = 100 * torch.eye(4)[cluster].repeat(1, 3) + torch.randn(64, 12, generator=random)
    rows, ids = Rows(features, MEMORY_BUDGET), torch.arange(64)
    order = Projection(principal_components(rows, ids, 4)).arrange(rows, ids, 16)
    assert order.sort().values.tolist() == ids.tolist()
    assert all(len(part.unique()) == 1 for part in cluster[order].split(16))
