"""Load the checkpoint of a run directory or of a published folder, without trusting its files."""

from __future__ import annotations

from pathlib import Path

import torch
from pydantic import ValidationError
from torch import nn

from zoo.architecture import Architecture, FactoryArchitecture, TimmArchitecture, TorchvisionArchitecture
from zoo.errors import UsageError, WeightsError, ZooError
from zoo.registry import load_registry
from zoo.text import one_line
from zoo_harness.checkpoints.config_checks import check_configuration
from zoo_harness.checkpoints.loaded_model import LoadedModel
from zoo_harness.checkpoints.opened import OpenedCheckpoint, open_checkpoint, open_verified
from zoo_harness.checkpoints.save import timm_config_of
from zoo_harness.checkpoints.tensor_checks import check_forms
from zoo_harness.models.build import build_network, unknown_network
from zoo_harness.models.surgery import replace_head
from zoo_harness.models.tensor_files import check_finite, read_safetensors
from zoo_harness.records.checkpoint_choice import choose_checkpoint
from zoo_harness.records.file_names import CONFIGURATION
from zoo_harness.records.run import RunRecord, record_file

LARGEST_TABLES = 2**31  # bytes of buffers, such as relative position tables; timm's networks need far less


def load_folder(
    folder: Path | OpenedCheckpoint,
    device: torch.device | str = "cpu",
    *,
    checkpoint: str | int | None = None,
    epoch: int | None = None,
) -> LoadedModel:
    """Load the model of a run directory, a published folder or an opened checkpoint.

    :func:`~zoo_harness.records.checkpoint_choice.choose_checkpoint` documents ``checkpoint`` and ``epoch``. The tensors
    are read from the open file whose digest was verified. Raises the same errors as :func:`zoo.load`.
    """
    with folder if isinstance(folder, OpenedCheckpoint) else open_checkpoint(folder) as opened:
        record = opened.record
        kept = choose_checkpoint(opened.directory, record, checkpoint, epoch)
        empty = rebuild(record, "meta")
        _check_tables(empty, record, str(record_file(opened.directory)))
        check_forms(opened.path, empty.state_dict(), opened.descriptor)
        if opened.published:
            check_configuration(opened.directory / CONFIGURATION, timm_config_of(empty, record))
        network, tensors = rebuild(record), read_safetensors(opened.path, opened.descriptor)
        check_finite(opened.path, tensors)
        network.load_state_dict(tensors)
    if kept is not None:
        _replace_weights(network, opened.directory / kept.file, kept.sha256)
        record = record.of_checkpoint(kept)
    return LoadedModel(network, record, record.main_epoch if kept is None else kept.epoch).to(device).eval()


def _replace_weights(network: nn.Module, path: Path, sha256: str) -> None:
    """Replace the trained weights of a network by the weights that the run saved after another epoch."""
    with open_verified(path, sha256) as file:
        source = Path(f"/dev/fd/{file.fileno()}")
        expected = network.state_dict()
        check_forms(path, expected, source, some=True)
        tensors = read_safetensors(path, source)
    check_finite(path, tensors)
    network.load_state_dict(expected | tensors)


def rebuild(record: RunRecord, device: str = "cpu") -> nn.Module:
    """Build the network that a run record describes, with the new head, but with initial instead of trained weights."""
    input_size = record.settings.preprocessing.input_size
    try:
        network = build_network(record.backbone.name, _architecture(record), device, input_size)
    except ZooError:
        raise
    except Exception as error:  # timm raises any error for an unsupported size
        size = "{} x {}".format(*input_size)
        message = f"the network {record.backbone.network} cannot be built for the {size} images of its record"
        raise WeightsError(f"{message}: {one_line(str(error)):.200}", code="network-does-not-run") from error
    replace_head(network, record.settings.head, len(record.dataset.classes))
    return network


def _check_tables(empty: nn.Module, record: RunRecord, where: str) -> None:
    """Refuse a record whose input size makes the network allocate gigabytes of buffers, such as position tables."""
    size = sum(buffer.nbytes for buffer in empty.buffers())
    if size > LARGEST_TABLES:
        images = "{} x {}".format(*record.settings.preprocessing.input_size)
        message = f"{where}: for {images} images the network {record.backbone.network} needs {size:,} bytes of buffers"
        raise WeightsError(f"{message}; expected at most {LARGEST_TABLES:,}", code="record-image-size", bytes=size)


def _architecture(record: RunRecord) -> Architecture:
    # The record is untrusted. timm would download for "hf-hub:..." and read files for "local-dir:...". torchvision's
    # detectors download a backbone, and a factory runs code. So accept only plain names that are registered here.
    from torchvision import models

    name, kind = record.backbone.network, record.backbone.network_kind
    try:
        match kind:
            case "timm":
                return TimmArchitecture(name)
            case "torchvision":
                if name not in (known := models.list_models(module=models)):  # only classifiers
                    raise unknown_network(record.backbone.name, "torchvision", name, known)
                return TorchvisionArchitecture(name)
            case "factory":
                return _declared_factory(record, FactoryArchitecture(name))
    except ValidationError as error:
        message = f"network name in the record is wrong: {name!r:.80}; expected a plain name of kind {kind}"
        raise WeightsError(message, code="network-name", given=name) from error


def _declared_factory(record: RunRecord, wanted: FactoryArchitecture) -> FactoryArchitecture:
    backbone = record.backbone
    declared = load_registry().backbones.get(backbone.name)
    if declared is None or declared.network != wanted:
        fault = "no installed plugin declares" if declared is None else "the installed plugin has another network for"
        raise UsageError(
            f"the run's network {backbone.network!r:.80} needs a plugin, but {fault} {backbone.name!r:.80}; if "
            f"you trust the plugin, install {backbone.distribution:.80} {backbone.version:.40}",
            code="network-not-declared",
            given=backbone.network,
        )
    return wanted
