"""The device of a run."""

from __future__ import annotations

import torch

from zoo_harness.compute.distributed import ALONE, Processes
from zoo_harness.records.option_checks import NO_GPU, check_device_name, no_such_device


def choose_device(name: str, processes: Processes = ALONE) -> torch.device:
    """Return the device that ``auto``, ``cpu``, ``cuda`` or ``cuda:N`` names; each process gets its own GPU.

    Raises :class:`~zoo.errors.UsageError` for another name, and for a device that this machine does not have.

    >>> choose_device("cpu")
    device(type='cpu')
    """
    check_device_name(name)
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "cpu" or (name == "auto" and not gpus):
        return torch.device("cpu")
    fault = None
    if processes.is_distributed and name not in ("auto", "cuda"):
        fault = "each process needs a GPU of its own; use --device cuda"
    elif not gpus:
        fault = NO_GPU
    elif processes.local_count > gpus:
        fault = f"{processes.local_count} processes need a GPU each, this machine has {gpus}; start {gpus}, or use cpu"
    index = int(name.partition(":")[2] or processes.local_rank)
    if fault is None and index >= gpus:
        fault = f"this machine has {gpus} CUDA device(s), numbered from cuda:0"
    if fault:
        raise no_such_device(name, fault)
    return torch.device("cuda", index)
