"""Rows of a cache: the values that were computed, or an error."""

from __future__ import annotations

import pytest
import torch

from zoo import ZooError
from zoo_harness.frozen.cache.rows import as_rows, bytes_of, from_rows

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


def test_bytes_are_those_of_the_rows_in_order() -> None:
    rows = torch.arange(12, dtype=torch.int16).view(3, 4)
    assert bytes_of(rows[1:]).tobytes() == rows[1:].numpy().tobytes()
    assert bytes_of(rows[:, ::2]).tobytes() == rows[:, ::2].contiguous().numpy().tobytes()
