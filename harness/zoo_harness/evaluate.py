"""One evaluation, start to finish: resolve, replace the head, freeze, train, score, write everything down.

The commands call :func:`plan` and then :func:`run`; everything that can be wrong with what the user asked for is found
by ``plan``, before anything is written.
"""

from __future__ import annotations

import contextlib
import datetime
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from zoo.backbone import Backbone, FeatureLayer, Preprocessing, Training, Tuning, WeightSource
from zoo.dataset import Dataset
from zoo.errors import DeclarationError, UsageError
from zoo_harness import checkpoint, provenance
from zoo_harness.card import render_card
from zoo_harness.choices import Subset
from zoo_harness.data import RunData, load_data
from zoo_harness.feature_input import Array
from zoo_harness.features import pool_features
from zoo_harness.interrupts import held_back
from zoo_harness.layer_curve import RAW_PIXELS
from zoo_harness.network import build_network
from zoo_harness.parameters import count_parameters
from zoo_harness.plots import plot_history, plot_samples
from zoo_harness.preprocess import BatchTransform, resolve_preprocessing
from zoo_harness.run_directory import RunDirectory
from zoo_harness.run_record import (
    EpochRecord,
    Results,
    RunRecord,
    SeparationRecord,
    SettingsRecord,
)
from zoo_harness.split_separation import split_separation
from zoo_harness.surgery import TunedNetwork, capture, match_modules, prepare
from zoo_harness.train import (
    EVALUATION_BATCH_SIZE,
    Conditions,
    Evaluation,
    Progress,
    evaluate_split,
    fine_tune,
)
from zoo_harness.weights import load_weights


@dataclass(frozen=True)
class Request:
    """What the user asked for, names resolved."""

    backbone: Backbone
    dataset: Dataset
    argument: str | None
    tuning: Tuning
    unfreeze: tuple[str, ...] | None
    layer: FeatureLayer
    weights: WeightSource
    training: Training
    subset: Subset
    conditions: Conditions
    data_dir: Path | None
    command: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """A run that is ready to go: network prepared, data decoded, record begun."""

    request: Request
    tuned: TunedNetwork
    data: RunData
    record: RunRecord


def plan(request: Request, progress: Progress) -> Plan:
    """Prepare a run; nothing is written yet. Raises a :class:`~zoo.errors.ZooError` for whatever cannot be."""
    torch.manual_seed(request.conditions.seed)
    tuning = _with_own_modules(request)
    network = build_network(request.backbone.name, request.backbone.network)
    if request.unfreeze is not None:
        _check_modules(network, request.unfreeze)
    progress.stage(f"loading weights of {request.backbone.name}", 0)
    weights = load_weights(network, request.backbone, request.weights)
    preprocessing = resolve_preprocessing(request.backbone, network, request.tuning)
    progress.stage(f"loading {request.dataset.title}", 0)
    data = load_data(request.dataset, request.argument, request.data_dir, request.subset, BatchTransform(preprocessing))
    if request.training.epochs and len(data.train) < 2:
        raise UsageError(
            f"training needs at least 2 images, given {len(data.train)}; --epochs 0 scores without training"
        )
    network.to(request.conditions.device)
    network.to(memory_format=torch.channels_last)  # faster convolutions, same weights
    example, _labels = data.train.batch(np.arange(1), request.conditions.device)
    tuned = prepare(network, tuning, len(data.record.classes), example)
    _check_layer(tuned, request.layer, example)
    record = RunRecord(
        status="running",
        command=request.command,
        started=_now(),
        ended=None,
        backbone=provenance.backbone_record(request.backbone, request.tuning),
        weights=weights,
        dataset=data.record,
        settings=_settings(request, tuning, preprocessing),
        parameters=count_parameters(tuned),
        versions=provenance.versions(),
        host=provenance.host(request.conditions.device),
        results=_NOTHING_YET,
        checkpoint_sha256=None,
    )
    return Plan(request, tuned, data, record)


def run(
    planned: Plan, directory: RunDirectory, progress: Progress, announce: Callable[[EpochRecord], None]
) -> RunRecord:
    """Carry a plan out, writing the run directory as it goes; return the finished record.

    ``announce`` gets every epoch as it ends. A run that is interrupted or fails leaves its history, the checkpoint of
    its last whole epoch, and a record that says so.
    """
    session = _Session(planned, directory, progress, announce)
    directory.write_record(planned.record)
    try:
        session.score_raw_pixels()
        session.score_before()
        session.train()
        session.score_after()
    except KeyboardInterrupt:
        session.close("interrupted")
        raise
    except BaseException:
        with contextlib.suppress(OSError):  # a disk that is full: the first error tells it
            session.close("failed")
        raise
    return session.close("finished")


