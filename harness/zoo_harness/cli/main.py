"""Run the ``zoo`` command, and report an error on one line."""

from __future__ import annotations

import io
import json
import os
import sys
import time
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> None:
    """Run ``zoo`` and exit with 0 done, 1 failed, 2 wrong usage, 130 interrupted or 143 terminated."""
    sys.exit(run(sys.argv[1:] if arguments is None else list(arguments)))


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit status; with ``--debug`` errors keep their traceback."""
    from typer.exceptions import TyperException

    from zoo.errors import ZooError
    from zoo_harness.cli.app import command
    from zoo_harness.util.invocation import invoked_as

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # an ASCII terminal gets question marks, no traceback
    try:
        with invoked_as(("zoo", *arguments)):
            status = command()(args=list(arguments), prog_name="zoo", standalone_mode=False)
    except BrokenPipeError:
        # The reader (head, less) has ended; Python's last flush needs a sink.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (ZooError, TyperException, OSError, MemoryError) as error:
        if "--debug" in arguments:
            raise
        _report(error, as_json="--json" in arguments)
        return error.exit_code if isinstance(error, ZooError | TyperException) else 1
    return status if isinstance(status, int) else 0


def _report(error: Exception, *, as_json: bool) -> None:
    if type(error).__name__ == "NoArgsIsHelpError":  # no command given: its message is the help page
        sys.stderr.write(f"{error}\n")
        return
    from zoo_harness.util.text import one_line

    message = one_line(_message(error))  # it may quote a stranger's file, which must not control the terminal
    rank, wrong_usage = _rank(), getattr(error, "exit_code", 1) == 2
    if rank and wrong_usage:
        time.sleep(1)  # the first process reports wrong usage before torchrun ends all processes with this one
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
    """Return the number of this process among those that torchrun started."""
    from zoo.errors import UsageError
    from zoo_harness.compute.distributed import Processes

    try:
        return Processes.launched().rank
    except UsageError:
        return 0


def _message(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    format_message = getattr(error, "format_message", None)  # of Typer's errors
    return str(format_message() if format_message else error) or type(error).__name__
