"""Products in full precision, whatever the caller has set."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch

from zoo.errors import UsageError, check_choice
from zoo_harness.records.option_checks import PRECISIONS


def check_precision(precision: str, device: torch.device) -> str:
    """The precision, if that device computes in it: ``bf16`` is for CUDA.

    >>> check_precision("fp32", torch.device("cpu"))
    'fp32'
    """
    check_choice("--precision", precision, PRECISIONS)
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


@contextmanager
def full_precision(device: torch.device, setting: str = "highest") -> Iterator[None]:
    """Rule out TF32, bfloat16 and autocast inside the block; afterwards the settings are what they were.

    With the setting ``"medium"`` float32 products may be computed in bfloat16, for numbers that fit into it.

    >>> with torch.autocast("cpu"), full_precision(torch.device("cpu")):
    ...     (torch.ones(1, 1) @ torch.ones(1, 1)).dtype
    torch.float32
    """
    backends: Any = torch.backends
    # Before torch 2.9 there is one setting for all; since then it sets a switch of each backend too.
    switches = (backends.cuda.matmul, backends.mkldnn.matmul) if hasattr(backends.mkldnn, "matmul") else ()
    before = [switch.fp32_precision for switch in switches]
    former = "highest"
    with suppress(RuntimeError):  # raised where the user set a switch to something else than the setting
        former = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision(setting)
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(former)
        for switch, precision in zip(switches, before, strict=True):
            switch.fp32_precision = precision
