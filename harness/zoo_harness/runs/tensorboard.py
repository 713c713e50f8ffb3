"""Events for TensorBoard, in the folder ``tensorboard`` of a run: ``tensorboard --logdir runs`` shows them."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from zoo.errors import UsageError
from zoo_harness.records.run import EpochRecord

FOLDER = "tensorboard"


def check_tensorboard() -> None:
    """Raise :class:`~zoo.errors.UsageError` where TensorBoard is not installed."""
    if importlib.util.find_spec("tensorboard") is None:
        raise UsageError("--tensorboard needs TensorBoard: pip install 'blockzoo[tensorboard]'")


class EventLog:
    """Writes what an epoch came to as events."""

    def __init__(self, directory: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(directory / FOLDER))

    def add(self, epoch: EpochRecord) -> None:
        """Write the figures of an epoch, and have them on disk."""
        figures = {
            "loss/train": epoch.train_loss,
            "loss/evaluation": epoch.evaluation_loss,
            "accuracy/train": epoch.train_accuracy,
            "accuracy/evaluation": epoch.evaluation_accuracy,
            "seconds/train": epoch.train_seconds,
            "seconds/evaluation": epoch.evaluation_seconds,
        }
        for name, value in figures.items():
            self._writer.add_scalar(name, value, epoch.epoch)
        self._writer.flush()

    def close(self) -> None:
        """Write nothing more."""
        self._writer.close()


@contextmanager
def event_log(directory: Path, *, wanted: bool) -> Iterator[Callable[[EpochRecord], None]]:
    """What notes an epoch as events in a run directory while the body runs, or does nothing where none are wanted."""
    if not wanted:
        yield lambda _epoch: None
        return
    log = EventLog(directory)
    try:
        yield log.add
    finally:
        log.close()
