"""Make the folder of a run, or of another command's output."""

from __future__ import annotations

import datetime
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from zoo.errors import UsageError, ZooError
from zoo_harness.records.file_names import HISTORY


@dataclass(frozen=True)
class RunDirectory:
    """A folder that holds one run and nothing else."""

    path: Path

    @property
    def history(self) -> Path:
        """The file with one line of JSON for each epoch; whoever creates it owns the folder."""
        return self.path / HISTORY


def check_out(out: Path | None) -> None:
    """Raise :class:`~zoo.errors.UsageError` if ``--out`` is a file, or a folder that is not empty."""
    if out is None or not out.exists():
        return
    advice = "give a folder that does not exist yet"
    if not out.is_dir():
        raise UsageError(f"--out {str(out)!r} is a file; {advice}", code="out-is-a-file", path=out)
    if any(out.iterdir()):
        raise UsageError(f"--out {str(out)!r} is not empty; {advice}", code="out-not-empty", path=out)


def claim_directory(out: Path | None, backbone: str, dataset: str) -> RunDirectory:
    """Make a folder for one run alone: ``out``, or ``runs/NAME-DATASET-TIME`` (UTC), numbered if that exists.

    Raises :class:`~zoo.errors.UsageError` if another run has ``out``, and :class:`~zoo.errors.ZooError` if no folder
    can be made.
    """
    directory = RunDirectory(claim_folder(out, f"{backbone}-{dataset}", "run directory"))
    try:
        directory.history.touch(exist_ok=False)
    except FileExistsError as error:
        message = f"--out {str(out)!r} is taken by another run; give a folder that does not exist yet"
        raise UsageError(message, code="out-taken", path=out) from error
    except OSError as error:
        raise _cannot_make("run directory", directory.path, error) from error
    return directory


def claim_folder(out: Path | None, name: str, called: str = "folder") -> Path:
    """Make a folder: ``out``, or ``runs/NAME-TIME`` (UTC), numbered if that exists.

    Raises :class:`~zoo.errors.ZooError` if no folder can be made.
    """
    candidates = _numbered(name) if out is None else itertools.repeat(out)
    while True:
        path = next(candidates)
        try:
            path.mkdir(parents=True, exist_ok=out is not None)
        except OSError as error:
            if out is not None or not isinstance(error, FileExistsError):
                raise _cannot_make(called, path, error) from error
        else:
            return path


def _cannot_make(called: str, path: Path, error: OSError) -> ZooError:
    message = f"cannot make the {called} {str(path)!r}: {error.strerror}"
    return ZooError(message, code="cannot-make-folder", path=path)


def _numbered(beginning: str) -> Iterator[Path]:
    name = f"{beginning}-{datetime.datetime.now(datetime.UTC):%Y%m%d-%H%M%S}"
    yield Path("runs") / name
    for number in itertools.count(2):
        yield Path("runs") / f"{name}-{number}"
