"""Prepare a run: resolve names, load weights and data, replace the head, freeze, begin the record.

The commands call :func:`prepare_run`, then :func:`zoo_harness.runs.session.run`. :func:`prepare_run` finds every
mistake in the request before anything is written.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from zoo.backbone import Backbone, FeatureLayer, Preprocessing, Training, Tuning
from zoo.dataset import AS_FOUND, Dataset, ReadOptions
from zoo.errors import DeclarationError, UsageError
from zoo.weights import WeightSource
from zoo_harness.compute.context import ComputeContext
from zoo_harness.data.loading import RunData, load_data
from zoo_harness.data.transform import BatchTransform
from zoo_harness.evaluation.split_evaluation import EVALUATION_BATCH_SIZE
from zoo_harness.models.build import build_network
from zoo_harness.models.feature_pooling import check_layer
from zoo_harness.models.modules import match_modules
from zoo_harness.models.preprocessing import resolve_preprocessing
from zoo_harness.models.surgery import prepare, warn_if_output_differs_from_head
from zoo_harness.models.tuned_network import TunedNetwork, count_parameters
from zoo_harness.models.weights import load_weights
from zoo_harness.records.run import Results, RunRecord, SettingsRecord, now
from zoo_harness.records.subset import Subset
from zoo_harness.runs import provenance
from zoo_harness.util.progress import Progress


@dataclass(frozen=True)
class Request:
    """What the user asked for, names resolved.

    ``with_test``: the test split is kept, and looked at once at the end; ``layer_curve``: every declared layer of the
    trained network is scored.
    """

    backbone: Backbone
    dataset: Dataset
    argument: str | None
    tuning: Tuning
    unfreeze: tuple[str, ...] | None
    layer: FeatureLayer
    weights: WeightSource
    training: Training
    subset: Subset
    compute: ComputeContext
    data_dir: Path | None
    command: tuple[str, ...]
    with_test: bool = False
    layer_curve: bool = True
    options: ReadOptions = AS_FOUND


@dataclass(frozen=True)
class RunPlan:
    """A run that is ready to go: network prepared, data decoded, record begun; and what a user should be warned of."""

    request: Request
    tuned: TunedNetwork
    data: RunData
    record: RunRecord
    warnings: tuple[str, ...] = ()


def prepare_run(request: Request, progress: Progress) -> RunPlan:
    """Prepare a run; nothing is written yet. Raises a :class:`~zoo.errors.ZooError` for whatever cannot be."""
    torch.manual_seed(request.compute.seed)
    tuning = _with_own_modules(request)
    network = build_network(request.backbone.name, request.backbone.network)
    if request.unfreeze is not None:
        _check_modules(network, request.unfreeze)
    progress.stage(f"loading weights of {request.backbone.name}", 0)
    weights = load_weights(network, request.backbone, request.weights)
    preprocessing = resolve_preprocessing(request.backbone, network, request.tuning)
    progress.stage(f"loading {request.dataset.title}", 0)
    data = load_data(
        request.dataset,
        request.argument,
        request.data_dir,
        request.subset,
        BatchTransform(preprocessing),
        with_test=request.with_test,
        options=request.options,
    )
    if request.training.epochs and len(data.train) < 2:
        raise UsageError(
            f"training needs at least 2 images, given {len(data.train)}; --epochs 0 scores without training"
        )
    _check_enough_for_all(data, request.compute.processes.count)
    network.to(request.compute.device)
    network.to(memory_format=torch.channels_last)  # faster convolutions, same weights
    example, _labels = data.train.batch(np.arange(1), request.compute.device)
    tuned = prepare(network, tuning, len(data.record.classes), example)
    check_layer(tuned, request.layer, example)
    record = RunRecord(
        status="running",
        command=request.command,
        started=now(),
        ended=None,
        backbone=provenance.backbone_record(request.backbone, request.tuning, tuned.network),
        weights=weights,
        dataset=data.record,
        settings=_settings(request, tuning, preprocessing),
        parameters=count_parameters(tuned),
        versions=provenance.versions(),
        host=provenance.host(request.compute.device, request.compute.processes.count),
        results=_NOTHING_YET,
        checkpoint_sha256=None,
    )
    unlike = warn_if_output_differs_from_head(tuned, example)
    return RunPlan(request, tuned, data, record, (*data.warnings, *([unlike] if unlike else [])))


def _check_enough_for_all(data: RunData, processes: int) -> None:
    for split, images in (("training", len(data.train)), (data.record.evaluation.split, len(data.evaluation))):
        if images < processes:
            raise UsageError(f"{processes} processes cannot share the {images} {split} image(s); start fewer")


def _with_own_modules(request: Request) -> Tuning:
    if request.unfreeze is None:
        return request.tuning
    return replace(request.tuning, unfreeze=request.unfreeze, source=None)


def _check_modules(network: nn.Module, patterns: tuple[str, ...]) -> None:
    try:
        match_modules(network, patterns)
    except DeclarationError as error:  # the user wrote these, not a plugin
        raise UsageError(f"--unfreeze: {error}") from error


def _settings(request: Request, tuning: Tuning, preprocessing: Preprocessing) -> SettingsRecord:
    return SettingsRecord(
        recipe=tuning.recipe,
        recipe_source=tuning.source,
        unfreeze=tuning.unfreeze,
        head=tuning.head,
        training=request.training,
        preprocessing=preprocessing,
        predict=request.compute.predict,
        seed=request.compute.seed,
        device=str(request.compute.device),
        precision=request.compute.precision,
        deterministic=request.compute.deterministic,
        compiled=request.compute.compiled,
        kept_as=request.compute.cache_dtype,
        evaluation_batch_size=EVALUATION_BATCH_SIZE,
    )


_NOTHING_YET = Results(
    epochs_done=0,
    evaluation_loss=None,
    accuracy=None,
    train_accuracy=None,
    separation_raw_pixels=None,
    separation_before=None,
    separation_after=None,
    frozen_part=None,
    mean_train_seconds=None,
    mean_evaluation_seconds=None,
    total_seconds=None,
    peak_memory_gib=None,
)
