"""Remember the command line of the running zoo command, so that run records can contain it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

COMMAND: ContextVar[tuple[str, ...] | None] = ContextVar("command", default=None)  # None if no zoo command is running


@contextmanager
def invoked_as(words: Sequence[str]) -> Iterator[None]:
    """Let every run that starts in the ``with`` block record ``words`` as its command line."""
    token = COMMAND.set(tuple(words))
    try:
        yield
    finally:
        COMMAND.reset(token)
