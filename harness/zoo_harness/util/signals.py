"""Handle Ctrl-C and SIGTERM: both end a run cleanly, after the current group of writes is complete."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType


class Terminated(KeyboardInterrupt):
    """Raised by SIGTERM within :func:`raise_on_sigterm`; code that handles Ctrl-C also handles this exception."""

    exit_code = 128 + signal.SIGTERM


@contextlib.contextmanager
def raise_on_sigterm() -> Iterator[None]:
    """Make SIGTERM raise :class:`Terminated` in the ``with`` block, unless the process ignores SIGTERM."""

    def terminate(_number: int, _frame: FrameType | None) -> None:
        raise Terminated

    if signal.getsignal(signal.SIGTERM) == signal.SIG_IGN:
        yield
    else:
        with _handling(terminate, signal.SIGTERM):
            yield


@contextlib.contextmanager
def defer_signals() -> Iterator[None]:
    """Delay Ctrl-C and SIGTERM until the ``with`` block has finished.

    >>> with defer_signals():
    ...     "written completely"
    'written completely'
    """
    pending: list[int] = []
    with _handling(lambda number, _frame: pending.append(number), signal.SIGINT, signal.SIGTERM):
        yield
    if pending:
        signal.raise_signal(pending[-1])


@contextlib.contextmanager
def _handling(handler: Callable[[int, FrameType | None], None], *signals: signal.Signals) -> Iterator[None]:
    """Install a signal handler for the ``with`` block; in other threads than the main thread, do nothing."""
    with contextlib.ExitStack() as formers:
        if threading.current_thread() is threading.main_thread():
            for number in signals:
                # getsignal returns None for a handler that C code installed; Python could not restore such a handler.
                if (former := signal.getsignal(number)) is not None:
                    formers.callback(signal.signal, number, former)
                    signal.signal(number, handler)
        yield
