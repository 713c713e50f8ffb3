"""Writes a tuned network so that others can load it, and loads it back, from a folder or from the Hub.

``model.safetensors`` holds every tensor under the network's own names. ``config.json`` is what timm and transformers
read. A head they do not know (the MLP of recipe ``paper``) or a network timm did not build gets a configuration that
they refuse by name, because loading it with a random head would be worse than an error.
"""

from __future__ import annotations

import json
import os
import shlex
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from zoo.backbone import Architecture, FactoryArchitecture, TimmArchitecture, TorchvisionArchitecture
from zoo.errors import UsageError, WeightsError, near_misses, shortened
from zoo.registry import load_registry
from zoo_harness.atomic import write_text
from zoo_harness.checkpoint_place import find_checkpoint
from zoo_harness.configuration_check import check_configuration
from zoo_harness.device import choose_device
from zoo_harness.foreign_repository import what_it_seems
from zoo_harness.image_input import Images, as_batches
from zoo_harness.markdown import one_line
from zoo_harness.network import build_network
from zoo_harness.preprocess import BatchTransform
from zoo_harness.published_files import RECORD
from zoo_harness.record_check import check_record
from zoo_harness.run_record import RUN, RunRecord, read_run, record_file
from zoo_harness.surgery import TunedNetwork, replace_head
from zoo_harness.tensor_files import sha256_of, write_tensors
from zoo_harness.train import prediction
from zoo_harness.verified_tensors import check_digest, check_forms, declared_forms, finite_tensors, forms_of

CHECKPOINT = "model.safetensors"
CONFIGURATION = "config.json"


def save_checkpoint(network: nn.Module, directory: Path) -> None:
    """Write ``model.safetensors``.

    Tensors that share memory are written one by one, so that every loader finds each name.
    """
    write_tensors(directory / CHECKPOINT, network.state_dict(), {"format": "pt"})


def digest(directory: Path) -> str | None:
    """The SHA-256 of the checkpoint in a run directory, ``None`` where there is none."""
    path = directory / CHECKPOINT
    return sha256_of(path) if path.is_file() else None


