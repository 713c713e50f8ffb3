"""The files of one run. Every file is written whole under a temporary name and then renamed.

A kill therefore never leaves half a file under a final name. ``history.jsonl`` alone grows line by line.
"""

from __future__ import annotations

import datetime
import fcntl
import itertools
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from zoo.errors import UsageError, ZooError
from zoo_harness.records.run import EpochRecord, RunRecord
from zoo_harness.reports.card_merge import merged_card, read_card
from zoo_harness.util.atomic_files import write_text

PLOTS = ("loss.png", "accuracy.png", "learning_rate.png", "confusion.png", "layers.png", "samples.png")
UNMERGED = "README.new.md"


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

    def write_record(self, record: RunRecord) -> None:
        """Replace ``run.json``."""
        write_text(self.path / "run.json", record.to_json())

    def append_epoch(self, epoch: EpochRecord) -> None:
        """Add one line to ``history.jsonl`` and have it on disk before going on."""
        with self.history.open("a", encoding="utf-8") as file:
            file.write(epoch.model_dump_json() + "\n")
            file.flush()
            os.fsync(file.fileno())

    def rewrite_history(self, epochs: Iterable[EpochRecord]) -> None:
        """Replace ``history.jsonl``: a run that was killed may have one line too few."""
        write_text(self.history, "".join(f"{epoch.model_dump_json()}\n" for epoch in epochs))

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other processes from running in this folder while the body runs.

        Raises :class:`~zoo.errors.UsageError` where one does.
        """
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise UsageError(f"{self.path}: the run is still running, in another process") from error
            yield
        finally:
            os.close(descriptor)

    def finish(self, record: RunRecord, card: str) -> str | None:
        """Write the card and the last record; the record goes last, since it says that the rest is there.

        What a person wrote into an earlier card stays. Where the two cannot be merged the new one is written beside it,
        and what is wrong is returned.
        """
        fault = None
        try:
            write_text(self.path / "README.md", merged_card(read_card(self.path), card))
        except UsageError as error:
            write_text(self.path / UNMERGED, card)
            fault = f"{self.path / 'README.md'} is as it was, the new card is {self.path / UNMERGED}: {error}"
        self.write_record(record)
        return fault

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


class WatchedDirectory(RunDirectory):
    """The same folder in a process that helps with the run of another: it is read, and never written to."""

    def write_record(self, record: RunRecord) -> None:
        """Do nothing."""

    def append_epoch(self, epoch: EpochRecord) -> None:
        """Do nothing."""

    def rewrite_history(self, epochs: Iterable[EpochRecord]) -> None:
        """Do nothing."""

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold nothing: the first process holds the folder for all."""
        yield

    def finish(self, record: RunRecord, card: str) -> str | None:
        """Do nothing."""


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
