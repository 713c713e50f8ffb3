"""The folder of one run: making it, and the names of its files."""

from __future__ import annotations

import datetime
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from zoo.errors import UsageError, ZooError

PLOTS = ("loss.png", "accuracy.png", "learning_rate.png", "confusion.png", "layers.png", "samples.png")


@dataclass(frozen=True)
class RunDirectory:
    """A folder that holds one run and nothing else."""

    path: Path

    def check(self) -> None:
        """Raise :class:`~zoo.errors.UsageError` where the folder cannot take a new run."""
        if self.path.exists() and not self.path.is_dir():
            raise UsageError(f"--out {str(self.path)!r} is a file; give a folder that does not exist yet")
        if self.path.is_dir() and any(self.path.iterdir()):
            raise UsageError(f"--out {str(self.path)!r} is not empty; give a folder that does not exist yet")

    def claim(self) -> bool:
        """Make the folder with an empty history; return whether it is ours, or another run was there first."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self.history.touch(exist_ok=False)
        except FileExistsError:
            if self.path.is_dir():
                return False
            raise
        return True

    def plots(self) -> tuple[str, ...]:
        """The names of the plots that have been written."""
        return tuple(name for name in PLOTS if (self.path / name).is_file())

    @property
    def history(self) -> Path:
        """One line of JSON an epoch."""
        return self.path / "history.jsonl"

    @property
    def samples(self) -> Path:
        """A labelled grid of the data."""
        return self.path / "samples.png"


def claim_directory(out: Path | None, backbone: str, dataset: str) -> RunDirectory:
    """A folder that is this run's alone: ``out``, or ``runs/NAME-DATASET-TIME`` (UTC), numbered where that is taken.

    Raises :class:`~zoo.errors.UsageError` where ``out`` holds something, and :class:`~zoo.errors.ZooError` where no
    folder can be made.
    """
    for path in _default_paths(backbone, dataset) if out is None else [out]:
        directory = RunDirectory(path)
        try:
            if directory.claim():
                return directory
        except OSError as error:
            raise ZooError(f"cannot make the run directory {str(path)!r}: {error.strerror}") from error
    raise UsageError(f"--out {str(out)!r} is taken by another run; give a folder that does not exist yet")


def claim_folder(out: Path | None, name: str) -> Path:
    """A new folder: ``out``, or ``runs/NAME-TIME`` (UTC), numbered where that is taken.

    Raises :class:`~zoo.errors.ZooError` where no folder can be made.
    """
    for path in _numbered(name) if out is None else [out]:
        try:
            path.mkdir(parents=True, exist_ok=out is not None)
        except FileExistsError:
            continue
        except OSError as error:
            raise ZooError(f"cannot make the folder {str(path)!r}: {error.strerror}") from error
        return path
    raise UsageError(f"--out {str(out)!r} is a file; give a folder that does not exist yet")


def _default_paths(backbone: str, dataset: str) -> Iterator[Path]:
    return _numbered(f"{backbone}-{dataset}")


def _numbered(beginning: str) -> Iterator[Path]:
    stamp = datetime.datetime.now(datetime.UTC).strftime("%Y%m%d-%H%M%S")
    name = f"{beginning}-{stamp}"
    yield Path("runs") / name
    for number in itertools.count(2):
        yield Path("runs") / f"{name}-{number}"
