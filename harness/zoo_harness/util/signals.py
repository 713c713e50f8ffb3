"""Ctrl-C and SIGTERM: both end a run in order, and a few writes that belong together finish before either is heard."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

_HELD = (signal.SIGINT, signal.SIGTERM)


class Terminated(KeyboardInterrupt):
    """What SIGTERM raises while :func:`raise_on_sigterm` is active: whatever Ctrl-C ends in order, it ends too."""

    exit_code = 128 + signal.SIGTERM


@contextlib.contextmanager
def raise_on_sigterm() -> Iterator[None]:
    """Have SIGTERM raise :class:`Terminated` in the body; the former handler comes back afterwards.

    Where SIGTERM is ignored it stays so. Only the main thread gets signals, so elsewhere there is nothing to do.

    >>> with raise_on_sigterm():
    ...     "ends in order"
    'ends in order'
    """
    before = signal.getsignal(signal.SIGTERM)
    if threading.current_thread() is not threading.main_thread() or before in (signal.SIG_IGN, None):
        yield
        return
    signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def defer_signals() -> Iterator[None]:
    """Hold Ctrl-C and SIGTERM back until the body is done, then let them happen.

    Only the main thread gets signals, so elsewhere there is nothing to do.

    >>> with defer_signals():
    ...     "written whole"
    'written whole'
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    pending: list[int] = []

    def keep(number: int, _frame: FrameType | None) -> None:
        pending.append(number)

    # One that Python did not install reads as None and could not be put back.
    before = {number: handler for number in _HELD if (handler := signal.getsignal(number)) is not None}
    for number in before:
        signal.signal(number, keep)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if pending:
        signal.raise_signal(pending[-1])


def _terminate(_number: int, _frame: FrameType | None) -> None:
    raise Terminated
