"""Devices and precisions, on machines of every kind."""

from __future__ import annotations

import pytest
import torch

from zoo import UsageError
from zoo_harness.compute.allocator import keep_freed_memory
from zoo_harness.compute.device import choose_device
from zoo_harness.compute.precision import autocast, check_precision


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> int:
    """A machine with that many CUDA devices."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: request.param > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: request.param)
    return int(request.param)


@pytest.mark.parametrize(
    ("gpus", "name", "expected"),
    [
        (0, "auto", "cpu"),
        (0, "cpu", "cpu"),
        (2, "auto", "cuda:0"),
        (2, "cpu", "cpu"),
        (2, "cuda", "cuda:0"),
        (2, "cuda:1", "cuda:1"),
    ],
    indirect=["gpus"],
)
def test_device_that_a_name_means(gpus: int, name: str, expected: str) -> None:
    assert choose_device(name) == torch.device(expected)


@pytest.mark.parametrize("gpus", [0, 2], indirect=True)
@pytest.mark.parametrize(
    "name", ["gpu", "cuda:N", "cuda:", "cuda:-1", "cuda:99999", "CPU", "mps", "cpu:0", "", "cuda:0 "]
)
def test_other_names_are_usage_errors(gpus: int, name: str) -> None:
    with pytest.raises(UsageError) as caught:
        choose_device(name)
    assert str(caught.value) == f"--device {name!r} is not one of auto, cpu, cuda, cuda:0, cuda:1, ..."


@pytest.mark.parametrize(
    ("gpus", "name", "reason"),
    [
        (0, "cuda", "this machine has no usable CUDA device; use --device cpu or auto"),
        (0, "cuda:1", "this machine has no usable CUDA device; use --device cpu or auto"),
        (2, "cuda:2", "this machine has 2 CUDA device(s), from cuda:0 on"),
    ],
    indirect=["gpus"],
)
def test_device_that_is_not_there(gpus: int, name: str, reason: str) -> None:
    with pytest.raises(UsageError) as caught:
        choose_device(name)
    assert str(caught.value) == f"--device {name!r}: {reason}"


def test_bf16_is_for_cuda() -> None:
    assert check_precision("bf16", torch.device("cuda", 0)) == "bf16"
    assert check_precision("fp32", torch.device("cpu")) == "fp32"
    with pytest.raises(UsageError, match="--precision bf16 needs a CUDA device, this run is on cpu; use fp32"):
        check_precision("bf16", torch.device("cpu"))
    with pytest.raises(UsageError, match="--precision 'fp16' is not one of fp32, bf16"):
        check_precision("fp16", torch.device("cuda", 0))


def test_fp32_computes_in_fp32() -> None:
    values = torch.rand(2, 2)
    with autocast("fp32", torch.device("cpu")):
        assert (values @ values).dtype == torch.float32


def test_bf16_computes_in_bf16() -> None:
    values = torch.rand(2, 2)
    with autocast("bf16", torch.device("cpu")):  # a CPU can, only slowly
        assert (values @ values).dtype == torch.bfloat16


def test_memory_is_kept_only_where_there_is_a_glibc(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_library(_name: str) -> None:
        raise OSError("libc.so.6: cannot open shared object file")

    monkeypatch.setattr("ctypes.CDLL", no_library)
    assert keep_freed_memory() is False
