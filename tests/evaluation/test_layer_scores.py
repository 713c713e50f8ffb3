"""Features of several layers in one pass: the same numbers wherever they are kept, and no files left behind."""

from __future__ import annotations

import shutil
import tempfile
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import zoo
from zoo import Backbone, DataError, DeclarationError, FeatureLayer, Preprocessing
from zoo_harness.compute.context import ComputeContext
from zoo_harness.data.decoding import ImageData
from zoo_harness.data.transform import BatchTransform
from zoo_harness.evaluation.layer_scores import RAW_PIXELS, layer_features, score_layers
from zoo_harness.evaluation.split_scores import Scoring
from zoo_harness.models.build import build_network
from zoo_harness.models.feature_pooling import pool_features
from zoo_harness.models.modules import capture
from zoo_harness.util.progress import Silence

CPU = ComputeContext(device=torch.device("cpu"))
LAYERS = (
    FeatureLayer("conv1", 32),  # an activation that works in place follows
    FeatureLayer("layer1", 32),
    FeatureLayer("layer3", 192),
    FeatureLayer("global_pool", 96, pool="flatten"),
)


@pytest.fixture(scope="module")
def network(tiny_resnet: Backbone) -> nn.Module:
    torch.manual_seed(0)
    return build_network("tiny", tiny_resnet.network)


@pytest.fixture(scope="module")
def layers(network: nn.Module) -> tuple[FeatureLayer, ...]:
    """The layers with the widths that they have."""
    with torch.no_grad(), capture(network, [layer.path for layer in LAYERS]) as outputs:
        network(torch.rand(1, 3, 32, 32))
    return tuple(FeatureLayer(layer.path, outputs[layer.path].shape[1], layer.pool) for layer in LAYERS)


@pytest.fixture(scope="module")
def data() -> ImageData:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)
    labels, order = torch.arange(40) % 4, np.arange(40)
    return ImageData(images, labels, False, BatchTransform(Preprocessing((32, 32))), order, order.astype(np.uint64))


def directly(network: nn.Module, data: ImageData, layer: FeatureLayer, *, pooled: bool) -> Tensor:
    images, _labels = data.batch(np.arange(len(data)), CPU.device)
    with torch.no_grad(), capture(network.eval(), [layer.path]) as outputs:
        network(images)
    return pool_features(outputs[layer.path], layer) if pooled else outputs[layer.path].flatten(1)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder for temporary files."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("pooled", "budget", "places"),
    [
        (True, 2**31, {"memory"}),
        (True, 30_000, {"memory", "disk"}),
        (False, 2**31, {"memory"}),
        (False, 120_000, {"memory", "disk"}),
        (False, 0, {"disk"}),
    ],
)
def test_same_numbers_wherever_they_are_kept(
    network: nn.Module,
    layers: tuple[FeatureLayer, ...],
    data: ImageData,
    folder: Path,
    pooled: bool,
    budget: int,
    places: set[str],
) -> None:
    scoring = Scoring(pooled=pooled, memory_budget=budget)
    with layer_features(network, layers, data, CPU, scoring, Silence()) as found:
        assert {kept_in for _features, kept_in in found} == places
        assert bool(list(folder.iterdir())) == ("disk" in places)
        for (features, _kept_in), layer in zip(found, layers, strict=True):
            torch.testing.assert_close(features, directly(network, data, layer, pooled=pooled))
    assert list(folder.iterdir()) == []
    assert all(not module._forward_hooks for module in network.modules())


def test_hooks_and_files_go_when_something_fails(
    network: nn.Module, layers: tuple[FeatureLayer, ...], data: ImageData, folder: Path
) -> None:
    wrong, on_disk = (*layers, FeatureLayer("layer2", 7)), Scoring(memory_budget=0)
    with (
        pytest.raises(DeclarationError, match="'layer2'"),
        layer_features(network, wrong, data, CPU, replace(on_disk, pooled=True), Silence()),
    ):
        pass
    with pytest.raises(KeyboardInterrupt), layer_features(network, layers, data, CPU, on_disk, Silence()):
        raise KeyboardInterrupt
    assert list(folder.iterdir()) == []
    assert all(not module._forward_hooks for module in network.modules())


def test_a_layer_that_never_runs_is_an_error(data: ImageData, tiny_resnet: Backbone) -> None:
    network = build_network("tiny", tiny_resnet.network)
    network.idle = nn.Linear(2, 2)
    unused = (FeatureLayer("idle", 2),)
    with pytest.raises(DeclarationError) as raised, layer_features(network, unused, data, CPU, Scoring(), Silence()):
        pass
    assert (raised.value.code, raised.value.facts["layer"]) == ("layer-unused", "idle")


def test_a_disk_without_room_is_an_error_before_anything_runs(
    network: nn.Module, layers: tuple[FeatureLayer, ...], data: ImageData, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")(10**9, 10**9 - 1000, 1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage)
    on_disk = Scoring(memory_budget=0)
    with pytest.raises(DataError) as raised, layer_features(network, layers, data, CPU, on_disk, Silence()):
        pass
    assert (raised.value.code, raised.value.facts["free"]) == ("disk-full", 1000)


@pytest.mark.parametrize("scoring", [Scoring(), Scoring(pooled=True), Scoring(order=3, memory_budget=200_000)])
def test_scores_are_those_of_the_features(
    network: nn.Module, layers: tuple[FeatureLayer, ...], data: ImageData, scoring: Scoring
) -> None:
    curve = score_layers(network, layers, data, CPU, scoring, Silence())
    assert [point.path for point in curve] == [RAW_PIXELS, *(layer.path for layer in layers)]
    pixels = zoo.separation(data.images.reshape(40, -1), data.labels, scoring.order)
    assert curve[0].separation.to_dict() == pixels.to_dict()
    for point, layer in zip(curve[1:], layers, strict=True):
        features = directly(network, data, layer, pooled=scoring.pooled)
        expected = zoo.separation(features, data.labels, scoring.order)
        assert point.separation.to_dict() == expected.to_dict()
        assert (point.width, point.vector) == (features.shape[1], layer.pool if scoring.pooled else "flatten")
