"""Change the global state of torch for one computation, and restore the caller's state afterwards."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import Any

import numpy as np
import torch

from zoo.errors import check_choice
from zoo_harness.records.option_checks import PRECISIONS, precision_needs_gpu


def check_precision(precision: str, device: torch.device) -> str:
    """Return the precision if the device supports it; ``bf16`` needs a CUDA device.

    >>> check_precision("fp32", torch.device("cpu"))
    'fp32'
    """
    check_choice("--precision", precision, PRECISIONS)
    if precision == "bf16" and device.type != "cuda":
        raise precision_needs_gpu(device.type)
    return precision


def autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """Enable automatic mixed precision for ``bf16``; change nothing for ``fp32``."""
    return torch.autocast(device.type, dtype=torch.bfloat16) if precision == "bf16" else nullcontext()


@contextmanager
def _determinism_restored() -> Iterator[None]:
    """Restore torch's and cuDNN's switches for deterministic algorithms after the ``with`` block."""
    enabled = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    benchmark = torch.backends.cudnn.benchmark
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(enabled, warn_only=warn_only)
        torch.backends.cudnn.benchmark = benchmark


@contextmanager
def repeatable(wanted: bool) -> Iterator[None]:
    """If ``wanted`` is true, allow torch only deterministic algorithms in the ``with`` block.

    Enter this context before any computation on the GPU. benchmarks/gpu.py measures how much slower training becomes.
    """
    with _determinism_restored():
        if wanted:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # required by cuBLAS
            torch.use_deterministic_algorithms(True)
            torch.backends.cudnn.benchmark = False
        yield


@contextmanager
def isolated() -> Iterator[None]:
    """Run the ``with`` block with gradients and float32 as torch's default dtype; then restore the caller's state.

    These states are restored: the random generators of torch, every GPU, numpy and Python; torch's default dtype and
    gradient mode; the deterministic switches of torch and cuDNN; and the number of threads.

    >>> before = torch.get_rng_state()
    >>> with torch.no_grad(), isolated():
    ...     _ = torch.manual_seed(1), torch.rand(1)
    ...     torch.is_grad_enabled()
    True
    >>> torch.equal(before, torch.get_rng_state())
    True
    """
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    python, legacy = random.getstate(), np.random.get_state()
    dtype, threads = torch.get_default_dtype(), torch.get_num_threads()
    try:
        with _determinism_restored(), torch.random.fork_rng(devices), torch.inference_mode(False), torch.enable_grad():
            torch.set_default_dtype(torch.float32)
            yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy)
        torch.set_default_dtype(dtype)
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)


@contextmanager
def full_precision(device: torch.device, setting: str = "highest") -> Iterator[None]:
    """Disable TF32, bfloat16 and autocast in the ``with`` block, and restore the settings afterwards.

    With ``setting="medium"``, torch may compute float32 products in bfloat16; use ``"medium"`` only if bfloat16
    represents the factors exactly.

    >>> with torch.autocast("cpu"), full_precision(torch.device("cpu")):
    ...     (torch.ones(1, 1) @ torch.ones(1, 1)).dtype
    torch.float32
    """
    backends: Any = torch.backends
    # Before torch 2.9, one setting applies to all backends. Since 2.9, the setting also changes each backend's switch.
    switches = (backends.cuda.matmul, backends.mkldnn.matmul) if hasattr(backends.mkldnn, "matmul") else ()
    before = [switch.fp32_precision for switch in switches]
    former = "highest"
    with suppress(RuntimeError):  # raised if the user set a backend's switch unlike the global setting
        former = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision(setting)
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(former)
        for switch, precision in zip(switches, before, strict=True):
            switch.fp32_precision = precision