class _Session:
    """The state of one run while it runs."""

    def __init__(
        self,
        planned: Plan,
        directory: RunDirectory,
        progress: Progress,
        announce: Callable[[EpochRecord], None],
    ) -> None:
        self.record = planned.record
        self._plan = planned
        self._directory = directory
        self._progress = progress
        self._announce = announce
        self._started = time.perf_counter()
        self._history: list[EpochRecord] = []
        self._last: Evaluation | None = None
        self._layer = planned.request.layer

    def score_raw_pixels(self) -> None:
        """Separation of the images themselves, and the sample grid."""
        data = self._plan.data
        plot_samples(
            data.evaluation.images, data.evaluation.labels.numpy(), data.record.classes, self._directory.samples
        )
        separation = self._separation(RAW_PIXELS, data.train.raw_pixels, data.evaluation.raw_pixels, RAW_PIXELS)
        self._update(separation_raw_pixels=separation)

    def score_before(self) -> None:
        """Separation that the weights give as they came."""
        train = self._evaluate("train", "before")
        self._last = self._evaluate("evaluation", "before")
        separation = self._separation(self._layer.path, train.features, self._last.features, "features, before")
        self._update(separation_before=separation)

    def train(self) -> None:
        """Fine-tune, keeping history and checkpoint up to date after every epoch."""
        request = self._plan.request
        fine_tune(
            self._plan.tuned,
            self._plan.data.train,
            self._plan.data.evaluation,
            request.training,
            request.conditions,
            self._layer,
            self._after_epoch,
            self._progress,
        )
        if request.training.epochs == 0:
            self._save_checkpoint()

    def score_after(self) -> None:
        """Final accuracy and separation; the evaluation split was scored by the last epoch."""
        assert self._last is not None  # noqa: S101 - score_before has set it
        train = self._evaluate("train", "after")
        separation = self._separation(self._layer.path, train.features, self._last.features, "features, after")
        self._update(
            evaluation_loss=self._last.loss,
            accuracy=self._last.accuracy,
            train_accuracy=train.accuracy,
            separation_after=separation,
        )

    def close(self, status: Literal["finished", "interrupted", "failed"]) -> RunRecord:
        """Write the record for the last time, with the card and the plots."""
        with held_back():
            self._update(
                total_seconds=time.perf_counter() - self._started, peak_memory_gib=provenance.peak_memory_gib()
            )
            plot_history(self._history, self._directory.path)
            ending = {
                "status": status,
                "ended": _now(),
                "plots": self._directory.plots(),
                "checkpoint_sha256": checkpoint.digest(self._directory.path),
            }
            self.record = self.record.model_copy(update=ending)
            self._directory.finish(self.record, render_card(self.record))
        return self.record

    def _after_epoch(self, epoch: EpochRecord, result: Evaluation) -> None:
        with held_back():  # history, checkpoint and record speak of the same epoch
            self._save_checkpoint()
            self._directory.append_epoch(epoch)
            self._history.append(epoch)
            self._last = result
            count = len(self._history)
            self._update(
                epochs_done=epoch.epoch,
                evaluation_loss=result.loss,
                accuracy=result.accuracy,
                mean_train_seconds=sum(line.train_seconds for line in self._history) / count,
                mean_evaluation_seconds=sum(line.evaluation_seconds for line in self._history) / count,
            )
            self._announce(epoch)

    def _save_checkpoint(self) -> None:
        checkpoint.save_checkpoint(self._plan.tuned.network, self._directory.path)
        checkpoint.save_configuration(self._plan.tuned.network, self.record, self._directory.path)

    def _evaluate(self, split: Literal["train", "evaluation"], when: str) -> Evaluation:
        data = self._plan.data.train if split == "train" else self._plan.data.evaluation
        self._progress.stage(f"features of the {split} split, {when}", len(data))
        conditions = self._plan.request.conditions
        return evaluate_split(self._plan.tuned, data, conditions, self._layer, self._progress)

    def _separation(
        self, layer: str, train: Array | Tensor, evaluation: Array | Tensor, called: str
    ) -> SeparationRecord:
        data, conditions = self._plan.data, self._plan.request.conditions
        scores = {}
        for split, features, images in (("train", train, data.train), ("evaluation", evaluation, data.evaluation)):
            self._progress.stage(f"separation of {called}: {split} split, {len(images):,} images", 0)
            scores[split] = split_separation(features, images.labels, conditions)
        return SeparationRecord(layer=layer, **scores)

    def _update(self, **results: object) -> None:
        updated = self.record.results.model_copy(update=results)
        self.record = self.record.model_copy(update={"results": updated})
        self._directory.write_record(self.record)


def _with_own_modules(request: Request) -> Tuning:
    if request.unfreeze is None:
        return request.tuning
    return replace(request.tuning, unfreeze=request.unfreeze, source=None)


def _check_modules(network: nn.Module, patterns: tuple[str, ...]) -> None:
    try:
        match_modules(network, patterns)
    except DeclarationError as error:  # the user wrote these, not a plugin
        raise UsageError(f"--unfreeze: {error}") from error


def _check_layer(tuned: TunedNetwork, layer: FeatureLayer, example: Tensor) -> None:
    """Run the layer that is scored on one image, so that a wrong declaration is told before anything is written."""
    tuned.eval()
    with torch.no_grad(), capture(tuned.network, [layer.path]) as outputs:
        tuned.logits(example)
    if layer.path not in outputs:
        raise DeclarationError(f"feature layer {layer.path!r} exists but never runs")
    pool_features(outputs[layer.path], layer)


def _settings(request: Request, tuning: Tuning, preprocessing: Preprocessing) -> SettingsRecord:
    return SettingsRecord(
        recipe=tuning.recipe,
        recipe_source=tuning.source,
        unfreeze=tuning.unfreeze,
        head=tuning.head,
        training=request.training,
        preprocessing=preprocessing,
        predict=request.conditions.predict,
        seed=request.conditions.seed,
        device=str(request.conditions.device),
        precision=request.conditions.precision,
        evaluation_batch_size=EVALUATION_BATCH_SIZE,
    )


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


_NOTHING_YET = Results(
    epochs_done=0,
    evaluation_loss=None,
    accuracy=None,
    train_accuracy=None,
    separation_raw_pixels=None,
    separation_before=None,
    separation_after=None,
    mean_train_seconds=None,
    mean_evaluation_seconds=None,
    total_seconds=None,
    peak_memory_gib=None,
)
