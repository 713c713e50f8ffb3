"""The files of one run. Every file is written whole under a temporary name and then renamed.

A kill therefore never leaves half a file under a final name. ``history.jsonl`` alone grows line by line.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from zoo.errors import UsageError, ZooError
from zoo_harness.atomic import write_text
from zoo_harness.run_record import EpochRecord, RunRecord

PLOTS = ("loss.png", "accuracy.png", "samples.png")


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

    def begin(self, record: RunRecord) -> None:
        """Make the folder and write the first record and an empty history."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ZooError(f"cannot make the run directory {str(self.path)!r}: {error.strerror}") from error
        self.write_record(record)
        write_text(self.history, "")

    def write_record(self, record: RunRecord) -> None:
        """Replace ``run.json``."""
        write_text(self.path / "run.json", record.to_json())

    def append_epoch(self, epoch: EpochRecord) -> None:
        """Add one line to ``history.jsonl`` and have it on disk before going on."""
        with self.history.open("a", encoding="utf-8") as file:
            file.write(epoch.model_dump_json() + "\n")
            file.flush()
            os.fsync(file.fileno())

    def finish(self, record: RunRecord, card: str) -> None:
        """Write the card and the last record; the record goes last, since it says that the rest is there."""
        write_text(self.path / "README.md", card)
        self.write_record(record)

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
