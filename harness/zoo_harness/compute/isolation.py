"""Run a computation inside a program of somebody else: its global state is the same afterwards."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def isolated() -> Iterator[None]:
    """Compute with torch's own defaults in the body; afterwards the caller's global state is back.

    The state is: the generators of torch, of every GPU, of numpy and of Python; torch's default dtype and gradient
    mode; the deterministic switches and cuDNN's; the number of threads.

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
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    cudnn = torch.backends.cudnn.benchmark
    try:
        with torch.random.fork_rng(devices), torch.inference_mode(False), torch.enable_grad():
            torch.set_default_dtype(torch.float32)
            yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy)
        torch.set_default_dtype(dtype)
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
        torch.backends.cudnn.benchmark = cudnn
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
