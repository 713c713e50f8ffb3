"""Lets a few writes that belong together finish before Ctrl-C is heard."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType


@contextlib.contextmanager
def held_back() -> Iterator[None]:
    """Hold an interrupt back until the body is done, then raise it.

    Only the main thread gets interrupts, so elsewhere there is nothing to do.

    >>> with held_back():
    ...     "written whole"
    'written whole'
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    pending: list[tuple[int, FrameType | None]] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: pending.append((number, frame)))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if pending and callable(before):
        before(*pending[-1])
