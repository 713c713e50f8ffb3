"""Find the runs below a folder, and read what a list of them shows; needs neither torch nor numpy nor pydantic."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoo.errors import UsageError, ZooError
from zoo_harness.records.file_names import RECORD
from zoo_harness.util.safe_files import read_regular

_RECORDS = ("run.json", RECORD)
_LARGEST = 32 * 2**20  # bytes of a record, as in records.run, whose import takes half a second
_DEEPEST = 4  # folders below the given one


@dataclass(frozen=True)
class FoundRun:
    """A run as a list shows it; ``None`` for what its record does not say.

    ``state`` is ``finished``, ``running``, ``killed``, ``interrupted``, ``failed`` or ``damaged``. ``accuracy`` is that
    of ``split``, in [0, 1]. ``started``: UTC, in ISO format. ``fault``: why a damaged record cannot be read.
    """

    folder: str
    state: str
    backbone: str | None = None
    recipe: str | None = None
    dataset: str | None = None
    split: str | None = None
    seed: int | None = None
    accuracy: float | None = None
    standard_error: float | None = None
    started: str | None = None
    fault: str | None = None


def run_folders(folder: Path, depth: int = _DEEPEST) -> Iterator[Path]:
    """Yield the folders of runs in a folder and below it, by name; a run is not searched, nor is a hidden folder.

    Raises :class:`~zoo.errors.UsageError` if ``folder`` is not a folder.
    """
    try:
        found = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        message = f"no such folder: {str(folder)!r}: {error.strerror}; expected a folder with runs"
        raise UsageError(message, code="no-such-folder", given=folder) from error
    if any(entry.name in _RECORDS for entry in found):
        yield folder
        return
    for entry in found:
        if depth and entry.is_dir(follow_symlinks=False) and not entry.name.startswith("."):
            try:
                yield from run_folders(folder / entry.name, depth - 1)
            except UsageError:  # a folder that cannot be read
                continue


def list_runs(folder: Path) -> list[FoundRun]:
    """Read the runs in a folder and below it, by name; a record that cannot be read is listed as damaged."""
    return [read_found(path) for path in run_folders(folder)]


def read_found(folder: Path) -> FoundRun:
    """Read what a list shows of a run."""
    try:
        name = next((name for name in _RECORDS if (folder / name).is_file()), _RECORDS[0])
        record = json.loads(read_regular(folder / name, _LARGEST, follow_links=True))
        return _found(folder, record)
    except (ZooError, OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        return FoundRun(str(folder), "damaged", fault=f"{type(error).__name__}: {error!s:.200}")


def _found(folder: Path, record: dict[str, Any]) -> FoundRun:
    if record["format"] != "blockzoo run 1":
        raise ValueError(f"its format is {record['format']!r:.60}; expected 'blockzoo run 1'")
    dataset, results, state = record["dataset"], record["results"], str(record["status"])
    of_test = results.get("test_accuracy") is not None and dataset.get("test") is not None
    measured = results["test_accuracy"] if of_test else results["accuracy"]
    if state == "running" and not is_running(folder):
        state = "killed"
    return FoundRun(
        folder=str(folder),
        state=state,
        backbone=str(record["backbone"]["name"]),
        recipe=str(record["settings"]["recipe"]),
        dataset=str(dataset["title"]),
        split=str(dataset["test" if of_test else "evaluation"]["split"]),
        seed=int(record["settings"]["seed"]),
        accuracy=None if measured is None else float(measured["value"]),
        standard_error=None if measured is None else float(measured["standard_error"]),
        started=str(record["started"]),
    )


def is_running(folder: Path) -> bool:
    """Whether a process holds the lock of a run's folder, as one that executes the run does."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return isinstance(error, BlockingIOError)  # other errors: the file system has no locks
    else:
        return False
    finally:
        os.close(descriptor)
