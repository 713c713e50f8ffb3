"""Global settings of torch: set for the body, and the caller's come back afterwards."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from zoo import UsageError
from zoo_harness.compute.precision import autocast, check_precision, full_precision, isolated, repeatable

CPU = torch.device("cpu")


def precisions() -> list[str]:
    return [matmul.fp32_precision for matmul in (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)]


@pytest.fixture
def precision_kept() -> Iterator[None]:
    before = precisions()
    yield
    torch.set_float32_matmul_precision("highest")
    torch.backends.cuda.matmul.fp32_precision, torch.backends.mkldnn.matmul.fp32_precision = before


@pytest.mark.usefixtures("precision_kept")
@pytest.mark.parametrize("setting", ["highest", "high", "medium", "one backend"])
def test_reduced_precision_is_off_in_the_body(setting: str) -> None:
    if setting == "one backend":
        torch.backends.mkldnn.matmul.fp32_precision = "bf16"
    else:
        torch.set_float32_matmul_precision(setting)
    before = precisions()
    with full_precision(CPU):
        assert precisions() == ["ieee", "ieee"]
        assert torch.get_float32_matmul_precision() == "highest"
        assert not torch.backends.cuda.matmul.allow_tf32
    assert precisions() == before
    if setting != "one backend":
        assert torch.get_float32_matmul_precision() == setting


def test_autocast_is_off_in_the_body() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        with full_precision(CPU):
            assert not torch.is_autocast_enabled("cpu")
        assert torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize("wanted", [True, False])
def test_determinism_is_on_in_the_body_if_wanted(wanted: bool) -> None:
    with repeatable(wanted):
        assert torch.are_deterministic_algorithms_enabled() is wanted
    assert not torch.are_deterministic_algorithms_enabled()


def test_isolation_restores_the_switches_and_threads() -> None:
    threads, dtype = torch.get_num_threads(), torch.get_default_dtype()
    with isolated():
        torch.use_deterministic_algorithms(True)
        torch.set_default_dtype(torch.float64)
        torch.set_num_threads(threads + 1)
    assert not torch.are_deterministic_algorithms_enabled()
    assert (torch.get_num_threads(), torch.get_default_dtype()) == (threads, dtype)


def test_bf16_is_for_cuda() -> None:
    assert check_precision("bf16", torch.device("cuda", 0)) == "bf16"
    assert check_precision("fp32", torch.device("cpu")) == "fp32"
    for precision, device, code in (("bf16", "cpu", "precision-device"), ("fp16", "cuda", "option-choice")):
        with pytest.raises(UsageError) as caught:
            check_precision(precision, torch.device(device))
        assert caught.value.code == code


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_autocast_computes_in_the_precision(precision: str, dtype: torch.dtype) -> None:
    values = torch.rand(2, 2)
    with autocast(precision, torch.device("cpu")):  # slow on a CPU, but supported
        assert (values @ values).dtype == dtype
