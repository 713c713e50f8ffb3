"""Run the ``zoo`` command, and report an error on one line."""

from __future__ import annotations

import json
import os
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager


def main(arguments: Sequence[str] | None = None) -> None:
    """Run ``zoo`` and exit with 0 done, 1 failed, 2 wrong usage, 130 interrupted or 143 terminated."""
    from zoo_harness.cli.streams import guard_streams

    guard_streams()
    sys.exit(run(sys.argv[1:] if arguments is None else list(arguments)))


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit status; with ``--debug`` errors keep their traceback.

    The status is 0 too if the reader of the output ends before the command.
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
        # Typer exits for a broken pipe. The reader, such as head, has what it wanted.
        ended = isinstance(error, BrokenPipeError | SystemExit) and reader_has_ended()
        if ended or isinstance(error, OSError):  # perhaps of stdout, and its last flush would fail again
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
    """Keep other libraries from printing: all their warnings and progress bars, or Pillow's of large images alone."""
    bars = {f"HF_{library}_DISABLE_PROGRESS_BARS": "1" for library in ("DATASETS", "HUB")}  # read at their import
    before = {name: os.environ.get(name) for name in bars}
    with warnings.catch_warnings():
        if all_of_them:
            warnings.simplefilter("ignore")
            os.environ.update(bars)
        else:  # zoo reads images of any size
            warnings.filterwarnings("ignore", message="Image size .* exceeds limit")
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)


def _report(error: Exception, *, as_json: bool) -> None:
    if type(error).__name__ == "NoArgsIsHelpError":  # no command given: its message is the help page
        sys.stderr.write(f"{error}\n")
        return
    from zoo.text import one_line

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
