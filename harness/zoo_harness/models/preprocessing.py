"""Determine the preprocessing that a backbone's weights expect: input size, resizing, cropping and normalisation.

Resizing and cropping round to integer pixel values, as PIL does. The results differ from PIL's transforms by at most
one level on every device. Normalisation then computes ``(value / 255 - mean) / std``. Pillow 13 resizes the height
first if the height shrinks much more than the width. zoo always resizes the width first, as older Pillow versions do.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import nn

from zoo.architecture import TimmArchitecture
from zoo.backbone import Backbone, Preprocessing, Tuning
from zoo.errors import DataError, DeclarationError
from zoo.weights import TorchvisionWeights
from zoo_harness.data.pixel_statistics import PixelCounts
from zoo_harness.records.normalization import Normalization


def resolve_preprocessing(
    backbone: Backbone, network: nn.Module, tuning: Tuning, input_size: tuple[int, int] | None = None
) -> Preprocessing:
    """Return the preprocessing that the backbone declares, or else the preprocessing that timm or torchvision lists.

    A recipe may change the input size, or squash images to that size without cropping, as in the published studies.
    ``input_size`` (height, width) is the size that the user chose. Images are not cropped if both sides are smaller
    than the default size, because a small image has no margin to lose. Raises :class:`~zoo.errors.DeclarationError` if
    no preprocessing is known.
    """
    own = backbone.preprocessing or _configured(backbone, network)
    if input_size is not None:
        smaller = all(side < usual for side, usual in zip(input_size, own.input_size, strict=True))
        own = replace(own, input_size=input_size, crop_fraction=1.0 if smaller else own.crop_fraction)
    elif tuning.input_size is not None:
        own = replace(own, input_size=tuning.input_size)
    return replace(own, crop_fraction=1.0, crop_mode="squash") if tuning.resize == "squash" else own


def normalised_by(
    preprocessing: Preprocessing, normalization: Normalization, counts: PixelCounts | None
) -> Preprocessing:
    """Replace a preprocessing's mean and standard deviation by the values that ``normalization`` specifies.

    ``counts``: the histogram of the training images' pixel values; it is needed only for ``--normalization dataset``.
    Raises :class:`~zoo.errors.DataError` if a channel has the same value in all pixels.
    """
    if normalization.source == "weights":
        return preprocessing
    mean, std = normalization.mean, normalization.std
    if normalization.source == "dataset":
        assert counts is not None  # noqa: S101 - the caller counted the values
        mean, std = counts.mean, counts.std
        for channel, deviation in zip(("red", "green", "blue"), std, strict=True):
            if deviation == 0:
                message = (
                    f"--normalization dataset: the standard deviation of {channel} is 0, because all training pixels "
                    "have the same value; expected different values; try --mean and --std"
                )
                raise DataError(message, code="constant-channel", channel=channel)
    assert mean is not None and std is not None  # noqa: S101, PT018 - all other sources set both values
    return replace(preprocessing, mean=mean, std=std)


def _configured(backbone: Backbone, network: nn.Module) -> Preprocessing:
    if isinstance(backbone.network, TimmArchitecture):
        return _of_timm(backbone.name, network)
    if isinstance(backbone.weights, TorchvisionWeights):
        return _of_torchvision(backbone.weights)
    raise DeclarationError(
        f"preprocessing of backbone {backbone.name!r} is unknown; declare it", code="preprocessing-missing"
    )


def _of_timm(name: str, network: nn.Module) -> Preprocessing:
    from timm.data.config import resolve_data_config

    config: dict[str, Any] = resolve_data_config({}, pretrained_cfg=network.pretrained_cfg)
    if config["crop_mode"] not in ("center", "squash"):
        raise DeclarationError(
            f"crop mode of backbone {name!r} is not supported: {config['crop_mode']!r}", code="crop-mode"
        )
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
