"""Whether kernels of our own can run on a device: one that cannot costs time there, never a result."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec

import torch


def can_run(device: torch.device) -> bool:
    """Whether kernels can be compiled for the device: CUDA with bfloat16 units, and Triton installed.

    >>> can_run(torch.device("cpu"))
    False
    """
    if device.type != "cuda" or torch.version.cuda is None or find_spec("triton") is None:
        return False
    return torch.cuda.get_device_capability(device) >= (8, 0)


def proves_itself(kernel: str, device: torch.device, example: Callable[[], bool]) -> bool:
    """Whether a kernel compiles and gets an example right; else a warning says why torch does its work."""
    try:
        right, reason = example(), "it gives wrong results"
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # a compiler has many ways to fail, and none of them may cost the user the result
        right, reason = False, f"{type(error).__name__}: {error}"
    if not right:
        message = (
            f"the search for neighbours does without its kernel for {kernel} on {device}, and is slower ({reason})"
        )
        warnings.warn(message, RuntimeWarning, stacklevel=2)
    return right


def launching_on(device: torch.device) -> AbstractContextManager[object]:
    """Make the device the one that Triton launches on, which is not always that of the arguments."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()
