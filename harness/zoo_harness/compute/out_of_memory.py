"""Retry a computation in smaller pieces if the device runs out of memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch

from zoo.errors import DeviceMemoryError

Result = TypeVar("Result")

_ADVICE = "lower --batch-size, cache outputs off the device (--cache host or disk), or end other programs on the device"


def within_device_memory(work: Callable[[int], Result], budget: int, least: int, what: str) -> Result:
    """Return ``work(budget)``; after each out-of-memory error, retry with half the budget.

    ``budget`` and ``least`` are in bytes. Raises :class:`DeviceMemoryError` if ``least`` bytes are not enough; the
    message contains ``what``.

    >>> within_device_memory(lambda budget: budget // 8, 4096, 1024, "a doctest")
    512
    """
    size = budget
    while True:
        try:
            return work(size)
        except torch.OutOfMemoryError as error:
            reason = _first_line(error)
        torch.cuda.empty_cache()  # after the except block, because the caught error keeps tensors alive
        if size <= least:
            break
        size = max(size // 2, least)
    raise DeviceMemoryError(
        f"{what} ran out of device memory, although it used the smallest working size, {_mebibytes(size)}"
        f" (memory_budget, or --memory, allows {_mebibytes(budget)}): {reason}; "
        "free memory on the device, or move the features to the CPU (features.cpu())",
        code="device-memory",
        budget=budget,
    )


def in_batches_that_fit(work: Callable[[int, int], None], start: int, stop: int, size: int) -> int:
    """Call ``work(first, last)`` for batches of ``size`` images; halve the size after each out-of-memory error.

    The batches cover the indices from ``start`` to ``stop``. Returns the batch size that fits. Raises
    :class:`DeviceMemoryError` if a single image does not fit.

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
            reason = _first_line(error)
        else:
            start = last
            continue
        torch.cuda.empty_cache()
        if last - start == 1:
            raise DeviceMemoryError(
                f"no room on the device for one image: {reason}; {_ADVICE}", code="device-memory", batch_size=1
            )
        size = (last - start) // 2
    return size


@contextmanager
def out_of_memory_advice(batch_size: int) -> Iterator[None]:
    """Convert out-of-memory errors in the ``with`` block to :class:`DeviceMemoryError` with advice for the user."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise DeviceMemoryError(
            f"the device ran out of memory with batches of {batch_size} images: {_first_line(error)}; {_ADVICE}",
            code="device-memory",
            batch_size=batch_size,
        ) from error


def _first_line(error: torch.OutOfMemoryError) -> str:
    return next(iter(str(error).splitlines()), "no reason given")


def _mebibytes(size: int) -> str:
    return f"{size / 2**20:,.1f} MiB"
