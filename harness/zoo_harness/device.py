"""The device a run uses, and the precision it computes in."""

from __future__ import annotations

import contextlib

import torch

from zoo.errors import UsageError, one_of
from zoo_harness.choices import PRECISIONS, check_device_name


def choose_device(name: str) -> torch.device:
    """The device that ``auto``, ``cpu``, ``cuda`` or ``cuda:N`` means on this machine.

    Raises :class:`~zoo.errors.UsageError` for another name, and for a device that this machine has not.

    >>> choose_device("cpu")
    device(type='cpu')
    """
    check_device_name(name)
    if name == "auto":
        return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    if name == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise UsageError(f"--device {name!r}: this machine has no usable CUDA device; use --device cpu or auto")
    index = int(name.partition(":")[2] or 0)
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
