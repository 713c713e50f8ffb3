"""Guard the standard streams: closed ones, pipes whose reader has ended, full disks, terminals of other encodings."""

from __future__ import annotations

import io
import os
import select
import sys
from contextlib import suppress


def guard_streams() -> None:
    """Make the standard streams safe to write to, for the rest of this process.

    A stream that the caller closed (``>&-``) becomes the null device; else the next file that is opened would get its
    number. Errors of writing to stderr are ignored, because a run is worth more than its messages.
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
    """A file whose failed writes count as done."""

    def write(self, data: bytes) -> int:  # type: ignore[override]
        """Write what can be written."""
        try:
            return super().write(data) or 0
        except OSError:
            return len(data)


def print_any_character() -> None:
    """Let stdout and stderr print every text: an ASCII terminal gets question marks in place of a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def reader_has_ended() -> bool:
    """Whether stdout is a pipe that nobody reads any more."""
    with suppress(OSError, ValueError):  # not a file, such as a stream of a test
        poll = select.poll()
        poll.register(sys.stdout.fileno(), 0)
        return any(events & (select.POLLERR | select.POLLHUP) for _number, events in poll.poll(0))
    return False


def discard_output() -> None:
    """Drop what stdout still holds, and everything that is written to it from now on."""
    with suppress(OSError, ValueError):  # not a file, such as a stream of a test
        _open_null_device(sys.stdout.fileno())


def _open_null_device(number: int) -> None:
    opened = os.open(os.devnull, os.O_RDWR)
    if opened != number:
        os.dup2(opened, number)
        os.close(opened)
