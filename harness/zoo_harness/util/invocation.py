"""The words of the command line that runs, for the record of a run; ``None`` in a Python program."""

from __future__ import annotations

from contextvars import ContextVar

COMMAND: ContextVar[tuple[str, ...] | None] = ContextVar("command", default=None)
