"""Save a fine-tuned network in the format that timm and transformers load.

``model.safetensors`` contains every tensor under its name in the network. timm and transformers read ``config.json``.
timm and transformers cannot load some networks, such as a network with the MLP head of recipe ``paper``. For such a
network, ``config.json`` makes timm and transformers raise an error, because loading a random head would be worse.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from zoo_harness.models.tensor_files import write_tensors
from zoo_harness.records.file_names import CHECKPOINT, CONFIGURATION
from zoo_harness.records.run import KeptCheckpoint, RunRecord
from zoo_harness.util.atomic_files import write_text
from zoo_harness.util.digests import sha256_of


def save_checkpoint(network: nn.Module, directory: Path) -> None:
    """Write ``model.safetensors``; tensors that share memory are written separately under each name."""
    write_tensors(directory / CHECKPOINT, network.state_dict(), {"format": "pt"})


def save_epoch(tensors: Mapping[str, Tensor], directory: Path, epoch: int) -> KeptCheckpoint:
    """Write the trained tensors after an epoch into the subfolder ``checkpoints/`` of a run directory."""
    written = KeptCheckpoint(epoch=epoch, sha256="0" * 64, bytes=0)
    path = directory / written.file
    path.parent.mkdir(exist_ok=True)
    write_tensors(path, tensors, {"format": "pt"})
    return written.model_copy(update={"sha256": sha256_of(path), "bytes": path.stat().st_size})


def digest(directory: Path) -> str | None:
    """Return the SHA-256 of the checkpoint in a run directory, or ``None`` if the directory has no checkpoint."""
    path = directory / CHECKPOINT
    return sha256_of(path) if path.is_file() else None


def save_configuration(network: nn.Module, record: RunRecord, directory: Path) -> None:
    """Write ``config.json``, which lets timm and transformers load the network or makes them raise a clear error."""
    content = timm_config_of(network, record)
    write_text(directory / CONFIGURATION, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def timm_config_of(network: nn.Module, record: RunRecord) -> dict[str, Any]:
    """Build the content of ``config.json``, which timm and transformers read."""
    content = _timm_configuration(network, record) if record.loads_in_timm else _refusal(record)
    content["label_names"] = list(record.dataset.classes)
    content["zoo"] = {"backbone": record.backbone.name, "recipe": record.settings.recipe}
    if record.dataset.value_range:  # other loaders do not know this range for images of more than 8 bits
        content["zoo"]["value_range"] = list(record.dataset.value_range)
    return content


def _timm_configuration(network: nn.Module, record: RunRecord) -> dict[str, Any]:
    # Private function: timm's public function also writes a second copy of the weights.
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
    # transformers passes num_classes itself and fails on a second value (timm 1.0.31, transformers 5.23.0).
    content.get("model_args", {}).pop("num_classes", None)
    return content


def _refusal(record: RunRecord) -> dict[str, Any]:
    # Put no dot near the start: timm shows only the text before a dot as the architecture.
    return {
        "architecture": f"not timm's, load it with zoo.load ({record.backbone.network})",
        "model_type": f"not of transformers, load it with zoo.load ({record.backbone.network})",
        "num_classes": len(record.dataset.classes),
    }
