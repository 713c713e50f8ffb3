"""Prepare table rows with the scores of a run's saved checkpoints, for the model card and the terminal."""

from __future__ import annotations

from typing import NamedTuple

from zoo_harness.records.file_names import CHECKPOINT
from zoo_harness.records.run import KeptCheckpoint, Measurement, Results, RunRecord, ScoreMeasurement


class CheckpointRow(NamedTuple):
    """One table row: a checkpoint's epoch, its role (best, last or main), its file, and accuracy and SI per split."""

    epoch: int
    name: str
    file: str
    scores: list[tuple[Measurement | None, ScoreMeasurement | None]]


def checkpoint_rows(record: RunRecord, most: int | None = None) -> list[CheckpointRow]:
    """Return one row per saved checkpoint and one for the main checkpoint, sorted by epoch.

    The list is empty if the run saved only the main checkpoint. If ``most`` is given, the rows are the ``most`` latest
    checkpoints, and the best, last and main checkpoints.
    """
    main = record.main_epoch
    if not record.checkpoints or main is None:
        return []
    found: dict[int, tuple[str, KeptCheckpoint | Results]] = {
        kept.epoch: (kept.file, kept) for kept in record.checkpoints
    }
    found[main] = CHECKPOINT, record.results
    rows = [
        CheckpointRow(epoch, _name(record, epoch), file, _scores(record, scored))
        for epoch, (file, scored) in sorted(found.items())
    ]
    first = len(rows) - (len(rows) if most is None else most)
    return [row for number, row in enumerate(rows) if number >= first or row.name]


def scored_splits(record: RunRecord) -> list[str]:
    """Return the names of the splits in the order of the scores in :class:`CheckpointRow`."""
    held_out = [record.dataset.test.split] if record.dataset.test is not None else []
    return [*held_out, record.dataset.evaluation_name, "training"]


def _name(record: RunRecord, epoch: int) -> str:
    results = record.results
    names = {"best": results.best_epoch, "last": results.epochs_done, "main": record.main_epoch}
    return ", ".join(name for name, number in names.items() if number == epoch)


def _scores(
    record: RunRecord, found: KeptCheckpoint | Results
) -> list[tuple[Measurement | None, ScoreMeasurement | None]]:
    after = found.separation_after
    measured = [
        (found.accuracy, after and after.evaluation),
        (found.train_accuracy, after and after.train),
    ]
    if record.dataset.test is not None:
        measured.insert(0, (found.test_accuracy, after and after.test))
    return [(accuracy, scores.si if scores else None) for accuracy, scores in measured]
