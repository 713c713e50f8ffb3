"""Distances of projected rows, less the bounds of their errors, never exceed the true distances."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from zoo_harness.separation.knn.exact_distances import Rows
from zoo_harness.separation.knn.lower_bounds import Frame, ProjectedRows
from zoo_harness.separation.knn.projection import principal_components
from zoo_harness.separation.knn.search import MEMORY_BUDGET


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1.0, 1e-20, 1e20])
@pytest.mark.parametrize("rank", [None, 1, 10, 59, 60])
def test_distances_of_vectors_are_lower_bounds(dtype, scale, rank):
    rng = np.random.default_rng(21)
    features = torch.from_numpy((rng.normal(size=(4, 60)).repeat(23, axis=0)[:90] + rng.normal(size=(90, 60))) * scale)
    features[3] *= 1e6
    ids = torch.arange(90)
    frame = Frame(Rows.of(features, MEMORY_BUDGET), ids)
    basis = None if rank is None else principal_components(frame, ids, rank)
    projected = ProjectedRows(frame, ids, basis, dtype, keep=True)
    w, h = projected.vectors.double().numpy().astype(np.longdouble), projected.error.numpy()
    u = frame.centred(ids).numpy().astype(np.longdouble)
    bound = np.sqrt(((w[:, None] - w[None]) ** 2).sum(2)) - h[:, None] - h[None]
    assert (bound <= np.sqrt(((u[:, None] - u[None]) ** 2).sum(2))).all()


def test_vectors_that_are_not_kept_are_computed_again():
    features = torch.randn(50, 8, generator=torch.Generator().manual_seed(0))
    rows = Rows(features, 400, step=7)
    frame, ids = Frame(rows, torch.arange(50)), torch.arange(50)
    basis = principal_components(frame, ids, 3)
    kept, computed = (ProjectedRows(frame, ids, basis, torch.float32, keep=keep) for keep in (True, False))
    assert computed.vectors is None
    assert torch.equal(kept.of(slice(3, 48)), computed.of(slice(3, 48)))
    assert torch.equal(kept.norms, computed.norms)
