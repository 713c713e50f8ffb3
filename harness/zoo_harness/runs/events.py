"""Write TensorBoard event files of a run: settings, every epoch and logged step, separation scores and pictures.

A resumed run first rewrites all earlier events from its history and its step log, so that no point appears twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from zoo_harness.records.run import EpochRecord, RunRecord
from zoo_harness.records.steps import StepRecord
from zoo_harness.training.optimizer import learning_rate

EVENTS = "tensorboard"
_PICTURES = ("samples", "confusion", "layers")


class NoEvents:
    """Ignores every event, for a run without ``--tensorboard``."""

    def begin(self, record: RunRecord, history: Iterable[EpochRecord], steps: Iterable[StepRecord]) -> None:
        """Write the results so far, and the epochs and steps that earlier processes finished."""

    def epoch(self, epoch: EpochRecord) -> None:
        """Write the metrics of an epoch that has ended."""

    def steps(self, steps: Iterable[StepRecord]) -> None:
        """Write the metrics of logged training steps."""

    def finish(self, record: RunRecord) -> None:
        """Write the results of a finished run."""


class RunEvents(NoEvents):
    """Writes the TensorBoard events of a run into the subfolder ``tensorboard/`` of the run folder.

    The horizontal axis is the epoch, except for ``steps/`` (training step) and for layer curves (layer depth). Each
    separation score has two points: epoch 0 for the score before training, and the last epoch for the final score.
    """

    def __init__(self, directory: Path, steps_per_epoch: int) -> None:
        self._directory, self._steps_per_epoch = directory, steps_per_epoch
        self._writer: Any = None  # torch's SummaryWriter, created by begin()

    def begin(self, record: RunRecord, history: Iterable[EpochRecord], steps: Iterable[StepRecord]) -> None:
        """Delete the event files of earlier processes, and write their epochs and steps again."""
        from torch.utils.tensorboard import SummaryWriter

        for earlier in (self._directory / EVENTS).glob("events.out.tfevents.*"):
            earlier.unlink()
        self._writer = SummaryWriter(str(self._directory / EVENTS))
        self._training, self._evaluated = record.settings.training, record.dataset.evaluation_name
        self._declare(record)
        self._pictures("samples")
        results = record.results
        self._scalars({f"raw pixels {tag}": value for tag, value in _scores(results.separation_raw_pixels, record)}, 0)
        self._scalars(dict(_scores(results.separation_before, record)), 0)
        self.steps(steps)
        for epoch in history:
            self.epoch(epoch)

    def epoch(self, epoch: EpochRecord) -> None:
        """Write the metrics of an epoch, and the learning rate of the last training step in it."""
        figures = {
            f"{figure}/{self._evaluated if split == 'evaluation' else split}": getattr(epoch, f"{split}_{figure}")
            for figure in ("loss", "accuracy", "seconds")
            for split in ("train", "evaluation")
        }
        rate = learning_rate(self._training, epoch.epoch * self._steps_per_epoch - 1, self._steps_per_epoch)
        self._scalars({**figures, "learning rate": rate}, epoch.epoch)

    def steps(self, steps: Iterable[StepRecord]) -> None:
        """Write the loss, the learning rate and the images per second of logged training steps."""
        for each in steps:
            figures = {
                "loss": each.loss,
                "learning rate": each.learning_rate,
                "images per second": each.images_per_second,
            }
            self._scalars({f"steps/{name}": value for name, value in figures.items()}, each.step)

    def finish(self, record: RunRecord) -> None:
        """Write the final separation scores, the layer curve, the metrics of the test split, and the pictures."""
        from torch.utils.tensorboard.summary import hparams

        results, test = record.results, record.dataset.test
        self._scalars(dict(_scores(results.separation_after, record)), results.epochs_done)
        if test is not None and results.test_accuracy is not None:
            figures = {f"accuracy/{test.split}": results.test_accuracy.value, f"loss/{test.split}": results.test_loss}
            self._scalars(figures, results.epochs_done)
        curve = results.layer_curve
        if curve is not None:
            tag = f"SI of each layer/{_name(curve.split, record)}"
            for depth, layer in enumerate(curve.layers):
                self._scalars({tag: layer.separation.si.value}, depth)
            rows = [f"| {depth} | `{layer.path}` |" for depth, layer in enumerate(curve.layers)]
            self._writer.add_text("layers", "\n".join(["| depth | layer |", "|---|---|", *rows]))
        self._pictures(*_PICTURES[1:])
        self._writer.file_writer.add_summary(hparams({}, {})[2])  # marks the run as finished
        self._writer.flush()

    def close(self) -> None:
        """Close the event file."""
        if self._writer is not None:
            self._writer.close()

    def _declare(self, record: RunRecord) -> None:
        """Write the settings of the run, and the names of the metrics by which TensorBoard compares runs."""
        from torch.utils.tensorboard.summary import hparams

        headline = record.dataset.test or record.dataset.evaluation
        name = record.dataset.name_of(headline)
        compared = dict.fromkeys((f"accuracy/{name}", f"loss/{name}", f"SI/{name}"), 0.0)
        for summary in hparams(_settings(record), compared)[:2]:
            self._writer.file_writer.add_summary(summary)

    def _scalars(self, figures: dict[str, Any], at: int) -> None:
        for tag, value in figures.items():
            self._writer.add_scalar(tag, value, at)
        self._writer.flush()

    def _pictures(self, *names: str) -> None:
        from PIL import Image

        for name in names:
            path = self._directory / f"{name}.png"
            if path.is_file():
                with Image.open(path) as picture:
                    self._writer.add_image(name, np.array(picture.convert("RGB")), dataformats="HWC")


def _scores(found: Any, record: RunRecord) -> Iterator[tuple[str, float]]:
    """Yield the TensorBoard tag and the value of every separation score, split by split."""
    from zoo_harness.separation.scores import SCORES

    for split in ("train", "evaluation", "test"):
        separation = found and getattr(found, split)
        for each in SCORES if separation else ():
            if score := separation.scores.get(each.key):
                name = {"train": "train", "evaluation": record.dataset.evaluation_name}.get(split, split)
                yield f"{each.title}/{name}", score.value


def _name(split: str, record: RunRecord) -> str:
    return record.dataset.evaluation_name if split == record.dataset.evaluation.split else split


def _settings(record: RunRecord) -> dict[str, str | float]:
    """Return the settings of a run as numbers and strings, because TensorBoard accepts no other types."""
    settings = record.settings
    chosen = {
        "backbone": record.backbone.name,
        "weights": record.weights.source,
        "dataset": record.dataset.title,
        "subset": record.dataset.subset,
        "recipe": settings.recipe,
        "unfreeze": settings.unfreeze,
        **asdict(settings.training),
        "input_size": settings.preprocessing.input_size,
        **{name: getattr(settings, name) for name in ("predict", "seed", "device", "precision", "deterministic")},
    }
    return {name: _plain(value) for name, value in chosen.items() if value is not None}


def _plain(value: object) -> str | float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
