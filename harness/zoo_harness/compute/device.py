"""The device a run uses, and the precision it computes in."""

from __future__ import annotations

import torch

from zoo.errors import UsageError
from zoo_harness.compute.distributed import ALONE, Processes
from zoo_harness.records.option_checks import check_device_name


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
    if processes.is_distributed and name != "cuda":
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
