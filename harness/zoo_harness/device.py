"""The device a run uses, and the precision it computes in."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import torch

from zoo.errors import UsageError, one_of
from zoo_harness.choices import PRECISIONS, check_device_name
from zoo_harness.processes import ALONE, Processes


def choose_device(name: str, processes: Processes = ALONE) -> torch.device:
    """The device that ``auto``, ``cpu``, ``cuda`` or ``cuda:N`` means on this machine, a GPU for each process.

    Raises :class:`~zoo.errors.UsageError` for another name, and for a device that this machine has not.

    >>> choose_device("cpu")
    device(type='cpu')
    """
    check_device_name(name)
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cpu":
        return torch.device("cpu")
    if processes.several and name != "cuda":
        raise UsageError(f"--device {name!r}: of several processes each takes a GPU of its own; use --device cuda")
    if not torch.cuda.is_available():
        raise UsageError(f"--device {name!r}: this machine has no usable CUDA device; use --device cpu or auto")
    index = int(name.partition(":")[2] or processes.local_rank)
    if processes.local_count > torch.cuda.device_count():
        raise UsageError(
            f"{processes.local_count} processes, and this machine has {torch.cuda.device_count()} CUDA device(s); "
            "start one process for each, or use --device cpu"
        )
    if index >= torch.cuda.device_count():
        raise UsageError(
            f"--device {name!r}: this machine has {torch.cuda.device_count()} CUDA device(s), from cuda:0 on"
        )
    return torch.device("cuda", index)


def check_precision(precision: str, device: torch.device) -> str:
    """The precision, if that device computes in it: ``bf16`` is for CUDA.

    >>> check_precision("fp32", torch.device("cpu"))
    'fp32'
    """
    one_of("--precision", precision, PRECISIONS)
    if precision == "bf16" and device.type != "cuda":
        raise UsageError(f"--precision bf16 needs a CUDA device, this run is on {device.type}; use fp32")
    return precision


def autocast(precision: str, device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Automatic mixed precision for ``bf16``, nothing for ``fp32``."""
    if precision == "bf16":
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return contextlib.nullcontext()


@contextlib.contextmanager
def repeatable(wanted: bool) -> Iterator[None]:
    """Have torch take only algorithms that give the same bits every time, if ``wanted``; its setting comes back.

    It must be entered before anything runs on the GPU. benchmarks/gpu.py times what it costs there.
    """
    if not wanted:
        yield
        return
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    benchmark = torch.backends.cudnn.benchmark
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what cuBLAS asks for
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        torch.backends.cudnn.benchmark = benchmark
