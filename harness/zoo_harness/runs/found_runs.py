"""Find runs below a folder, and read the fields that ``zoo runs`` lists, without importing torch, numpy or pydantic."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from zoo.errors import UsageError, ZooError
from zoo_harness.records.file_names import RECORD
from zoo_harness.util.safe_files import read_regular

_RECORDS = ("run.json", RECORD)
_LARGEST = 32 * 2**20  # the largest record in bytes; copied from records.run, because importing that module takes 0.5 s
_FORMAT = "blockzoo run 1"
_DEEPEST = 4  # the number of folder levels that are searched below the given folder


@dataclass(frozen=True)
class FoundRun:
    """The fields of a run that a list of runs shows; a field is ``None`` if the run's record lacks it.

    ``state`` is ``finished``, ``running``, ``killed``, ``interrupted``, ``failed``, ``damaged``, or ``newer`` if
    another version of zoo wrote the record. ``accuracy`` is the accuracy on the split ``split``, in [0, 1]. ``started``
    is the UTC start time in ISO format. ``fault`` explains why a newer or damaged record cannot be read.
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


def run_folders(folder: Path, depth: int = _DEEPEST, *, most: int | None = None) -> Iterator[Path]:
    """Yield the run folders in a folder and its subfolders, sorted by name.

    The search skips hidden folders, and does not look for further runs inside a run folder. ``most`` is the largest
    number of folders to search; ``None`` searches all folders.
    Raises :class:`~zoo.errors.UsageError` if ``folder`` is not a folder.
    """
    yield from _run_folders(folder, depth, count() if most is None else iter(range(most)))


def _run_folders(folder: Path, depth: int, searches: Iterator[int]) -> Iterator[Path]:
    """Yield the folders of runs; each searched folder uses up one item of ``searches``, until no item remains."""
    if next(searches, None) is None:
        return
    try:
        found = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        message = f"not a folder that zoo can list: {str(folder)!r}: {error.strerror}; expected a folder with runs"
        raise UsageError(message, code="no-such-folder", given=folder) from error
    if any(entry.name in _RECORDS for entry in found):
        yield folder
        return
    for entry in found:
        if depth and entry.is_dir(follow_symlinks=False) and not entry.name.startswith("."):
            try:
                yield from _run_folders(folder / entry.name, depth - 1, searches)
            except UsageError:  # this subfolder cannot be read
                continue


def list_runs(folder: Path) -> list[FoundRun]:
    """List the runs in a folder and its subfolders, sorted by name; an unreadable record is listed as damaged."""
    return [read_found(path) for path in run_folders(folder)]


def read_found(folder: Path) -> FoundRun:
    """Read the fields of one run that a list of runs shows."""
    try:
        name = next((name for name in _RECORDS if (folder / name).is_file()), _RECORDS[0])
        record = json.loads(read_regular(folder / name, _LARGEST, follow_links=True))
        if str(record["format"]).startswith("blockzoo run ") and record["format"] != _FORMAT:
            fault = f"its record has the format {record['format']!r:.60}; expected {_FORMAT!r}; try a newer zoo"
            return FoundRun(str(folder), "newer", fault=fault)
        return _found(folder, record)
    except (ZooError, OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        fault = f"its record cannot be read: {type(error).__name__}: {error!s:.200}"
        return FoundRun(str(folder), "damaged", fault=fault)


def _found(folder: Path, record: dict[str, Any]) -> FoundRun:
    if record["format"] != _FORMAT:
        raise ValueError(f"its format is {record['format']!r:.60}; expected {_FORMAT!r}")
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
    """Whether a process is executing the run in a folder; such a process holds a lock on the folder."""
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
