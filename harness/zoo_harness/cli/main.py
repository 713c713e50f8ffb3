"""Run the ``zoo`` command, and print an error as one line."""

from __future__ import annotations

import json
import os
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any


def main(arguments: Sequence[str] | None = None) -> None:
    """Run ``zoo`` and exit with status 0 (done), 1 (failed), 2 (wrong usage), 130 (interrupted) or 143 (terminated)."""
    from zoo_harness.cli.streams import guard_streams

    guard_streams()
    sys.exit(run(sys.argv[1:] if arguments is None else list(arguments)))


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit status; with ``--debug`` raise errors instead of printing them.

    If the program that reads the output, such as ``head``, ends before the command, the status is also 0.
    """
    from typer.exceptions import TyperException

    from zoo.errors import ZooError
    from zoo_harness.cli.app import command
    from zoo_harness.cli.streams import discard_output, print_any_character, reader_has_ended
    from zoo_harness.util.invocation import invoked_as

    print_any_character()
    quiet = bool({"--quiet", "-q"} & set(arguments))
    try:
        with invoked_as(("zoo", *arguments)), _quiet_libraries(all_of_them=quiet):
            status = command()(args=list(arguments), prog_name="zoo", standalone_mode=False)
        sys.stdout.flush()
    except (ZooError, TyperException, OSError, MemoryError, SystemExit) as error:
        # Typer exits if the pipe is broken. That is no error: a reader such as head has read all it needs.
        ended = isinstance(error, BrokenPipeError | SystemExit) and reader_has_ended()
        if ended or isinstance(error, OSError):  # stdout may have failed, and then its last flush would fail again
            discard_output()
        if ended:
            return 0
        if isinstance(error, SystemExit) or "--debug" in arguments:
            raise
        _report(error, as_json="--json" in arguments)
        return error.exit_code if isinstance(error, ZooError | TyperException) else 1
    return status if isinstance(status, int) else 0


@contextmanager
def _quiet_libraries(*, all_of_them: bool) -> Iterator[None]:
    """Suppress all warnings and progress bars of other libraries, or only Pillow's warning about large images."""
    # The libraries read these variables when they are imported.
    bars = {f"HF_{library}_DISABLE_PROGRESS_BARS": "1" for library in ("DATASETS", "HUB")}
    before = {name: os.environ.get(name) for name in bars}
    with warnings.catch_warnings():
        if all_of_them:
            warnings.simplefilter("ignore")
            os.environ.update(bars)
        else:  # zoo accepts images of any size
            warnings.filterwarnings("ignore", message="Image size .* exceeds limit")
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)


def _report(error: Exception, *, as_json: bool) -> None:
    if type(error).__name__ == "NoArgsIsHelpError":  # no command is given, and the message is the help page
        sys.stderr.write(f"{error}\n")
        return
    from zoo.text import one_line

    message = one_line(_message(error))  # an escape sequence quoted from a stranger's file must not reach the terminal
    rank, wrong_usage = _rank(), getattr(error, "exit_code", 1) == 2
    if rank and wrong_usage:
        time.sleep(1)  # torchrun ends all processes when one exits, and the first process must report the error before
        return
    if rank:
        message = f"process {rank}: {message}"
    if as_json:
        code = getattr(error, "code", "usage" if wrong_usage else "failed")
        line = json.dumps({"error": message, "kind": type(error).__name__, "code": code})
    else:
        line = f"error: {message}"
    sys.stderr.write(line + "\n")


def _rank() -> int:
    """Return the rank of this process among the processes that torchrun started, or 0 without torchrun."""
    from zoo.errors import UsageError
    from zoo_harness.compute.distributed import Processes

    try:
        return Processes.launched().rank
    except UsageError:
        return 0


def _message(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    if hasattr(error, "format_message"):
        return _typer_message(error)
    return str(error) or type(error).__name__


def _typer_message(error: Any) -> str:
    """Return the message of Typer's error with the given value and the help page of the command.

    Typer's own message leaves out the value that pydantic could not convert.
    """
    message: str = error.format_message().removesuffix(".")
    if hasattr(error.__context__, "errors"):
        from zoo_harness.records.option_checks import expectation

        fault = error.__context__.errors()[0]
        message = f"{error.param.opts[0]} {fault['input']!r} is wrong: {expectation(fault['msg'])}"
    command = "" if message.endswith("?") or error.ctx is None else f"; try {error.ctx.command_path} --help"
    return f"{message}{command}"
