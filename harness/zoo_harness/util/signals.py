"""Handle Ctrl-C and SIGTERM: both end a run in order, after writes that belong together are complete."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType


class Terminated(KeyboardInterrupt):
    """Raised by SIGTERM inside :func:`raise_on_sigterm`, so that code for Ctrl-C handles it too."""

    exit_code = 128 + signal.SIGTERM


@contextlib.contextmanager
def raise_on_sigterm() -> Iterator[None]:
    """Have SIGTERM raise :class:`Terminated` in the body, unless the process ignores SIGTERM."""

    def terminate(_number: int, _frame: FrameType | None) -> None:
        raise Terminated

    if signal.getsignal(signal.SIGTERM) == signal.SIG_IGN:
        yield
    else:
        with _handling(terminate, signal.SIGTERM):
            yield


@contextlib.contextmanager
def defer_signals() -> Iterator[None]:
    """Deliver Ctrl-C and SIGTERM only after the body.

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
    """Install a handler while the body runs; do nothing outside the main thread, which alone receives signals."""
    with contextlib.ExitStack() as formers:
        if threading.current_thread() is threading.main_thread():
            for number in signals:
                # A handler that Python did not install reads as None and could not be restored.
                if (former := signal.getsignal(number)) is not None:
                    formers.callback(signal.signal, number, former)
                    signal.signal(number, handler)
        yield
