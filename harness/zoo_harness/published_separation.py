"""The Separation Index figures of the 2023 report, by the backbone they are of.

The report trained its networks for 32 x 32 images from scratch, and scored ImageNet's as they came.
"""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Annotated, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

Score = Annotated[float, Field(ge=0, le=1)]

# The report's own word for each network, where it was trained and where it was taken from ImageNet.
_SCRATCH = {"vgg16_bn_cifar": "vgg16", "resnet18_cifar": "resnet18", "efficientnet_b0_cifar": "efficientnet_b0"}
_PRETRAINED = {name: name for name in ("vgg16", "resnet18", "efficientnet_b0")}
_LAYERWISE = "efficientnet_v2_s"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Layerwise(_Strict):
    layers: str
    train: tuple[Score, ...]
    test: tuple[Score, ...]


class _Report(_Strict):
    source: str
    columns: tuple[str, ...]
    orders: str
    latest_full_data: dict[str, tuple[Score, ...]]
    trained_from_scratch: dict[str, tuple[Score, ...]]
    imagenet_pretrained_not_fine_tuned: dict[str, tuple[Score, ...]]
    layerwise_si_efficientnet_v2_s_cifar100: _Layerwise


class PublishedSeparation(NamedTuple):
    """What the report has of one backbone on CIFAR-100.

    ``scores`` has a row for each split in the order of ``columns``; ``layers`` one for each split in depth order.
    """

    source: str
    setting: str
    columns: tuple[str, ...]
    scores: dict[str, tuple[float, ...]]
    layers: dict[str, tuple[float, ...]]


def published_separation(backbone: str) -> PublishedSeparation | None:
    """The report's figures of a backbone, ``None`` where it has none.

    >>> published_separation("resnet18_cifar").scores["test"][0]
    0.599
    """
    report = _report()
    if backbone in _SCRATCH:
        scores = _splits(report.trained_from_scratch, _SCRATCH[backbone])
        return PublishedSeparation(report.source, "trained from scratch", report.columns, scores, {})
    if backbone in _PRETRAINED:
        scores = _splits(report.imagenet_pretrained_not_fine_tuned, _PRETRAINED[backbone])
        return PublishedSeparation(report.source, "as pretrained on ImageNet", report.columns, scores, {})
    if backbone == _LAYERWISE:
        layerwise = report.layerwise_si_efficientnet_v2_s_cifar100
        layers = {"train": layerwise.train, "test": layerwise.test}
        return PublishedSeparation(report.source, layerwise.layers, report.columns, {}, layers)
    return None


def _splits(table: dict[str, tuple[float, ...]], network: str) -> dict[str, tuple[float, ...]]:
    return {split: table[f"{network}_{split}"] for split in ("train", "test")}


@cache
def _report() -> _Report:
    path = resources.files("zoo_cards").joinpath("si2023_results.json")
    return _Report.model_validate_json(path.read_bytes())
