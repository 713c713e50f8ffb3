"""Run the code of plugins safely, and name on stderr each plugin that prints, exits the process or takes long.

Output of a plugin goes to stderr, because stdout is for the results of commands. A crash of the Python interpreter, or
a signal that no program can catch, still ends the process without a message.
"""

from __future__ import annotations

import io
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, NoReturn, TextIO

from zoo.errors import PluginError
from zoo.text import one_line

SECONDS_BEFORE_NOTICE = 5.0
_IMPORTS = threading.RLock()  # locks, because two threads may load the plugins simultaneously


@dataclass
class Guard:
    """Whether Ctrl-C or SIGTERM ``interrupted`` the import of a plugin from outside the plugin."""

    interrupted: bool = False


@contextmanager
def guarded_import(origin: str) -> Iterator[Guard]:
    """Run the import and the hooks of a plugin; ``origin`` names the plugin in messages.

    Everything that the plugin prints goes to stderr, and each line begins with ``origin``. After some seconds zoo
    prints that it is waiting for the plugin. Calls of ``os._exit`` and ``os.abort`` raise
    :class:`~zoo.errors.PluginError`.
    """
    guard = Guard()
    output = _collecting_output_of_files(origin), printing_to_stderr(origin)
    with _IMPORTS, output[0], output[1], _notice(origin), _without_exits(), _noting_signals(guard):
        yield guard


@contextmanager
def guarded_call(origin: str) -> Iterator[None]:
    """Run a function of a plugin that may take long, and redirect its output to stderr.

    Raises :class:`~zoo.errors.PluginError` if the function tries to exit the process.

    >>> with guarded_call("loader of dataset 'blobs'"):
    ...     sys.exit(0)
    Traceback (most recent call last):
    zoo.errors.PluginError: loader of dataset 'blobs': SystemExit: 0
    """
    try:
        with printing_to_stderr(origin):
            yield
    except (SystemExit, GeneratorExit) as error:
        message = f"{origin}: {type(error).__name__}: {one_line(error)}"
        raise PluginError(message, code="plugin-exit") from error


@contextmanager
def printing_to_stderr(origin: str) -> Iterator[None]:
    """Redirect to stderr everything that this thread prints to stdout; each line begins with ``origin``."""
    before = _STDOUT.enter(origin)
    try:
        yield
    finally:
        _STDOUT.leave(before)


class _Redirection:
    """A replacement for ``sys.stdout`` that is active while any thread runs the code of a plugin."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._threads = threading.local()
        self._users = 0
        self._stream: TextIO | None = None
        self._stdout: TextIO = sys.stdout

    def enter(self, origin: str) -> str | None:
        """Write ``origin`` before each line that this thread prints, and return the previous label."""
        before: str | None = getattr(self._threads, "origin", None)
        self._threads.origin = origin
        with self._lock:
            if not self._users:
                raw = io.BufferedWriter(_Labelled(self, origin))
                self._stream = io.TextIOWrapper(raw, "utf-8", "backslashreplace", line_buffering=True)
                self._stdout, sys.stdout = sys.stdout, self._stream
            self._users += 1
        return before

    def leave(self, before: str | None) -> None:
        """Name ``before`` as the origin of this thread's output; the last thread to leave restores ``sys.stdout``."""
        with self._lock:
            if self._stream is not None:
                with suppress(ValueError):  # the plugin closed the stream
                    self._stream.flush()
            self._threads.origin = before
            self._users -= 1
            if not self._users:
                if sys.stdout is self._stream:
                    sys.stdout = self._stdout
                self._stream = None

    def write(self, content: str, origin: str) -> None:
        """Write a plugin's lines to stderr, each after its label; write the output of other threads to stdout."""
        own: str | None = getattr(self._threads, "origin", None)
        if own is None and self._users:
            self._stdout.write(content)
            return
        for line in content.splitlines():
            _say(f"{own or origin} prints: {line}")


class _Labelled(io.RawIOBase):
    """The output stream of a plugin, which may keep using the stream after its import, such as in a logging handler."""

    def __init__(self, redirection: _Redirection, origin: str) -> None:
        self._redirection = redirection
        self._origin = origin

    def writable(self) -> bool:
        """Return true, as :class:`io.RawIOBase` requires of a stream that can be written."""
        return True

    def write(self, data: Any) -> int:
        """Decode the bytes as UTF-8 and write the lines with the label of the plugin."""
        content = bytes(data)
        self._redirection.write(content.decode("utf-8", "backslashreplace"), self._origin)
        return len(content)


_STDOUT = _Redirection()


@contextmanager
def _collecting_output_of_files(origin: str) -> Iterator[None]:
    """Collect what C code and subprocesses write to file descriptor 1 (stdout), and print it to stderr afterwards."""
    import tempfile

    try:
        sys.stdout.flush()
        collected, kept = tempfile.TemporaryFile(), os.dup(1)  # noqa: SIM115 - closed below
    except (OSError, ValueError, AttributeError):  # stdout is closed, or no temporary file can be created
        yield
        return
    try:
        os.dup2(collected.fileno(), 1)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        with collected:
            collected.seek(0)
            for line in collected.read(2**20).decode("utf-8", "backslashreplace").splitlines():
                _say(f"{origin} prints: {line}")


@contextmanager
def _notice(origin: str) -> Iterator[None]:
    message = f"waiting for {origin}, whose import takes long; Ctrl-C ends the command"
    timer = threading.Timer(SECONDS_BEFORE_NOTICE, _say, [message])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@contextmanager
def _without_exits() -> Iterator[None]:
    """Make ``os._exit`` and ``os.abort`` raise an error; in a child process both functions still end the process."""
    process, originals = os.getpid(), {name: getattr(os, name) for name in ("_exit", "abort")}

    def refusing(name: str) -> Any:
        def refuse(*given: int) -> NoReturn:
            if os.getpid() != process:
                originals[name](*given)
            raise PluginError(f"os.{name}({', '.join(map(str, given))}) would end the process", code="plugin-exit")

        return refuse

    for name in originals:
        setattr(os, name, refusing(name))
    try:
        yield
    finally:
        for name, original in originals.items():
            setattr(os, name, original)


@contextmanager
def _noting_signals(guard: Guard) -> Iterator[None]:
    """Record Ctrl-C and SIGTERM, because a plugin may raise KeyboardInterrupt or SystemExit without a signal."""
    if threading.current_thread() is not threading.main_thread():  # only the main thread receives signals
        yield
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    handlers = {number: handler for number in numbers if callable(handler := signal.getsignal(number))}

    def note(number: int, frame: Any) -> None:
        guard.interrupted = True
        handlers[signal.Signals(number)](number, frame)

    for number in handlers:
        signal.signal(number, note)
    try:
        yield
    finally:
        for number, handler in handlers.items():
            if signal.getsignal(number) is note:
                signal.signal(number, handler)


def _say(line: str) -> None:
    with suppress(OSError, ValueError, AttributeError):  # stderr is closed
        sys.stderr.write(f"{one_line(line)}\n")
        sys.stderr.flush()
