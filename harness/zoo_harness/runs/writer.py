"""Writes the files of a run: in the first process of a run everything, in the others nothing.

Every file is written whole under a temporary name and then renamed, so a kill never leaves half a file under a final
name. ``history.jsonl`` alone grows line by line.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from torch import nn

from zoo.errors import UsageError
from zoo_harness.checkpoints import save
from zoo_harness.data.decoding import ImageData
from zoo_harness.evaluation.confusion import Confusion
from zoo_harness.records.run import EpochRecord, LayerCurveRecord, RunRecord
from zoo_harness.reports.card_merge import merged_card, read_card
from zoo_harness.reports.plots.confusion import plot_confusion
from zoo_harness.reports.plots.layers import plot_run_curve
from zoo_harness.reports.plots.run import plot_history, plot_learning_rate, plot_samples
from zoo_harness.reports.run_card import render_card
from zoo_harness.runs.directory import RunDirectory
from zoo_harness.runs.tensorboard import event_log
from zoo_harness.training.state import TrainingState
from zoo_harness.util.atomic_files import write_text

UNMERGED = "README.new.md"


class RunWriter:
    """Writes everything of a run into its directory; for the first process."""

    def __init__(self, directory: Path) -> None:
        self.directory = RunDirectory(directory)
        self.path = directory

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from running in this folder while the body runs.

        Raises :class:`~zoo.errors.UsageError` if another process does.
        """
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise UsageError(
                    f"{self.path}: the run is still running, in another process", code="run-is-running"
                ) from error
            yield
        finally:
            os.close(descriptor)

    def events(self, *, wanted: bool) -> AbstractContextManager[Callable[[EpochRecord], None]]:
        """Context manager that yields what writes an epoch as TensorBoard events, or does nothing unless wanted."""
        return event_log(self.path, wanted=wanted)

    def record(self, record: RunRecord) -> None:
        """Replace ``run.json``."""
        write_text(self.path / "run.json", record.to_json())

    def epoch(self, state: TrainingState, epoch: EpochRecord) -> None:
        """Write the state after an epoch, then add the epoch to ``history.jsonl`` and have both on disk."""
        state.save(self.path)
        with self.directory.history.open("a", encoding="utf-8") as file:
            file.write(epoch.model_dump_json() + "\n")
            file.flush()
            os.fsync(file.fileno())

    def history(self, epochs: Iterable[EpochRecord]) -> None:
        """Replace ``history.jsonl``: a run that was killed may have one line too few."""
        write_text(self.directory.history, "".join(f"{epoch.model_dump_json()}\n" for epoch in epochs))

    def samples(self, images: ImageData, classes: tuple[str, ...]) -> None:
        """Draw a grid of labelled images."""
        plot_samples(images.images, images.labels.numpy(), classes, self.directory.samples)

    def confusion(self, confusion: Confusion) -> None:
        """Write and draw the confusion matrix."""
        confusion.write(self.path)
        plot_confusion(confusion, self.path / "confusion.png")

    def layer_curve(self, curve: LayerCurveRecord, backbone: str) -> None:
        """Draw the separation of every layer."""
        plot_run_curve(curve, backbone, self.path / "layers.png")

    def curves(self, history: tuple[EpochRecord, ...], record: RunRecord, steps_per_epoch: int) -> None:
        """Draw loss, accuracy and learning rate."""
        plot_history(list(history), self.path)
        plot_learning_rate(record.settings.training, len(history), steps_per_epoch, self.path)

    def checkpoint(self, network: nn.Module, record: RunRecord) -> None:
        """Write ``model.safetensors`` and the ``config.json`` that other libraries read."""
        save.save_checkpoint(network, self.path)
        save.save_configuration(network, record, self.path)

    def written(self) -> dict[str, object]:
        """What the last record says of the files: the names of the plots, the digest of the checkpoint."""
        return {"plots": self.directory.plots(), "checkpoint_sha256": save.digest(self.path)}

    def finish(self, record: RunRecord) -> str | None:
        """Write the card, then the last record, because the record says that everything else is there.

        A person's own text in an earlier card stays. If the two cards cannot be merged, the new one is written beside
        the old one, and the reason is returned.
        """
        fault, card = None, render_card(record)
        try:
            write_text(self.path / "README.md", merged_card(read_card(self.path), card))
        except UsageError as error:
            write_text(self.path / UNMERGED, card)
            fault = f"{self.path / 'README.md'} is unchanged, the new card is {self.path / UNMERGED}: {error}"
        self.record(record)
        return fault


class NoWriter(RunWriter):
    """Writes nothing; for every process but the first."""

    def locked(self) -> AbstractContextManager[None]:  # type: ignore[override]
        """Lock nothing: the first process locks the folder for all."""
        return nullcontext()

    def events(self, *, wanted: bool) -> AbstractContextManager[Callable[[EpochRecord], None]]:  # noqa: ARG002
        """Yield what does nothing."""
        return event_log(self.path, wanted=False)

    def record(self, record: RunRecord) -> None:
        """Do nothing."""

    def epoch(self, state: TrainingState, epoch: EpochRecord) -> None:
        """Do nothing."""

    def history(self, epochs: Iterable[EpochRecord]) -> None:
        """Do nothing."""

    def curves(self, history: tuple[EpochRecord, ...], record: RunRecord, steps_per_epoch: int) -> None:
        """Do nothing."""

    def checkpoint(self, network: nn.Module, record: RunRecord) -> None:
        """Do nothing."""

    def written(self) -> dict[str, object]:
        """Return nothing."""
        return {}

    def finish(self, record: RunRecord) -> str | None:
        """Do nothing."""
