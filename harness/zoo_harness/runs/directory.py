"""Create the folder that a run or another command writes its output to."""

from __future__ import annotations

import datetime
import os
from pathlib import Path

from zoo.errors import UsageError, ZooError
from zoo_harness.records.file_names import HISTORY

RUNS = Path("runs")
"""The folder in the working directory that results are written to if ``--out`` is not given."""


def check_out(out: Path | None, *, default: Path | None = None) -> None:
    """Raise :class:`~zoo.errors.UsageError` if ``--out`` is a file, a folder that is not empty, or cannot be made.

    If ``out`` is ``None``, check the folder ``default`` instead, in which the command will create its output folder.
    """
    if (folder := out or default) is not None:
        _check_writable(folder, out)
    if out is None or not out.exists():
        return
    advice = "give a folder that does not exist yet"
    if not out.is_dir():
        raise UsageError(f"--out {str(out)!r} is a file; {advice}", code="out-is-a-file", path=out)
    if any(out.iterdir()):
        raise UsageError(f"--out {str(out)!r} is not empty; {advice}", code="out-not-empty", path=out)


def _check_writable(folder: Path, out: Path | None) -> None:
    """Raise an error if the nearest existing parent of a folder is a file or is not writable."""
    there = next((each for each in (folder, *folder.absolute().parents) if os.path.lexists(each)), Path())
    fault = ""
    if not there.is_dir():
        fault = "not a folder" if there != folder else ""  # check_out reports an --out that is a file
    elif not os.access(there, os.W_OK | os.X_OK):
        fault = "not writable"
    if fault:
        named = f"--out {str(out)!r}" if out else f"the folder {str(folder)!r}"
        message = f"{named} cannot be created: {str(there)!r} is {fault}; try --out with another folder"
        raise UsageError(message, code="out-not-writable", path=folder)


def claim_directory(out: Path | None, backbone: str, dataset: str) -> Path:
    """Create the folder of one run: ``out``, or by default ``runs/BACKBONE-DATASET-TIME`` with the time in UTC.

    If the default folder exists already, a number is appended to its name. Raises :class:`~zoo.errors.UsageError` if
    another run already uses ``out``, and :class:`~zoo.errors.ZooError` if the folder cannot be created.
    """
    directory = claim_folder(out, f"{backbone}-{dataset}", "run directory")
    try:
        (directory / HISTORY).touch(exist_ok=False)  # the run that creates this file owns the folder
    except FileExistsError as error:
        message = f"--out {str(out)!r} is in use by another run; give a folder that does not exist yet"
        raise UsageError(message, code="out-taken", path=out) from error
    except OSError as error:
        raise _cannot_make("run directory", directory, error) from error
    return directory


def claim_folder(out: Path | None, name: str, called: str = "folder") -> Path:
    """Create the folder ``out``, or by default ``runs/NAME-TIME`` with the time in UTC.

    If the default folder exists already, a number is appended to its name. Raises :class:`~zoo.errors.ZooError` if the
    folder cannot be created.
    """
    # Some systems do not allow a colon in a path, and names such as timm:NAME contain one.
    beginning, number = f"{name.replace(':', '-')}-{datetime.datetime.now(datetime.UTC):%Y%m%d-%H%M%S}", 1
    while True:
        path = out or RUNS / (beginning if number == 1 else f"{beginning}-{number}")
        try:
            path.mkdir(parents=True, exist_ok=out is not None)
        except OSError as error:
            if out is not None or not isinstance(error, FileExistsError):
                raise _cannot_make(called, path, error) from error
            number += 1
        else:
            return path


def _cannot_make(called: str, path: Path, error: OSError) -> ZooError:
    message = f"cannot create the {called} {str(path)!r}: {error.strerror}"
    return ZooError(message, code="cannot-make-folder", path=path)
