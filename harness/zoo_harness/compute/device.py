"""Choose the torch device of a run from the name that the user gave."""

from __future__ import annotations

import torch

from zoo_harness.compute.distributed import ALONE, Processes
from zoo_harness.records.option_checks import NO_GPU, check_device_name, no_such_device


def choose_device(name: str, processes: Processes = ALONE) -> torch.device:
    """Return the device that ``auto``, ``cpu``, ``cuda`` or ``cuda:N`` names; each process gets a different GPU.

    Raises :class:`~zoo.errors.UsageError` for a wrong name, and for a device that does not exist on this machine.

    >>> choose_device("cpu")
    device(type='cpu')
    """
    check_device_name(name)
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "cpu" or (name == "auto" and not gpus):
        return torch.device("cpu")
    fault = None
    if processes.is_distributed and name not in ("auto", "cuda"):
        fault = "each process needs its own GPU; use --device cuda"
    elif not gpus:
        fault = NO_GPU
    elif processes.local_count > gpus:
        fault = f"{processes.local_count} processes need a GPU each; this machine has {gpus}; start {gpus}, or use cpu"
    index = int(name.partition(":")[2] or processes.local_rank)
    if fault is None and index >= gpus:
        fault = f"this machine has {gpus} CUDA device(s), numbered from cuda:0"
    if fault:
        raise no_such_device(name, fault)
    return torch.device("cuda", index)
