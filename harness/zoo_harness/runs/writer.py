"""Write the files of a run. If a run has several processes, only the first process writes.

A file is first written completely under a temporary name and then renamed, so a kill never leaves a partial file under
the final name. Only ``history.jsonl`` and ``steps.jsonl`` grow by appended lines.
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
from zoo_harness.reports.plots.run import Finish, plot_history, plot_learning_rate, plot_samples, small_print, title
from zoo_harness.reports.run_card import render_card
from zoo_harness.runs.events import NoEvents, RunEvents
from zoo_harness.training.state import PREVIOUS, STATE, TrainingState
from zoo_harness.util.atomic_files import folder_lock, remove_temporaries, write_text

UNMERGED = "README.new.md"
_FILES = (
    *(RUN, OPTIONS, HISTORY, STEPS, STATE, CHECKPOINT, CONFIGURATION),
    *(CONFUSION, PREDICTIONS, CARD, UNMERGED, *PLOTS, *(f"{Path(name).stem}.svg" for name in PLOTS)),
)


class RunWriter:
    """Writes all files of a run into its folder; if ``svg`` is true, each plot is written as PNG and as SVG.

    Only the first process of a run uses this class.
    """

    def __init__(self, directory: Path, *, svg: bool = False) -> None:
        self.path, self._svg = directory, svg
        self._history, self._steps = directory / HISTORY, directory / STEPS

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Context manager that locks the run folder, and removes temporary files that killed processes left.

        Raises :class:`~zoo.errors.UsageError` if another process has locked the folder.
        """
        with folder_lock(self.path) as locked:
            if not locked:
                message = f"{self.path}: another process is still executing this run"
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
        """Context manager that yields a writer of TensorBoard events for the subfolder ``tensorboard/``."""
        with closing(RunEvents(self.path, steps_per_epoch)) as events:
            yield events

    def record(self, record: RunRecord) -> None:
        """Replace ``run.json``."""
        write_text(self.path / RUN, record.to_json())

    def epoch(self, state: TrainingState, epoch: EpochRecord) -> None:
        """Write the training state after an epoch, append the epoch to ``history.jsonl``, and flush both to disk."""
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
        """Rewrite ``history.jsonl``, because a killed run may have left the file without its last line."""
        write_text(self._history, "".join(f"{epoch.model_dump_json(exclude_none=True)}\n" for epoch in epochs))

    def steps(self, steps: Iterable[StepRecord]) -> None:
        """Append logged steps to ``steps.jsonl``; :meth:`epoch` flushes them to disk when their epoch ends."""
        with self._steps.open("a", encoding="utf-8") as file:
            file.writelines(f"{step.model_dump_json()}\n" for step in steps)

    def keep_steps(self, epochs: int) -> tuple[StepRecord, ...]:
        """Return the logged steps of the first ``epochs`` epochs; delete later steps, whose epochs will run again."""
        if not self._steps.is_file():
            return ()
        kept = tuple(step for step in read_steps(self.path) if step.epoch <= epochs)
        write_text(self._steps, "".join(f"{step.model_dump_json()}\n" for step in kept))
        return kept

    def samples(self, images: ImageData, record: RunRecord) -> None:
        """Draw a picture of some labelled images of the evaluation split."""
        plot_samples(
            images.images,
            images.labels.numpy(),
            record.dataset.classes,
            self.path / "samples.png",
            about=title(record, record.dataset.evaluation_name),
            finish=self._finish(record),
        )

    def confusion(self, confusion: Confusion, record: RunRecord) -> None:
        """Write the confusion matrix as a file, and draw it as a picture."""
        confusion.write(self.path)
        about = title(record, record.dataset.name_of(record.headline[1]))
        plot_confusion(confusion, self.path / "confusion.png", about, self._finish(record))

    def predictions(self, predictions: Predictions) -> PredictionsRecord:
        """Write the prediction for each image; return the digest and the metrics of the predictions."""
        return write_predictions(predictions, self.path)

    def layer_curve(self, curve: LayerCurveRecord, record: RunRecord) -> None:
        """Draw the curve of the separation scores over the layers."""
        plot_run_curve(curve, title(record, curve.split), self.path / "layers.png", self._finish(record))

    def curves(self, history: tuple[EpochRecord, ...], record: RunRecord, steps_per_epoch: int) -> None:
        """Draw the curves of loss, accuracy and learning rate over the epochs."""
        about, finish = title(record, record.dataset.evaluation_name), self._finish(record)
        plot_history(history, self.path, about, finish)
        about = title(record, record.dataset.train.split)
        plot_learning_rate(record.settings.training, len(history), steps_per_epoch, self.path, about, finish)

    def _finish(self, record: RunRecord) -> Finish:
        return Finish(small_print(record), self._svg)

    def checkpoint(self, network: nn.Module, record: RunRecord) -> None:
        """Write the weights to ``model.safetensors``, and ``config.json`` for other libraries."""
        save.save_checkpoint(network, self.path)
        save.save_configuration(network, record, self.path)

    def finish(self, record: RunRecord) -> tuple[RunRecord, str | None]:
        """Write the model card and the final record; return this record, and an error message or ``None``.

        The record is written last, because it states that all other files exist. The final record lists the plots and
        has the digest of the checkpoint. The user's own text in an earlier card is preserved. If the two cards cannot
        be merged, the new card is written to ``README.new.md``, and the error message gives the reason.
        """
        plots = tuple(name for name in PLOTS if (self.path / name).is_file())
        record = record.model_copy(update={"plots": plots, "checkpoint_sha256": save.digest(self.path)})
        fault, card = None, render_card(record)
        try:
            write_text(self.path / CARD, merged_card(read_card(self.path), card))
        except ZooError as error:
            write_text(self.path / UNMERGED, card)
            fault = f"{self.path / 'README.md'} is unchanged; the new card is in {self.path / UNMERGED}: {error}"
        self.record(record)
        if record.status == "finished":
            (self.path / PREVIOUS).unlink(missing_ok=True)
        return record, fault


def _write_nothing(_writer: RunWriter, *_given: Any, **_named: Any) -> None:
    pass


class NoWriter(RunWriter):
    """Ignores every write; all processes of a run except the first use this class."""

    record = epoch = history = steps = samples = confusion = layer_curve = curves = checkpoint = _write_nothing

    def locked(self) -> AbstractContextManager[None]:  # type: ignore[override]
        """Lock nothing, because the first process locks the folder for all processes."""
        return nullcontext()

    def events(self, steps_per_epoch: int) -> AbstractContextManager[NoEvents]:  # type: ignore[override]  # noqa: ARG002
        """Return a context manager that yields a writer without output."""
        return nullcontext(NoEvents())

    def keep_steps(self, epochs: int) -> tuple[StepRecord, ...]:  # noqa: ARG002
        """Return an empty tuple, because only the first process reads the logged steps."""
        return ()

    def keep(self, tensors: Mapping[str, Tensor], epoch: int) -> KeptCheckpoint:
        """Return a record with a digest of zeros, because the first process writes the file."""
        return KeptCheckpoint(epoch=epoch, sha256="0" * 64, bytes=sum(tensor.nbytes for tensor in tensors.values()))

    def finish(self, record: RunRecord) -> tuple[RunRecord, str | None]:
        """Return the record unchanged, and no error message."""
        return record, None
