"""The device a run uses, and the precision it computes in."""

from __future__ import annotations

import contextlib
import re

import torch

from zoo.errors import UsageError, ZooError, one_of

PRECISIONS = ("fp32", "bf16")


def choose_device(name: str) -> torch.device:
    """The device that ``auto``, ``cpu``, ``cuda`` or ``cuda:N`` means on this machine.

    >>> choose_device("cpu")
    device(type='cpu')
    """
    if name == "auto":
        return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    if name == "cpu":
        return torch.device("cpu")
    match = re.fullmatch(r"cuda(?::(\d{1,3}))?", name)
    if match is None:
        raise UsageError(f"--device {name!r} is not one of auto, cpu, cuda, cuda:0, cuda:1, ...")
    if not torch.cuda.is_available():
        raise ZooError(f"--device {name!r}: this machine has no usable CUDA device; use --device cpu or auto")
    index = int(match.group(1) or 0)
    if index >= torch.cuda.device_count():
        raise ZooError(
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
