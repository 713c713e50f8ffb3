"""The command line that this program was started with, for the record of a run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

_COMMAND: ContextVar[tuple[str, ...] | None] = ContextVar("command", default=None)


def current_command() -> tuple[str, ...] | None:
    """Return the words of the command line, or ``None`` in a Python program."""
    return _COMMAND.get()


@contextmanager
def invoked_as(words: Sequence[str]) -> Iterator[None]:
    """Set the command line that runs in the body record.

    >>> with invoked_as(["zoo", "list"]):
    ...     current_command()
    ('zoo', 'list')
    """
    token = _COMMAND.set(tuple(words))
    try:
        yield
    finally:
        _COMMAND.reset(token)