def save_configuration(network: nn.Module, record: RunRecord, directory: Path) -> None:
    """Write ``config.json`` for timm's and transformers' loaders, or one that they refuse by name."""
    content = _configuration(network, record)
    write_text(directory / CONFIGURATION, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def _configuration(network: nn.Module, record: RunRecord) -> dict[str, Any]:
    content = _timm_configuration(network, record) if record.loads_in_timm else _refusal(record)
    content["label_names"] = list(record.dataset.classes)
    content["zoo"] = {"backbone": record.backbone.name, "recipe": record.settings.recipe}
    return content


def load(path_or_repository: str | Path, device: str = "cpu") -> LoadedModel:
    """The fine-tuned model of a run directory or of a published repository, in inference mode.

    A string that names an existing folder is a path; else it is ``OWNER/NAME`` or ``OWNER/NAME@REVISION`` on the Hub,
    fetched once and then read from the Hub's cache. ``device`` is ``auto``, ``cpu``, ``cuda`` or ``cuda:N``. Nothing of
    it is executed. Raises :class:`~zoo.errors.UsageError` where there is no finished checkpoint, and
    :class:`~zoo.errors.WeightsError` where the file is not the one the run wrote, or not of the network it names, or
    where a published ``config.json`` contradicts the record.
    """
    chosen = choose_device(device)  # before anything is fetched
    return load_folder(find_checkpoint(path_or_repository).path, chosen)


def load_folder(directory: Path, device: torch.device) -> LoadedModel:
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
        check_configuration(directory / CONFIGURATION, _configuration(empty, record))
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


class LoadedModel(nn.Module):
    """A published or local checkpoint, ready to predict.

    ``classes`` are the names in label order, ``record`` is the run that made it, ``network`` the bare module.
    """

    def __init__(self, network: nn.Module, record: RunRecord) -> None:
        super().__init__()
        self.network = network
        self.record = record
        self.classes = record.dataset.classes
        self._transform = BatchTransform(record.settings.preprocessing)

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``(B, classes)`` for preprocessed images, by the run's own rule where there are two heads."""
        heads = tuple(head.path for head in self.record.settings.head.parts)
        return prediction(TunedNetwork(self.network, heads, heads).logits(images), self.record.settings.predict)

    def preprocess(self, images: Images) -> Tensor:
        """Network input ``(B, 3, h, w)`` in float32, on the model's device, for one image or many.

        ``images`` is a PIL image of any mode of 8 or 16 bits, or a list of them, of any sizes; or a uint8 numpy array
        or torch tensor, one image ``(H, W)`` or ``(H, W, 3)`` or a batch ``(B, H, W)`` or ``(B, H, W, 3)``. Three
        dimensions are one colour image where the last is 3, else a batch of grey images. Raises
        :class:`~zoo.errors.UsageError` for anything else, :class:`~zoo.errors.DataError` for what cannot be decoded.
        """
        device = next(self.network.parameters()).device
        sized = [self._transform.resize_and_crop(batch.to(device)) for batch in as_batches(images)]
        return self._transform.normalise(torch.cat(sized))

    @torch.inference_mode()
    def predict(self, images: Images) -> list[str]:
        """Class names, one for each image; ``images`` as for :meth:`preprocess`."""
        best = self(self.preprocess(images)).argmax(1)
        return [self.classes[index] for index in best.tolist()]

    @torch.inference_mode()
    def top(self, images: Images, k: int = 3) -> list[list[tuple[str, float]]]:
        """The ``k`` likeliest classes of each image with their probabilities, likeliest first; all where ``k`` is more.

        ``images`` as for :meth:`preprocess`. The probabilities are the softmax of the logits, as the network was
        trained to give them, and no more certain than that.
        """
        return self.likeliest(self(self.preprocess(images)), k)

    def likeliest(self, logits: Tensor, k: int) -> list[list[tuple[str, float]]]:
        """What :meth:`top` makes of logits ``(B, classes)``."""
        if not isinstance(k, int) or k < 1:
            raise UsageError(f"top: k is {shortened(k)}, expected a whole number, 1 or more")
        values, places = logits.double().softmax(1).topk(min(k, len(self.classes)))
        return [
            [(self.classes[place], value) for place, value in zip(*row, strict=True)]
            for row in zip(places.tolist(), values.tolist(), strict=True)
        ]

    @torch.inference_mode()
    def check_that_it_runs(self) -> None:
        """Raise :class:`~zoo.errors.WeightsError` where the network does not take images of the record's size."""
        height, width = self.record.settings.preprocessing.input_size
        try:
            logits = self(self.preprocess(torch.zeros(height, width, dtype=torch.uint8)))
        except (RuntimeError, AssertionError, ValueError) as error:  # what layers raise of shapes they do not take
            raise WeightsError(
                f"the network {self.record.backbone.network} does not run on the {height} x {width} images of its "
                f"record: {error!s:.200}"
            ) from error
        if logits.shape != (1, len(self.classes)):
            raise WeightsError(
                f"the network {self.record.backbone.network} gives {tuple(logits.shape)} for one image, the record has "
                f"{len(self.classes)} classes"
            )


def _timm_configuration(network: nn.Module, record: RunRecord) -> dict[str, Any]:
    # timm exports this function only together with one that also writes a second copy of the weights.
    from timm.models._hub import save_config_for_hf

    preprocessing = record.settings.preprocessing
    data_config = {
        "input_size": (3, *preprocessing.input_size),
        "mean": preprocessing.mean,
        "std": preprocessing.std,
        "interpolation": preprocessing.interpolation,
        "crop_pct": preprocessing.crop_fraction,
        "crop_mode": preprocessing.crop_mode,
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / CONFIGURATION
        save_config_for_hf(network, str(path), data_config=data_config)
        content: dict[str, Any] = json.loads(path.read_text())
    # transformers passes num_classes itself, and fails on a second one (timm 1.0.31, transformers 5.23.0).
    content.get("model_args", {}).pop("num_classes", None)
    return content


def _refusal(record: RunRecord) -> dict[str, Any]:
    # No dot before the first words: timm takes what stands before one for the architecture.
    return {
        "architecture": f"not timm's, load it with zoo.load ({record.backbone.network})",
        "model_type": f"not of transformers, load it with zoo.load ({record.backbone.network})",
        "num_classes": len(record.dataset.classes),
    }
