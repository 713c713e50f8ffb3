"""The command line that this program was started with, for the record of a run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

COMMAND: ContextVar[tuple[str, ...] | None] = ContextVar("command", default=None)  # None in a Python program


@contextmanager
def invoked_as(words: Sequence[str]) -> Iterator[None]:
    """Set the command line that runs in the body record."""
    token = COMMAND.set(tuple(words))
    try:
        yield
    finally:
        COMMAND.reset(token)
