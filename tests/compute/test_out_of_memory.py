"""A device that runs out of memory: smaller tiles, then an error with advice."""

from __future__ import annotations

import pytest
import torch

from zoo import DeviceMemoryError, separation
from zoo_harness.compute.out_of_memory import in_batches_that_fit, out_of_memory_advice
from zoo_harness.separation.knn import search
from zoo_harness.separation.knn.candidate_pairs import SMALLEST_TILE, TiledProducts
from zoo_harness.separation.knn.search import nearest_neighbours

REASON = "CUDA out of memory. Tried to allocate 7.00 GiB.\nmore about it"


@pytest.fixture
def data():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(900, 30, generator=generator), torch.randint(0, 3, (900,), generator=generator)


def full_device(monkeypatch, largest_tile):
    """Have tiles above a size run out of memory, and return the sizes tried."""
    tried = []

    class Products(TiledProducts):
        def candidates(self):
            tried.append(self.tile)
            if self.tile > largest_tile:
                raise torch.OutOfMemoryError(REASON)
            return super().candidates()

    monkeypatch.setattr(search, "TiledProducts", Products)
    return tried


@pytest.mark.parametrize("largest_tile", [256, SMALLEST_TILE])
@pytest.mark.parametrize("against", ["each other", "references"])
def test_smaller_tiles_find_the_same(data, monkeypatch, largest_tile, against):
    features, labels = data
    references, of_references = (None, None) if against == "each other" else (features + 0.1, labels)
    options = {"references": references, "reference_labels": of_references, "memory_budget": 2**27}
    expected = nearest_neighbours(features, labels, 2, **options)
    tried = full_device(monkeypatch, largest_tile)
    found = nearest_neighbours(features, labels, 2, **options)
    assert tried == sorted(tried, reverse=True)
    assert tried[0] > largest_tile >= tried[-1]
    assert torch.equal(found.indices, expected.indices)
    assert torch.equal(found.squared_distances, expected.squared_distances)
    assert torch.equal(found.last_tied, expected.last_tied)


def test_too_little_for_the_smallest_tiles_is_an_error(data, monkeypatch):
    tried = full_device(monkeypatch, SMALLEST_TILE - 1)
    with pytest.raises(DeviceMemoryError) as caught:
        separation(*data, memory_budget=2**24)
    assert tried[-1] == SMALLEST_TILE
    assert caught.value.code == "device-memory"
    assert "Tried to allocate 7.00 GiB." in str(caught.value)
    assert "more about it" not in str(caught.value)
    assert caught.value.__context__ is None


@pytest.mark.parametrize("budget", [1, 1000])
def test_a_budget_below_a_tile_counts_as_the_smallest_tile(data, monkeypatch, budget):
    features, labels = data[0][:100], data[1][:100]
    tried = full_device(monkeypatch, SMALLEST_TILE)
    found = nearest_neighbours(features, labels, memory_budget=budget)
    assert tried == [SMALLEST_TILE]
    assert torch.equal(found.indices, nearest_neighbours(features, labels).indices)


def test_a_batch_that_does_not_fit_is_an_error_with_its_size():
    with pytest.raises(DeviceMemoryError) as caught, out_of_memory_advice(32):
        raise torch.OutOfMemoryError(REASON)
    assert (caught.value.code, caught.value.facts["batch_size"]) == ("device-memory", 32)


def test_batches_shrink_until_a_single_image_does_not_fit():
    tried = []

    def work(first, last):
        tried.append(last - first)
        if last - first > largest:
            raise torch.OutOfMemoryError(REASON)

    largest = 2
    assert in_batches_that_fit(work, 0, 10, 8) == 2
    assert tried == [8, 4, 2, 2, 2, 2, 2]
    largest = 0
    with pytest.raises(DeviceMemoryError) as caught:
        in_batches_that_fit(work, 0, 10, 2)
    assert caught.value.code == "device-memory"


def test_other_errors_pass(data, monkeypatch):
    class Products(TiledProducts):
        def lower_bounds(self, rows, columns):
            raise RuntimeError(f"something else, at {rows} and {columns}")

    monkeypatch.setattr(search, "TiledProducts", Products)
    with pytest.raises(RuntimeError, match="something else"):
        nearest_neighbours(*data)
