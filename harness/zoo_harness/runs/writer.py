"""Write the files of a run: all of them in its first process, none in the others.

Every file is written whole under a temporary name and then renamed, so a kill never leaves half a file under a final
name. ``history.jsonl`` and ``steps.jsonl`` alone grow line by line.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from zoo.errors import UsageError, ZooError
from zoo_harness.checkpoints import save
from zoo_harness.data.decoding import ImageData
from zoo_harness.evaluation.confusion import Confusion
from zoo_harness.evaluation.predictions import Predictions, write_predictions
from zoo_harness.records.file_names import (
    CARD,
    CHECKPOINT,
    CHECKPOINTS,
    CONFIGURATION,
    CONFUSION,
    HISTORY,
    PLOTS,
    PREDICTIONS,
    STEPS,
)
from zoo_harness.records.run import RUN, EpochRecord, KeptCheckpoint, LayerCurveRecord, PredictionsRecord, RunRecord
from zoo_harness.records.steps import StepRecord, read_steps
from zoo_harness.records.stored_options import OPTIONS
from zoo_harness.reports.card_merge import merged_card, read_card
from zoo_harness.reports.plots.confusion import plot_confusion
from zoo_harness.reports.plots.layers import plot_run_curve
from zoo_harness.reports.plots.run import plot_history, plot_learning_rate, plot_samples, title
from zoo_harness.reports.run_card import render_card
from zoo_harness.runs.events import NoEvents, RunEvents
from zoo_harness.training.state import PREVIOUS, STATE, TrainingState
from zoo_harness.util.atomic_files import folder_lock, remove_temporaries, write_text

UNMERGED = "README.new.md"
_FILES = (
    *(RUN, OPTIONS, HISTORY, STEPS, STATE, CHECKPOINT, CONFIGURATION),
    *(CONFUSION, PREDICTIONS, CARD, UNMERGED, *PLOTS),
)


class RunWriter:
    """Writes everything of a run into its directory; for the first process."""

    def __init__(self, directory: Path) -> None:
        self.path = directory
        self._history, self._steps = directory / HISTORY, directory / STEPS

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from running in this folder while the body runs; remove what killed ones left.

        Raises :class:`~zoo.errors.UsageError` if another process does.
        """
        with folder_lock(self.path) as locked:
            if not locked:
                message = f"{self.path}: the run is still running, in another process"
                raise UsageError(message, code="run-is-running", path=self.path)
            remove_temporaries(self.path, _FILES)
            self._remove_partial_checkpoints()
            yield

    def _remove_partial_checkpoints(self) -> None:
        folder = self.path / CHECKPOINTS
        if folder.is_dir():
            names = {path.name.removeprefix(".").removesuffix(".tmp") for path in folder.glob(".epoch-*.tmp")}
            remove_temporaries(folder, {name.rpartition(".")[0] for name in names})

    @contextmanager
    def events(self, steps_per_epoch: int) -> Iterator[NoEvents]:
        """Context manager that yields a writer of TensorBoard events into ``tensorboard/``."""
        with closing(RunEvents(self.path, steps_per_epoch)) as events:
            yield events

    def record(self, record: RunRecord) -> None:
        """Replace ``run.json``."""
        write_text(self.path / RUN, record.to_json())

    def epoch(self, state: TrainingState, epoch: EpochRecord) -> None:
        """Write the state after an epoch, then add the epoch to ``history.jsonl``; all is on the disk afterwards."""
        if self._steps.is_file():
            with self._steps.open("ab") as file:
                os.fsync(file.fileno())
        state.save(self.path)
        with self._history.open("a", encoding="utf-8") as file:
            file.write(epoch.model_dump_json() + "\n")
            file.flush()
            os.fsync(file.fileno())

    def keep(self, tensors: Mapping[str, Tensor], epoch: int) -> KeptCheckpoint:
        """Write the weights after an epoch into ``checkpoints/``."""
        return save.save_epoch(tensors, self.path, epoch)

    def history(self, epochs: Iterable[EpochRecord]) -> None:
        """Replace ``history.jsonl``: that of a killed run may lack its last line."""
        write_text(self._history, "".join(f"{epoch.model_dump_json(exclude_none=True)}\n" for epoch in epochs))

    def steps(self, steps: Iterable[StepRecord]) -> None:
        """Add logged steps to ``steps.jsonl``; they are on the disk when their epoch is."""
        with self._steps.open("a", encoding="utf-8") as file:
            file.writelines(f"{step.model_dump_json()}\n" for step in steps)

    def keep_steps(self, epochs: int) -> tuple[StepRecord, ...]:
        """Drop the logged steps of unfinished epochs, which will run again; return the others."""
        if not self._steps.is_file():
            return ()
        kept = tuple(step for step in read_steps(self.path) if step.epoch <= epochs)
        write_text(self._steps, "".join(f"{step.model_dump_json()}\n" for step in kept))
        return kept

    def samples(self, images: ImageData, record: RunRecord) -> None:
        """Draw a grid of labelled images of the evaluation split."""
        about = f"{record.dataset.title}, {record.dataset.evaluation_name} split"
        plot_samples(
            images.images, images.labels.numpy(), record.dataset.classes, self.path / "samples.png", about=about
        )

    def confusion(self, confusion: Confusion, record: RunRecord) -> None:
        """Write and draw the confusion matrix."""
        confusion.write(self.path)
        plot_confusion(confusion, self.path / "confusion.png", title(record))

    def predictions(self, predictions: Predictions) -> PredictionsRecord:
        """Write the predictions for each image; return their digest and measures."""
        return write_predictions(predictions, self.path)

    def layer_curve(self, curve: LayerCurveRecord, record: RunRecord) -> None:
        """Draw the separation of every layer."""
        plot_run_curve(curve, title(record), self.path / "layers.png")

    def curves(self, history: tuple[EpochRecord, ...], record: RunRecord, steps_per_epoch: int) -> None:
        """Draw loss, accuracy and learning rate."""
        plot_history(history, self.path, title(record))
        plot_learning_rate(record.settings.training, len(history), steps_per_epoch, self.path, title(record))

    def checkpoint(self, network: nn.Module, record: RunRecord) -> None:
        """Write ``model.safetensors``, and the ``config.json`` that other libraries read."""
        save.save_checkpoint(network, self.path)
        save.save_configuration(network, record, self.path)

    def finish(self, record: RunRecord) -> tuple[RunRecord, str | None]:
        """Write the card, then the last record, because the record says that everything else is there.

        Returns that record, which has the plots and the digest of the checkpoint. The user's own text in an earlier
        card stays. If the two cards cannot be merged, the new one is written beside the old one, and the reason is
        returned too.
        """
        plots = tuple(name for name in PLOTS if (self.path / name).is_file())
        record = record.model_copy(update={"plots": plots, "checkpoint_sha256": save.digest(self.path)})
        fault, card = None, render_card(record)
        try:
            write_text(self.path / CARD, merged_card(read_card(self.path), card))
        except ZooError as error:
            write_text(self.path / UNMERGED, card)
            fault = f"{self.path / 'README.md'} is unchanged, the new card is {self.path / UNMERGED}: {error}"
        self.record(record)
        if record.status == "finished":
            (self.path / PREVIOUS).unlink(missing_ok=True)
        return record, fault


def _write_nothing(_writer: RunWriter, *_given: Any, **_named: Any) -> None:
    pass


class NoWriter(RunWriter):
    """Writes nothing; for every process but the first."""

    record = epoch = history = steps = samples = confusion = layer_curve = curves = checkpoint = _write_nothing

    def locked(self) -> AbstractContextManager[None]:  # type: ignore[override]
        """Lock nothing: the first process locks the folder for all."""
        return nullcontext()

    def events(self, steps_per_epoch: int) -> AbstractContextManager[NoEvents]:  # type: ignore[override]  # noqa: ARG002
        """Write no events."""
        return nullcontext(NoEvents())

    def keep_steps(self, epochs: int) -> tuple[StepRecord, ...]:  # noqa: ARG002
        """Return no steps: the first process alone reads them."""
        return ()

    def keep(self, tensors: Mapping[str, Tensor], epoch: int) -> KeptCheckpoint:
        """Return a record without a digest: the first process writes the file."""
        return KeptCheckpoint(epoch=epoch, sha256="0" * 64, bytes=sum(tensor.nbytes for tensor in tensors.values()))

    def finish(self, record: RunRecord) -> tuple[RunRecord, str | None]:
        """Return the record as it is."""
        return record, None
