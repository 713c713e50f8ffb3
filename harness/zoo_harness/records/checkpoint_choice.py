"""Choose one of a run's checkpoints by name or epoch. This module does not import torch."""

from __future__ import annotations

from pathlib import Path

from zoo.errors import UsageError
from zoo_harness.records.file_names import CHECKPOINT, CHECKPOINTS
from zoo_harness.records.run import KeptCheckpoint, RunRecord, best_epoch, read_history, read_run, record_file


def choose_checkpoint(
    directory: Path, record: RunRecord, checkpoint: str | int | None = None, epoch: int | None = None
) -> KeptCheckpoint | None:
    """Return the record of the checkpoint that the caller chose, or ``None`` for the run's main checkpoint.

    ``checkpoint`` is ``"best"``, ``"last"`` or an epoch; ``epoch`` is an epoch. Without either, the main checkpoint is
    chosen. Raises :class:`~zoo.errors.UsageError` if the name is wrong, if the run did not save these weights, or if
    their file is missing; the error lists the available checkpoints.
    """
    if checkpoint is None and epoch is None:
        return None
    if checkpoint is not None and epoch is not None:
        message = f"checkpoint {checkpoint!r} and epoch {epoch} exclude each other; give only one of them"
        raise UsageError(message, code="checkpoint-named-twice", option="epoch")
    wanted = _epoch_of(directory, record, checkpoint if epoch is None else epoch)
    there = available_checkpoints(directory, record)
    if wanted not in there:
        named = f" ({checkpoint})" if checkpoint in ("best", "last") else ""
        listed = ", ".join(_described(directory, record, number) for number in there) or "none"
        message = f"no such checkpoint: epoch {wanted}{named} of {directory}; expected a saved epoch: {listed}"
        raise UsageError(message, code="no-such-checkpoint", epoch=wanted, there=tuple(there))
    return next((kept for kept in record.checkpoints if directory / kept.file == there[wanted]), None)


def available_checkpoints(directory: Path, record: RunRecord) -> dict[int, Path]:
    """Return the files of a run's existing checkpoints, by epoch; the main checkpoint is listed under its epoch."""
    files = {kept.epoch: directory / kept.file for kept in record.checkpoints}
    there = {epoch: path for epoch, path in files.items() if path.is_file()}
    if record.checkpoint_sha256 is not None and (directory / CHECKPOINT).is_file():
        there[_main_epoch(directory, record)] = directory / CHECKPOINT
    return dict(sorted(there.items()))


def run_of_weights(path: Path) -> Path:
    """Return ``RUN`` for a path of the form ``RUN/model.safetensors`` or ``RUN/checkpoints/FILE``.

    >>> run_of_weights(Path("/run/checkpoints/epoch-0002.safetensors"))
    PosixPath('/run')
    """
    folder = path.absolute().parent
    return folder.parent if folder.name == CHECKPOINTS else folder


def kept_by_run(path: Path) -> tuple[RunRecord, KeptCheckpoint] | None:
    """Return the records of a run and of a weight file in its ``checkpoints/``; ``None`` if the run lacks it.

    Raises a :class:`~zoo.errors.ZooError` if the record of the run cannot be read.
    """
    folder = run_of_weights(path)
    if path.absolute().parent.name != CHECKPOINTS or not record_file(folder).is_file():
        return None
    record = read_run(folder)
    kept = next((each for each in record.checkpoints if Path(each.file).name == path.name), None)
    return None if kept is None else (record, kept)


def _epoch_of(directory: Path, record: RunRecord, name: str | int | None) -> int:
    if name == "best":
        return _best_epoch(directory, record)
    if name == "last":
        return record.results.epochs_done
    text = str(name)
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        message = f"no such checkpoint: {name!r:.80}; expected best, last or the number of an epoch"
        raise UsageError(message, code="checkpoint-name", option="checkpoint", given=name)
    return int(text)


def _main_epoch(directory: Path, record: RunRecord) -> int:
    found = record.main_epoch
    return _best_epoch(directory, record) if found is None else found


def _best_epoch(directory: Path, record: RunRecord) -> int:
    if record.results.best_epoch is not None:
        return record.results.best_epoch
    found = best_epoch(read_history(directory))  # earlier versions did not record the best epoch
    return record.results.epochs_done if found is None else found.epoch


def _described(directory: Path, record: RunRecord, epoch: int) -> str:
    names = {"best": _best_epoch(directory, record), "last": record.results.epochs_done}
    words = [name for name, number in names.items() if number == epoch]
    words += ["main"] if epoch == _main_epoch(directory, record) else []
    return f"{epoch} ({', '.join(words)})" if words else str(epoch)
