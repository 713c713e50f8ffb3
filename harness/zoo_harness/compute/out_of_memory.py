"""Work that is done in smaller pieces where a device runs out of memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
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


def in_batches_that_fit(work: Callable[[int, int], None], start: int, stop: int, size: int) -> int:
    """Call ``work(first, last)`` for batches from ``start`` to ``stop``, half as large each time memory runs out.

    Returns the size that did. Raises :class:`DeviceMemoryError` where there is no room for one alone.

    >>> in_batches_that_fit(print, 0, 5, 2)
    0 2
    2 4
    4 5
    2
    """
    while start < stop:
        last = min(start + size, stop)
        try:
            work(start, last)
        except torch.OutOfMemoryError as error:
            reason = str(error)
        else:
            start = last
            continue
        torch.cuda.empty_cache()  # as above
        if size == 1:
            raise DeviceMemoryError(f"no room on the device for one image: {_first_line(reason)}; {_ADVICE}")
        size = max(1, min(size, last - start) // 2)
    return size


@contextmanager
def out_of_memory_advice(batch_size: int) -> Iterator[None]:
    """Say what to do where a run's batches of so many images need more memory than the device has."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        told = f"the device's memory does not suffice for batches of {batch_size}: {_first_line(str(error))}; {_ADVICE}"
        raise DeviceMemoryError(told) from error


_ADVICE = "lower --batch-size, keep less there (--cache host or disk), or end what else uses the device"


def _first_line(reason: str) -> str:
    return reason.splitlines()[0] if reason else "no reason given"


def _message(what: str, budget: int, smallest: int, reason: str) -> str:
    tried = f"{_mebibytes(smallest)} of the device's memory to work in, the least it can do with"
    if smallest < budget:
        tried += f" (memory_budget, or --memory, allowed {_mebibytes(budget)}, and less was tried step by step)"
    return (
        f"{what} ran out of memory with {tried}: {_first_line(reason)}; "
        "free memory on the device, or move the features to the CPU (features.cpu())"
    )


def _mebibytes(size: int) -> str:
    return f"{size / 2**20:,.1f} MiB"
