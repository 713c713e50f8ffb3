"""Prepare a run: load weights and data, replace the head, freeze parameters, and create the run's record.

:func:`prepare_run` raises an error for every mistake in a request before any file is written. Afterwards
:func:`zoo_harness.runs.session.execute_run` executes the prepared run.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from zoo.backbone import Preprocessing, Tuning
from zoo.errors import DeclarationError, UsageError, ZooError
from zoo.weights import FileWeights
from zoo_harness.compute.context import ComputeContext
from zoo_harness.compute.device import choose_device
from zoo_harness.compute.distributed import ALONE, Processes
from zoo_harness.compute.precision import check_precision
from zoo_harness.data.loading import RunData
from zoo_harness.evaluation.split_evaluation import EVALUATION_BATCH_SIZE
from zoo_harness.evaluation.split_scores import check_settings
from zoo_harness.models.build import build_network
from zoo_harness.models.feature_pooling import check_layer
from zoo_harness.models.input_size import LoadedNetwork, load_network
from zoo_harness.models.modules import match_modules
from zoo_harness.models.surgery import frozen_batch_norms, prepare, warn_if_output_differs_from_head
from zoo_harness.models.tuned_network import TunedNetwork, count_parameters
from zoo_harness.records.checkpoint_choice import run_of_weights
from zoo_harness.records.run import Results, RunRecord, SettingsRecord, now, read_run
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
    """A prepared run: the network, the decoded data, the run's record without results, and warnings for the user."""

    request: Request
    tuned: TunedNetwork
    data: RunData
    record: RunRecord
    warnings: tuple[str, ...] = ()


def compute_context(values: Mapping[str, Any], processes: Processes = ALONE) -> ComputeContext:
    """Check the options for device, precision and seed, and return them as a :class:`ComputeContext`."""
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
    """Prepare a run without writing any file; raise a :class:`~zoo.errors.ZooError` for any mistake in the request."""
    backbone, compute, tuning = request.backbone, request.compute, request.tuning
    torch.manual_seed(compute.seed)
    network = build_network(backbone.name, backbone.network)
    if request.unfreeze is not None:
        _check_modules(network, request.unfreeze)
        tuning = replace(tuning, unfreeze=request.unfreeze, source=None)
    if request.frozen_batchnorm == "train":
        _check_frozen_batchnorm(network, tuning)
    progress.stage(f"loading weights of {backbone.name}", 0)
    loaded = load_network(network, backbone, request.weights, request.tuning, request.input_size)
    network = loaded.network
    data = request.load(loaded.preprocessing, progress, with_test=request.with_test)
    sizes = len(data.train), len(data.evaluation), data.record.evaluation.split
    check_sizes(*sizes, request.training.epochs, compute.processes.count)
    few = check_settings(request.separation, data.record)
    network.to(compute.device)
    network.to(memory_format=torch.channels_last)  # this makes convolutions faster; the weights do not change
    example, _labels = data.train.batch(np.arange(1), compute.device)
    tuned = prepare(network, tuning, len(data.record.classes), example, frozen_batchnorm=request.frozen_batchnorm)
    check_layer(tuned, request.layer, example)
    record = RunRecord(
        status="running",
        command=request.command,
        started=now(),
        ended=None,
        backbone=provenance.backbone_record(backbone, request.tuning, tuned.network),
        weights=loaded.weights,
        dataset=data.record,
        settings=_settings(request, tuning, loaded._replace(preprocessing=data.preprocessing)),
        parameters=count_parameters(tuned),
        versions=provenance.versions(),
        host=provenance.host(compute.device, compute.processes.count),
        results=Results.model_validate(
            dict.fromkeys(Results.model_fields) | {"epochs_done": 0, "evaluation_split": data.record.evaluation_name}
        ),
        checkpoint_sha256=None,
    )
    warnings = (
        warn_if_output_differs_from_head(tuned, example),
        _warn_of_other_normalization(request, loaded.preprocessing),
    )
    return RunPlan(request, tuned, data, record, (*data.warnings, *few, *filter(None, warnings)))


def _warn_of_other_normalization(request: Request, preprocessing: Preprocessing) -> str | None:
    """Return a warning if the weights come from a run whose mean and standard deviation differ from the backbone's."""
    if request.normalization.source != "weights" or not isinstance(request.weights, FileWeights):
        return None
    with suppress(ZooError):  # the weights file is not in the folder of a run
        earlier = read_run(run_of_weights(Path(request.weights.path))).settings.preprocessing
        if (earlier.mean, earlier.std) != (preprocessing.mean, preprocessing.std):
            mean, std = (",".join(map(str, each)) for each in (earlier.mean, earlier.std))
            return (
                "the weights come from a run that used another mean and standard deviation than this run; try --mean "
                f"{mean} --std {std}"
            )
    return None


def _check_modules(network: nn.Module, patterns: tuple[str, ...]) -> None:
    try:
        match_modules(network, patterns)
    except DeclarationError as error:  # the user wrote the patterns, so the message must not blame the plugin
        raise UsageError(f"--unfreeze: {error}", code="no-such-module", option="unfreeze") from error


def _check_frozen_batchnorm(network: nn.Module, tuning: Tuning) -> None:
    heads = [part.path for part in tuning.head.parts]
    trained = [""] if "*" in tuning.unfreeze else [*match_modules(network, tuning.unfreeze), *heads]
    if not frozen_batch_norms(network, trained):
        message = (
            f"--frozen-batchnorm train needs frozen BatchNorm layers: the network has none outside "
            f"{', '.join(tuning.unfreeze)}; leave the option out"
        )
        raise UsageError(message, code="option-unused", option="frozen_batchnorm")


def _settings(request: Request, tuning: Tuning, loaded: LoadedNetwork) -> SettingsRecord:
    compute = request.compute
    return SettingsRecord(
        recipe=tuning.recipe,
        recipe_source=tuning.source,
        unfreeze=tuning.unfreeze,
        head=tuning.head,
        training=request.training,
        preprocessing=loaded.preprocessing,
        normalization=request.normalization.source,
        predict=compute.predict,
        seed=compute.seed,
        device=str(compute.device),
        precision=compute.precision,
        deterministic=compute.deterministic,
        compiled=compute.compiled,
        kept_as=compute.cache_dtype,
        separation=request.separation,
        default_input_size=loaded.default_input_size,
        frozen_batchnorm=request.frozen_batchnorm,
        evaluation_batch_size=EVALUATION_BATCH_SIZE,
    )
