"""Squared distances in float64: one sum, whatever the batch, the layout or the dtype of the features."""

from __future__ import annotations

import math

import pytest
import torch

from zoo_harness.separation.knn.exact_distances import EXACT_DTYPES, Rows, by_parts

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def by_halves(one, other):
    """The sum of squared differences in the documented order, in Python's float64."""
    terms = [(a - b) * (a - b) for a, b in zip(one, other, strict=True)]  # pow need not round correctly
    while len(terms) > 1:
        kept = (len(terms) + 1) // 2
        terms = [term + (terms[kept + i] if kept + i < len(terms) else 0.0) for i, term in enumerate(terms[:kept])]
    return terms[0]


@pytest.mark.parametrize("dtype", EXACT_DTYPES, ids=str)
@pytest.mark.parametrize("width", [1, 17, 100])
def test_distances_are_the_sum_by_halves_bit_for_bit(dtype, width):
    generator = torch.Generator().manual_seed(0)
    features = (30 * torch.randn(20, width, generator=generator)).abs().to(dtype)
    left, right = torch.randint(0, 20, (2, 12), generator=generator)
    on_device = features.to(DEVICE)
    wide = torch.cat([on_device, on_device], 1)[:, ::2] if width == 1 else on_device.T.contiguous().T
    values = features.double().tolist()
    expected = [by_halves(values[i], values[j]) for i, j in zip(left.tolist(), right.tolist(), strict=True)]
    for given, step in ((on_device, 1), (on_device, 100), (wide, 5)):
        rows = Rows(given, 2**20)
        rows.step = step
        found = rows.squared_distances(left.to(DEVICE), right.to(DEVICE))
        assert [math.ldexp(value, -2 * rows.exponent) for value in found.tolist()] == expected


@pytest.mark.parametrize("largest", [2.0**-1074, 1e-300, 1.0, 1e300])
def test_the_scale_keeps_squares_in_range(largest):
    rows = Rows(torch.tensor([[largest], [-largest]], dtype=torch.float64), 2**20)
    (squared,) = rows.squared_distances(torch.tensor([0]), torch.tensor([1])).tolist()
    assert 0 < squared < math.inf
    assert math.frexp(squared)[0] == math.frexp(math.frexp(largest)[0] ** 2)[0]


def test_parts_are_joined_in_order():
    values = torch.arange(14.0).view(7, 2)
    assert torch.equal(by_parts(lambda part: part.sum(1), 3, torch.empty(7), values), values.sum(1))
