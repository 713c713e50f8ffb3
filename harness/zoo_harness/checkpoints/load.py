"""Loads the checkpoint of a run directory or of a published folder, which may come from a stranger."""

from __future__ import annotations

from pathlib import Path

import torch
from pydantic import ValidationError
from torch import nn

from zoo.architecture import Architecture, FactoryArchitecture, TimmArchitecture, TorchvisionArchitecture
from zoo.errors import UsageError, WeightsError
from zoo.registry import load_registry
from zoo_harness.checkpoints.config_checks import check_configuration
from zoo_harness.checkpoints.loaded_model import LoadedModel
from zoo_harness.checkpoints.opened import OpenedCheckpoint, open_checkpoint
from zoo_harness.checkpoints.save import timm_config_of
from zoo_harness.checkpoints.tensor_checks import check_forms
from zoo_harness.models.build import build_network, unknown_network
from zoo_harness.models.surgery import replace_head
from zoo_harness.models.tensor_files import check_finite, read_safetensors
from zoo_harness.records.file_names import CONFIGURATION
from zoo_harness.records.run import RunRecord


def load_folder(folder: Path | OpenedCheckpoint, device: torch.device | str = "cpu") -> LoadedModel:
    """Load the model of a run directory, a published tree or an opened checkpoint; raise what :func:`zoo.load` does.

    The tensors are read from the same open file whose digest was verified.
    """
    with folder if isinstance(folder, OpenedCheckpoint) else open_checkpoint(folder) as opened:
        record = opened.record
        empty = rebuild(record, "meta")
        check_forms(opened.path, empty.state_dict(), opened.descriptor)
        if opened.published:
            check_configuration(opened.directory / CONFIGURATION, timm_config_of(empty, record))
        network, tensors = rebuild(record), read_safetensors(opened.path, opened.descriptor)
        check_finite(opened.path, tensors)
        network.load_state_dict(tensors)
    return LoadedModel(network, record).to(device).eval()


def rebuild(record: RunRecord, device: str = "cpu") -> nn.Module:
    """Build the network of a record with its new head, without its weights; on device ``meta`` it takes no memory."""
    network = build_network(record.backbone.name, _architecture(record), device)
    replace_head(network, record.settings.head, len(record.dataset.classes))
    return network


def _architecture(record: RunRecord) -> Architecture:
    # A record is data. timm would fetch or read from "hf-hub:..." or "local-dir:...", torchvision's detectors fetch a
    # backbone, and a factory is code: only a name that is registered here, and is nothing but a name, is accepted.
    from torchvision import models

    name, kind = record.backbone.network, record.backbone.network_kind
    try:
        match kind:
            case "timm":
                return TimmArchitecture(name)
            case "torchvision":
                if name not in (known := models.list_models(module=models)):  # classifiers alone
                    raise unknown_network(record.backbone.name, "torchvision", name, known)
                return TorchvisionArchitecture(name)
            case "factory":
                return _declared_factory(record, FactoryArchitecture(name))
    except ValidationError as error:
        message = f"the record names a network {name!r:.80} of kind {kind}, which is no such name"
        raise WeightsError(message, code="network-name", given=name) from error


def _declared_factory(record: RunRecord, wanted: FactoryArchitecture) -> FactoryArchitecture:
    backbone = record.backbone
    declared = load_registry().backbones.get(backbone.name)
    if declared is None or declared.network != wanted:
        fault = "none that is installed declares" if declared is None else "the installed one declares another for"
        raise UsageError(
            f"the run's network {backbone.network!r:.80} comes with a plugin, and {fault} {backbone.name!r:.80}; if "
            f"you trust it, install {backbone.distribution:.80} {backbone.version:.40}",
            code="network-not-declared",
            given=backbone.network,
        )
    return wanted
