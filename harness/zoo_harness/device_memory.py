"""Work that is done in smaller pieces where a device runs out of memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch

from zoo.errors import DeviceMemoryError

Result = TypeVar("Result")


def within_device_memory(work: Callable[[int], Result], budget: int, least: int, what: str) -> Result:
    """Return ``work(budget)``, with half the budget after each time that it ran out of the device's memory.

    ``budget``: bytes. Below ``least`` the work can be cut no smaller: then :class:`DeviceMemoryError` says ``what``
    there was no room for.

    >>> within_device_memory(lambda budget: budget // 8, 4096, 1024, "a doctest")
    512
    """
    smallest = budget
    while True:
        try:
            return work(smallest)
        except torch.OutOfMemoryError as error:
            reason = str(error)
        # Only here, where the error is gone, and with it all that the work held.
        torch.cuda.empty_cache()
        if smallest <= least:
            raise DeviceMemoryError(_message(what, budget, smallest, reason))
        smallest = max(smallest // 2, least)


def _message(what: str, budget: int, smallest: int, reason: str) -> str:
    tried = f"{_mebibytes(smallest)} of the device's memory to work in, the least it can do with"
    if smallest < budget:
        tried += f" (memory_budget, or --memory, allowed {_mebibytes(budget)}, and less was tried step by step)"
    return (
        f"{what} ran out of memory with {tried}: {reason.splitlines()[0] if reason else 'no reason given'}; "
        "free memory on the device, or move the features to the CPU (features.cpu())"
    )


def _mebibytes(size: int) -> str:
    return f"{size / 2**20:,.1f} MiB"
