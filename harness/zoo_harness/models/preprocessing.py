"""The weights' own preprocessing, resolved once and applied to batches of uint8 images.

Geometry (resize and crop) keeps to whole grey levels, as PIL does, and agrees with the usual PIL transforms to one
level, on every device; then values become ``(value / 255 - mean) / std``. Pillow 13 begins with the height where that
shrinks much more than the width, older ones never did: such a squash follows the older ones.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import nn

from zoo.architecture import TimmArchitecture
from zoo.backbone import Backbone, Preprocessing, Tuning
from zoo.errors import DeclarationError
from zoo.weights import TorchvisionWeights


def resolve_preprocessing(backbone: Backbone, network: nn.Module, tuning: Tuning) -> Preprocessing:
    """The preprocessing of a backbone: as its record says, else as timm or torchvision configure those weights.

    A recipe may ask for another input size, and for a resize to it without cropping (the recipes of the studies).
    """
    own = backbone.preprocessing or _configured(backbone, network)
    if tuning.input_size is not None:
        own = replace(own, input_size=tuning.input_size)
    return replace(own, crop_fraction=1.0, crop_mode="squash") if tuning.resize == "squash" else own


def _configured(backbone: Backbone, network: nn.Module) -> Preprocessing:
    if isinstance(backbone.network, TimmArchitecture):
        return _of_timm(backbone.name, network)
    if isinstance(backbone.weights, TorchvisionWeights):
        return _of_torchvision(backbone.weights)
    raise DeclarationError(f"backbone {backbone.name!r}: nothing says how its images are prepared: give preprocessing")


def _of_timm(name: str, network: nn.Module) -> Preprocessing:
    from timm.data.config import resolve_data_config

    config: dict[str, Any] = resolve_data_config({}, pretrained_cfg=network.pretrained_cfg)
    if config["crop_mode"] not in ("center", "squash"):
        raise DeclarationError(f"backbone {name!r}: timm's crop mode {config['crop_mode']!r} is not supported")
    return Preprocessing(
        input_size=(config["input_size"][1], config["input_size"][2]),
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        interpolation=config["interpolation"],
        crop_fraction=float(config["crop_pct"]),
        crop_mode=config["crop_mode"],
    )


def _of_torchvision(weights: TorchvisionWeights) -> Preprocessing:
    from torchvision.models import get_model_weights

    preset = get_model_weights(weights.name)[weights.tag].transforms()
    size = preset.crop_size[0]
    return Preprocessing(
        input_size=(size, size),
        mean=tuple(preset.mean),
        std=tuple(preset.std),
        interpolation=preset.interpolation.value,
        crop_fraction=size / preset.resize_size[0],
    )
