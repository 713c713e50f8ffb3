"""Writes a tuned network so that others can load it, and loads it back.

``model.safetensors`` holds every tensor under the network's own names. ``config.json`` is what timm and transformers
read. A head they do not know (the MLP of recipe ``paper``) or a network timm did not build gets a configuration that
they refuse by name, because loading it with a random head would be worse than an error.
"""

from __future__ import annotations

import json
import shlex
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zoo.backbone import Architecture, FactoryArchitecture, TimmArchitecture, TorchvisionArchitecture
from zoo.errors import UsageError, WeightsError
from zoo.registry import load_registry
from zoo_harness.atomic import write_text
from zoo_harness.image_input import Images, as_batches
from zoo_harness.network import build_network
from zoo_harness.preprocess import BatchTransform
from zoo_harness.run_record import RunRecord, read_run
from zoo_harness.surgery import TunedNetwork, replace_head
from zoo_harness.tensor_files import read_tensors, sha256_of, write_tensors
from zoo_harness.train import prediction

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
    content = _timm_configuration(network, record) if record.loads_in_timm else _refusal(record)
    content["label_names"] = list(record.dataset.classes)
    content["zoo"] = {"backbone": record.backbone.name, "recipe": record.settings.recipe}
    write_text(directory / CONFIGURATION, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def load(path: str | Path, device: str = "cpu") -> LoadedModel:
    """The fine-tuned model of a run directory, in inference mode.

    Raises :class:`~zoo.errors.UsageError` where the folder holds no finished checkpoint, and
    :class:`~zoo.errors.WeightsError` where the file is not the one the run wrote.
    """
    directory = Path(path).expanduser()
    record = read_run(directory)
    checkpoint = directory / CHECKPOINT
    if record.checkpoint_sha256 is None or not checkpoint.is_file():
        raise UsageError(_why_not_loaded(record, directory))
    found = digest(directory)
    if found != record.checkpoint_sha256:
        raise WeightsError(f"{checkpoint}: SHA-256 is {found}, the run wrote {record.checkpoint_sha256}")
    network = rebuild(record)
    expected = network.state_dict()
    tensors = read_tensors(checkpoint)
    faults = [name for name in {*expected, *tensors} if name not in expected or name not in tensors]
    faults += [name for name in expected if name in tensors and tensors[name].shape != expected[name].shape]
    if faults:
        raise WeightsError(f"{checkpoint}: {len(faults)} tensor(s) are not the recorded network's, e.g. {faults[0]!r}")
    network.load_state_dict(tensors)
    return LoadedModel(network, record).to(device).eval()


def _why_not_loaded(record: RunRecord, directory: Path) -> str:
    epochs = f"{record.results.epochs_done} of {record.settings.training.epochs}"
    state = "still runs, or was killed" if record.status == "running" else f"is {record.status}"
    resume = shlex.join(["zoo", "eval", "--resume", str(directory)])
    return f"{directory} holds no finished checkpoint: the run {state}, after {epochs} epochs; go on with {resume}"


def rebuild(record: RunRecord) -> nn.Module:
    """The network of a record with its new head, weights not loaded."""
    network = build_network(record.backbone.name, _architecture(record))
    replace_head(network, record.settings.head, len(record.dataset.classes))
    return network


def _architecture(record: RunRecord) -> Architecture:
    match record.backbone.network_kind:
        case "timm":
            return TimmArchitecture(record.backbone.network)
        case "torchvision":
            return TorchvisionArchitecture(record.backbone.network)
        case "factory":
            return _declared_factory(record)


def _declared_factory(record: RunRecord) -> FactoryArchitecture:
    # A record is data: the function it names is called only if an installed plugin declares that very one.
    declared = load_registry().backbone(record.backbone.name).network
    if declared != FactoryArchitecture(record.backbone.network):
        raise UsageError(
            f"the run's network {record.backbone.network!r} is not the one that the installed plugin declares for "
            f"{record.backbone.name!r}; install version {record.backbone.version} of {record.backbone.distribution}"
        )
    assert isinstance(declared, FactoryArchitecture)  # noqa: S101 - compared equal above
    return declared


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
        "num_classes": len(record.dataset.classes),
    }
