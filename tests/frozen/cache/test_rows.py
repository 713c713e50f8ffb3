"""Rows of a cache: the values that were computed, or an error."""

from __future__ import annotations

import pytest
import torch

from zoo import ZooError
from zoo_harness.frozen.cache.rows import as_rows, bytes_of, from_rows, restore, spec_of

from .caches import KEPT, WIDTH

HALF = KEPT.model_copy(update={"stored": "float16"})


def test_finite_values_too_large_for_float16_are_an_error_and_infinite_ones_are_kept() -> None:
    with pytest.raises(ZooError, match=r"7e\+04; .*bf16") as raised:
        as_rows(HALF, torch.full((2, WIDTH), 7e4))
    assert raised.value.code == "cache-overflow"
    assert raised.value.facts == {"option": "--cache-dtype", "name": "block", "dtype": "float16"}
    rows = as_rows(HALF, torch.full((2, WIDTH), torch.inf))
    assert bool(from_rows(HALF, rows).isinf().all())


def test_tensors_that_are_not_the_described_ones() -> None:
    for given in (torch.zeros(3, WIDTH).double(), torch.zeros(3, WIDTH + 1), torch.zeros(3, WIDTH).cfloat()):
        with pytest.raises(ValueError, match=r"expected"):
            as_rows(KEPT, given)


def test_bytes_are_those_of_the_values_image_by_image() -> None:
    rows = as_rows(KEPT, torch.arange(3.0 * WIDTH).view(3, WIDTH))
    assert bytes_of(rows[1:]).tobytes() == torch.arange(float(WIDTH), 3 * WIDTH).numpy().tobytes()


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (0, 2, 3, 1), (3, 0, 1, 2)])
def test_the_layout_in_memory_comes_back(order: tuple[int, ...]) -> None:
    given = torch.rand(2, 3, 4, 5).permute(order).contiguous().permute([order.index(place) for place in range(4)])
    spec = spec_of("block", given)
    assert (spec.order, spec.shape) == (order, (3, 4, 5))
    read = from_rows(spec, as_rows(spec, given))
    assert torch.equal(read, given)
    assert restore(spec, read).stride() == restore(spec, given.contiguous()).stride() == given.stride()
