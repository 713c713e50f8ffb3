"""Keep the command running if a standard stream is closed, full, unread, or a terminal without Unicode."""

from __future__ import annotations

import io
import os
import select
import sys
from contextlib import suppress


def guard_streams() -> None:
    """Make the standard streams safe to write to, for the rest of this process.

    A stream that the caller closed (``>&-``) becomes the null device. Otherwise the next file that zoo opens would get
    the number of the stream, and messages would be written to that file. Errors of writing to stderr are ignored,
    because a lost message must not end a run.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            _open_null_device(number)
            setattr(sys, name, open(number, "w" if number else "r", closefd=False))  # noqa: SIM115
    if isinstance(sys.stderr, io.TextIOWrapper):
        raw = _LossyFile(sys.stderr.fileno(), "w", closefd=False)
        encoding = sys.stderr.encoding
        sys.stderr = io.TextIOWrapper(io.BufferedWriter(raw), encoding, "backslashreplace", line_buffering=True)


class _LossyFile(io.FileIO):
    """A file that ignores errors of writing."""

    def write(self, data: bytes) -> int:  # type: ignore[override]
        """Write the data, and report them as written even if writing fails."""
        try:
            return super().write(data) or 0
        except OSError:
            return len(data)


def print_any_character() -> None:
    """Let stdout and stderr replace characters that the terminal's encoding lacks by ``?``, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def reader_has_ended() -> bool:
    """Return whether stdout is a pipe whose reader has closed it."""
    with suppress(OSError, ValueError):  # stdout is not a file, for example in a test
        poll = select.poll()
        poll.register(sys.stdout.fileno(), 0)
        return any(events & (select.POLLERR | select.POLLHUP) for _number, events in poll.poll(0))
    return False


def discard_output() -> None:
    """Discard the buffered text of stdout, and everything that is written to stdout afterwards."""
    with suppress(OSError, ValueError):  # stdout is not a file, for example in a test
        _open_null_device(sys.stdout.fileno())


def _open_null_device(number: int) -> None:
    opened = os.open(os.devnull, os.O_RDWR)
    if opened != number:
        os.dup2(opened, number)
        os.close(opened)
