"""The projection that a search uses: non-expansive, and chosen only if it saves time."""

from __future__ import annotations

import pytest
import torch

from zoo_harness.separation.knn.exact_distances import Rows
from zoo_harness.separation.knn.lower_bounds import Frame
from zoo_harness.separation.knn.projection import Projection, choose_projection, principal_components
from zoo_harness.separation.knn.search import MEMORY_BUDGET


def frame_of(features):
    return Frame(Rows.of(features, MEMORY_BUDGET), torch.arange(len(features)))


def test_a_projection_is_chosen_only_if_it_saves_time():
    random = torch.Generator().manual_seed(0)
    noise = torch.randn(5000, 1024, generator=random)
    flat = frame_of(noise[:, :20] @ torch.randn(20, 1024, generator=random) + 0.01 * noise)
    ids = torch.arange(5000)
    found = choose_projection(flat, ids, ids, 1, MEMORY_BUDGET)
    assert found is not None
    assert found.coarse.shape == (1024, 32)
    whole = choose_projection(frame_of(noise), ids, ids, 1, MEMORY_BUDGET)
    assert whole is not None
    assert (whole.coarse, whole.fine) == (None, None)
    assert choose_projection(flat, ids[:100], ids, 1, MEMORY_BUDGET) is None
    assert choose_projection(flat, ids, ids, 1, 2**20) is None  # no room for a sample


@pytest.mark.parametrize("rank", [1, 10, 59, 60])
@pytest.mark.parametrize("scale", [1e-20, 1.0, 1e20])
def test_principal_components_lengthen_no_vector_and_keep_the_variance(rank, scale):
    random = torch.Generator().manual_seed(1)
    spread = torch.exp(-torch.arange(60) / 5).double()
    features = torch.randn(400, 60, generator=random).double() * spread * scale
    frame = frame_of(features)
    basis = principal_components(frame, torch.arange(400), rank)
    assert torch.linalg.matrix_norm(basis, ord=2) <= 1
    u = frame.centred(torch.arange(400))
    kept = (u @ basis).square().sum() / u.square().sum()
    assert kept > 0.99 * spread[:rank].square().sum() / spread.square().sum() - 0.05


def test_rows_near_each_other_come_side_by_side():
    random = torch.Generator().manual_seed(2)
    cluster = torch.arange(64) % 4
    features = 100 * torch.eye(4)[cluster].repeat(1, 3) + torch.randn(64, 12, generator=random)
    frame, ids = frame_of(features), torch.arange(64)
    order = Projection.of(principal_components(frame, ids, 4)).arrange(frame, ids, 16)
    assert order.sort().values.tolist() == ids.tolist()
    assert all(len(part.unique()) == 1 for part in cluster[order].split(16))
