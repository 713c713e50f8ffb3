"""The Separation Index tables of the 2023 report stand beside our scores of layers, and differences are listed."""

from __future__ import annotations

import pytest

from zoo_harness.records.run import SplitSeparation
from zoo_harness.reports.published_separation import Network, notes, published_rows, scores_of_layers


def scored(index: float, **settings: str) -> SplitSeparation:
    def measured(value: float) -> dict[str, float | int]:
        return {"value": value, "standard_error": 0.01, "bootstrap_error": 0.01, "n": 500, "tied": 0}

    parts = {"si": index, "high": 0.3, "soft": 0.4, "anti": 0.5, "centre": 0.6}
    scores = {key: measured(value) for key, value in parts.items()}
    return SplitSeparation.model_validate({"order": 2, **settings, **scores, "duplicates": 0, "duplicates_unlike": 0})


def test_six_of_fifteen_rows_contradict_themselves() -> None:
    """Raw pixels occur twice in the report."""
    networks = ("vgg16_bn_cifar", "resnet18_cifar", "efficientnet_b0_cifar", "vgg16", "resnet18", "efficientnet_b0")
    rows = [row for name in (*networks, "efficientnet_v2_s") for row in published_rows(name) if len(row.values) == 5]
    contradicting = [row for row in rows if any("does not fit" in remark for remark in row.remarks)]
    assert len([row for row in rows if row.features != "raw pixels"]) + 2 == 15
    assert len([row for row in contradicting if row.features != "raw pixels"]) + 2 == 6


@pytest.mark.parametrize(
    ("pretrained", "size", "normalize", "agrees", "clauses"),
    [
        (True, (32, 32), "none", True, ()),
        (True, (32, 32), "zscore", True, ("z-scored features",)),
        (True, (224, 224), "none", False, ("input size 224 x 224 instead of 32 x 32",)),
        (False, (32, 32), "none", False, ("weights random instead of those of ImageNet",)),
    ],
)
def test_layers_of_a_backbone_stand_beside_its_row(
    pretrained: bool, size: tuple[int, int], normalize: str, agrees: bool, clauses: tuple[str, ...]
) -> None:
    layers = {"raw pixels": scored(0.2), "layer4": scored(0.3), "avgpool": scored(0.22, normalize=normalize)}
    network = Network("resnet18", pretrained, "random", size, None)
    raw, last = scores_of_layers(layers, "train", None, pooled=False, network=network)
    assert (raw.features, raw.ours["si"], raw.published["si"]) == ("raw pixels", 0.2, 0.1741)
    assert (last.features, last.ours["si"], last.published["si"]) == ("before training", 0.22, 0.229)
    assert (last.agrees, last.differences) == (agrees, clauses)
    [first, second] = notes([raw, last])
    assert first.startswith("published SI raw pixels, train split; the report does not state the split")
    assert ("in another setting" in second) == (not agrees)
    assert "anti SI 0.7400 does not fit the other scores, which give 0.6874" in second


def test_a_part_of_the_data_and_another_order_are_named() -> None:
    layers = {"raw pixels": scored(0.2).model_copy(update={"order": 5}), "avgpool": scored(0.3)}
    network = Network("resnet18", True, "ImageNet", (32, 32), None)
    raw, _last = scores_of_layers(layers, "train", "20 images per class, seed 0", pooled=False, network=network)
    assert raw.differences == ("order 5 instead of 2", "part of the data: 20 images per class, seed 0")
