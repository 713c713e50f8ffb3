"""Writes a tuned network so that others can load it, and loads it back, from a folder or from the Hub.

``model.safetensors`` holds every tensor under the network's own names. ``config.json`` is what timm and transformers
read. A head they do not know (the MLP of recipe ``paper``) or a network timm did not build gets a configuration that
they refuse by name, because loading it with a random head would be worse than an error.
"""

from __future__ import annotations

import json
import os
import shlex
from importlib.metadata import version
from pathlib import Path

import torch
from pydantic import ValidationError
from torch import nn

from zoo.architecture import Architecture, FactoryArchitecture, TimmArchitecture, TorchvisionArchitecture
from zoo.errors import UsageError, WeightsError, near_misses
from zoo.registry import load_registry
from zoo_harness.checkpoints.config_checks import check_configuration
from zoo_harness.checkpoints.foreign import what_it_seems
from zoo_harness.checkpoints.loaded_model import LoadedModel
from zoo_harness.checkpoints.save import timm_config_of
from zoo_harness.checkpoints.tensor_checks import check_digest, check_forms, declared_forms, finite_tensors, forms_of
from zoo_harness.models.build import build_network
from zoo_harness.models.surgery import replace_head
from zoo_harness.records.file_names import CHECKPOINT, CONFIGURATION, RECORD
from zoo_harness.records.run import RUN, RunRecord, read_run, record_file
from zoo_harness.records.untrusted import check_record
from zoo_harness.util.text import one_line


def load_folder(directory: Path, device: torch.device | str = "cpu") -> LoadedModel:
    """The model of a run directory or a published tree; raises as :func:`load` does."""
    if directory.is_dir() and not record_file(directory).exists():
        raise UsageError(_what_instead(directory))
    record = read_run(directory)
    checkpoint = directory / CHECKPOINT
    if record.checkpoint_sha256 is None or not checkpoint.is_file():
        raise UsageError(_why_not_loaded(record, directory))
    found_in = record_file(directory)
    check_record(record, str(found_in), checkpoint.stat().st_size, published=found_in.name == RECORD)
    check_digest(checkpoint, record.checkpoint_sha256)
    empty = rebuild(record, "meta")
    check_forms(checkpoint, declared_forms(checkpoint), forms_of(empty.state_dict()))
    if found_in.name == RECORD:
        check_configuration(directory / CONFIGURATION, timm_config_of(empty, record))
    network = rebuild(record)
    network.load_state_dict(finite_tensors(checkpoint))
    return LoadedModel(network, record).to(device).eval()


def _what_instead(directory: Path) -> str:
    names = sorted(path.name for path in directory.iterdir())
    there = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
    seems = what_it_seems(str(directory), names, _small_json(directory / CONFIGURATION), local=True)
    return one_line(
        f"{directory} is not a run directory and no published checkpoint: it has neither {RUN} nor {RECORD} (it has "
        f"{there or 'nothing'}){'; ' + seems if names else ''}"
    )


def _small_json(path: Path) -> object:
    try:
        return json.loads(path.read_bytes()) if path.is_file() and path.stat().st_size < 2**20 else None
    except (OSError, ValueError, RecursionError):  # it is but a hint
        return None


def _why_not_loaded(record: RunRecord, directory: Path) -> str:
    if record_file(directory).name == RECORD:
        if os.path.lexists(path := directory / CHECKPOINT):
            return f"{path} is not a regular file but {_kind(path)}: fetch all of it anew"
        return f"{directory} holds no {CHECKPOINT}, only its record: fetch all of it anew"
    epochs = f"{record.results.epochs_done} of {record.settings.training.epochs}"
    state = "still runs, or was killed" if record.status == "running" else f"is {record.status}"
    resume = shlex.join(["zoo", "eval", "--resume", str(directory)])
    return f"{directory} holds no finished checkpoint: the run {state}, after {epochs} epochs; go on with {resume}"


def _kind(path: Path) -> str:
    if path.is_dir():
        return "a folder"
    return "a link that leads to none" if path.is_symlink() else "a device or a pipe"


def rebuild(record: RunRecord, device: str = "cpu") -> nn.Module:
    """The network of a record with its new head, weights not loaded; on ``device="meta"`` it takes no memory."""
    network = build_network(record.backbone.name, _architecture(record), device)
    replace_head(network, record.settings.head, len(record.dataset.classes))
    return network


def _architecture(record: RunRecord) -> Architecture:
    # A record is data. timm would fetch or read what "hf-hub:..." or "local-dir:..." names, torchvision's detectors
    # fetch a backbone, and a factory is code: only a name that is registered here, and is nothing but a name, goes on.
    name, kind = record.backbone.network, record.backbone.network_kind
    try:
        match kind:
            case "timm":
                return TimmArchitecture(name)
            case "torchvision":
                return _classifier_of_torchvision(name)
            case "factory":
                return _declared_factory(record, FactoryArchitecture(name))
    except ValidationError as error:
        raise WeightsError(f"the record names a network {name!r:.80} of kind {kind}, which is no such name") from error


def _classifier_of_torchvision(name: str) -> TorchvisionArchitecture:
    from torchvision import models

    if name not in (known := models.list_models(module=models)):
        near = near_misses(name, known)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise WeightsError(f"torchvision {version('torchvision')} has no classifier {name!r:.80}{hint}")
    return TorchvisionArchitecture(name)


def _declared_factory(record: RunRecord, wanted: FactoryArchitecture) -> FactoryArchitecture:
    backbone = record.backbone
    declared = load_registry().backbones.get(backbone.name)
    if declared is None:
        raise UsageError(
            f"the run's network {backbone.network!r:.80} comes with a plugin, and none that is installed declares "
            f"{backbone.name!r:.80}; if you trust it, install {backbone.distribution:.80} {backbone.version:.40}"
        )
    if declared.network != wanted:
        raise UsageError(
            f"the run's network {backbone.network!r:.80} is not the one that the installed plugin declares for "
            f"{backbone.name!r:.80}; install {backbone.distribution:.80} {backbone.version:.40}"
        )
    return wanted
