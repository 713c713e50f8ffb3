"""Prepare a run: load weights and data, replace the head, freeze, begin the record.

:func:`prepare_run` finds every mistake in a request before anything is written; then
:func:`zoo_harness.runs.session.execute_run` executes the plan.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from zoo.backbone import Preprocessing, Tuning
from zoo.errors import DeclarationError, UsageError
from zoo_harness.compute.context import ComputeContext
from zoo_harness.compute.device import choose_device
from zoo_harness.compute.distributed import ALONE, Processes
from zoo_harness.compute.precision import check_precision
from zoo_harness.data.loading import RunData
from zoo_harness.evaluation.split_evaluation import EVALUATION_BATCH_SIZE
from zoo_harness.models.build import build_network
from zoo_harness.models.feature_pooling import check_layer
from zoo_harness.models.modules import match_modules
from zoo_harness.models.preprocessing import resolve_preprocessing
from zoo_harness.models.surgery import prepare, warn_if_output_differs_from_head
from zoo_harness.models.tuned_network import TunedNetwork, count_parameters
from zoo_harness.models.weights import load_weights
from zoo_harness.records.run import Results, RunRecord, SettingsRecord, now
from zoo_harness.runs import provenance
from zoo_harness.runs.opening import check_sizes
from zoo_harness.runs.request import RunSettings
from zoo_harness.util.progress import Progress


@dataclass(frozen=True, kw_only=True)
class Request(RunSettings):
    """The checked settings of a run, and its device, precision and seed."""

    compute: ComputeContext


@dataclass(frozen=True)
class RunPlan:
    """A prepared run: the network, the decoded data, the record so far, and warnings for the user."""

    request: Request
    tuned: TunedNetwork
    data: RunData
    record: RunRecord
    warnings: tuple[str, ...] = ()


def compute_context(values: Mapping[str, Any], processes: Processes = ALONE) -> ComputeContext:
    """Return the device, precision and seed that the options of a command choose, all checked."""
    device = choose_device(values["device"], processes)
    return ComputeContext(
        device=device,
        precision=check_precision(values["precision"], device),
        predict=values.get("predict", "cls"),
        seed=values["seed"],
        deterministic=values.get("deterministic", False),
        compiled=values.get("compile", False),
        cache_dtype=values.get("cache_dtype", "exact"),
        processes=processes,
    )


def prepare_run(request: Request, progress: Progress) -> RunPlan:
    """Prepare a run; nothing is written yet. Raises a :class:`~zoo.errors.ZooError` for any mistake in the request."""
    backbone, compute, tuning = request.backbone, request.compute, request.tuning
    torch.manual_seed(compute.seed)
    network = build_network(backbone.name, backbone.network)
    if request.unfreeze is not None:
        _check_modules(network, request.unfreeze)
        tuning = replace(tuning, unfreeze=request.unfreeze, source=None)
    progress.stage(f"loading weights of {backbone.name}", 0)
    weights = load_weights(network, backbone, request.weights)
    preprocessing = resolve_preprocessing(backbone, network, request.tuning)
    data = request.load(preprocessing, progress, with_test=request.with_test)
    sizes = len(data.train), len(data.evaluation), data.record.evaluation.split
    check_sizes(*sizes, request.training.epochs, compute.processes.count)
    network.to(compute.device)
    network.to(memory_format=torch.channels_last)  # faster convolutions, same weights
    example, _labels = data.train.batch(np.arange(1), compute.device)
    tuned = prepare(network, tuning, len(data.record.classes), example)
    check_layer(tuned, request.layer, example)
    record = RunRecord(
        status="running",
        command=request.command,
        started=now(),
        ended=None,
        backbone=provenance.backbone_record(backbone, request.tuning, tuned.network),
        weights=weights,
        dataset=data.record,
        settings=_settings(request, tuning, preprocessing),
        parameters=count_parameters(tuned),
        versions=provenance.versions(),
        host=provenance.host(compute.device, compute.processes.count),
        results=Results.model_validate(dict.fromkeys(Results.model_fields) | {"epochs_done": 0}),
        checkpoint_sha256=None,
    )
    warning = warn_if_output_differs_from_head(tuned, example)
    return RunPlan(request, tuned, data, record, data.warnings + ((warning,) if warning else ()))


def _check_modules(network: nn.Module, patterns: tuple[str, ...]) -> None:
    try:
        match_modules(network, patterns)
    except DeclarationError as error:  # the user wrote these, not a plugin
        raise UsageError(f"--unfreeze: {error}", code="no-such-module", option="unfreeze") from error


def _settings(request: Request, tuning: Tuning, preprocessing: Preprocessing) -> SettingsRecord:
    compute = request.compute
    return SettingsRecord(
        recipe=tuning.recipe,
        recipe_source=tuning.source,
        unfreeze=tuning.unfreeze,
        head=tuning.head,
        training=request.training,
        preprocessing=preprocessing,
        predict=compute.predict,
        seed=compute.seed,
        device=str(compute.device),
        precision=compute.precision,
        deterministic=compute.deterministic,
        compiled=compute.compiled,
        kept_as=compute.cache_dtype,
        evaluation_batch_size=EVALUATION_BATCH_SIZE,
    )
