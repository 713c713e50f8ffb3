"""Products in full precision: reduced precision is off inside the block, and the caller's settings come back."""

from __future__ import annotations

import pytest
import torch

from zoo_harness.compute.precision import full_precision

CPU = torch.device("cpu")


def precisions():
    matmuls = torch.backends.cuda.matmul, torch.backends.mkldnn.matmul
    return [matmul.fp32_precision for matmul in matmuls]


@pytest.fixture
def precision_kept():
    before = precisions()
    yield
    torch.set_float32_matmul_precision("highest")
    torch.backends.cuda.matmul.fp32_precision, torch.backends.mkldnn.matmul.fp32_precision = before


@pytest.mark.usefixtures("precision_kept")
@pytest.mark.parametrize("setting", ["highest", "high", "medium"])
def test_reduced_precision_is_off_inside_and_back_afterwards(setting):
    torch.set_float32_matmul_precision(setting)
    before = precisions()
    with full_precision(CPU):
        assert precisions() == ["ieee", "ieee"]
        assert torch.get_float32_matmul_precision() == "highest"
        assert not torch.backends.cuda.matmul.allow_tf32
    assert precisions() == before
    assert torch.get_float32_matmul_precision() == setting


@pytest.mark.usefixtures("precision_kept")
def test_reduced_precision_of_one_backend_is_off_inside_and_back_afterwards():
    torch.backends.mkldnn.matmul.fp32_precision = "bf16"
    before = precisions()
    with full_precision(CPU):
        assert precisions() == ["ieee", "ieee"]
    assert precisions() == before


def test_autocast_is_off_inside_and_back_afterwards():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        with full_precision(CPU):
            assert not torch.is_autocast_enabled("cpu")
        assert torch.is_autocast_enabled("cpu")
