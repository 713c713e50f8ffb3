"""Devices, on machines of every kind, and the memory that glibc keeps."""

from __future__ import annotations

import pytest
import torch

from zoo import UsageError
from zoo_harness.compute.allocator import keep_freed_memory
from zoo_harness.compute.device import choose_device
from zoo_harness.compute.distributed import ALONE, Processes


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
    with pytest.raises(UsageError, match="--device"):
        choose_device(name)


@pytest.mark.parametrize(
    ("gpus", "name", "processes"),
    [
        (0, "cuda", ALONE),
        (0, "cuda:1", ALONE),
        (2, "cuda:2", ALONE),
        (2, "cuda:0", Processes(count=2, local_count=2)),
        (2, "cuda", Processes(count=3, local_count=3)),
    ],
    indirect=["gpus"],
)
def test_a_device_that_is_not_available(gpus: int, name: str, processes: Processes) -> None:
    with pytest.raises(UsageError) as caught:
        choose_device(name, processes)
    assert (caught.value.code, caught.value.facts["given"]) == ("device-unavailable", name)


@pytest.mark.parametrize("gpus", [2], indirect=True)
@pytest.mark.parametrize(("name", "expected"), [("cpu", "cpu"), ("auto", "cuda:1"), ("cuda", "cuda:1")])
def test_each_process_takes_its_own_gpu(gpus: int, name: str, expected: str) -> None:
    processes = Processes(rank=1, count=2, local_rank=1, local_count=2)
    assert choose_device(name, processes) == torch.device(expected)


def test_memory_is_kept_only_where_there_is_a_glibc(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_library(_name: str) -> None:
        raise OSError("libc.so.6: cannot open shared object file")

    monkeypatch.setattr("ctypes.CDLL", no_library)
    assert keep_freed_memory() is False
