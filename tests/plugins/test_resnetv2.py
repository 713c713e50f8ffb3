"""ResNet152V2 against real Keras: files that Keras itself writes, and the same outputs to the last digits."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from zoo import FileWeights, WeightsError, load_registry
from zoo_harness.models.modules import capture
from zoo_harness.models.weights import load_weights
from zoo_plugins.resnetv2_network import ResNetV2, resnet152v2

BACKBONE = load_registry().backbone("resnet152v2")
REFERENCE = Path(__file__).with_name("keras_reference.py")


def small() -> ResNetV2:
    return ResNetV2(blocks=(2, 3, 2, 2), widths=(4, 6, 8, 10), classes=7)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which Keras has written the files and outputs of a network with random weights."""
    folder = tmp_path_factory.mktemp("keras")
    environment = {**os.environ, "KERAS_BACKEND": "torch", "KERAS_HOME": str(folder), "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, str(REFERENCE), str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def largest_differences(network: nn.Module, reference: Mapping[str, np.ndarray]) -> dict[str, float]:
    """For each layer the largest difference from Keras, as a share of the largest value there."""
    paths = {
        name: name.removesuffix("_out")
        .removesuffix("_pool" if name == "pool1_pool" else "")
        .replace("_block", ".block")
        for name in reference
        if name != "images"
    }
    images = torch.from_numpy(reference["images"]).permute(0, 3, 1, 2)
    with torch.no_grad(), capture(network.double().eval(), paths.values()) as outputs:
        network(images)

    def difference(ours: Tensor, theirs: np.ndarray) -> float:
        given = (ours.permute(0, 2, 3, 1) if ours.ndim == 4 else ours).numpy()
        assert given.shape == theirs.shape
        return float(np.abs(given - theirs).max() / np.abs(theirs).max())

    return {name: difference(outputs[path], reference[name]) for name, path in paths.items()}


def loaded(network: nn.Module, path: Path) -> nn.Module:
    load_weights(network.double(), BACKBONE, FileWeights(str(path)))
    return network


@pytest.mark.parametrize("name", ["legacy.h5", "chunked.h5", "whole_model.h5"])
def test_small_network_puts_out_what_keras_does(files: Path, name: str) -> None:
    differences = largest_differences(loaded(small(), files / name), np.load(files / "reference.npz"))
    assert len(differences) == 8
    assert {layer: value for layer, value in differences.items() if value > 1e-12} == {}


def test_file_without_classifier_gives_all_but_the_logits(files: Path) -> None:
    differences = largest_differences(loaded(small(), files / "legacy_notop.h5"), np.load(files / "reference.npz"))
    assert differences.pop("predictions") > 0.01
    assert max(differences.values()) < 1e-12


def test_a_file_of_the_whole_network_has_each_of_its_tensors(files: Path) -> None:
    network = resnet152v2()
    load_weights(network, BACKBONE, FileWeights(str(files / "resnet152v2.h5")))
    assert [name for name, value in network.state_dict().items() if value.any()] == []  # the file has zeros alone


@pytest.mark.parametrize("name", ["keras3.weights.h5", "keras3.keras"])
def test_what_keras_3_saves_itself_is_refused_with_the_way_out(files: Path, name: str) -> None:
    with pytest.raises(WeightsError, match=r"load the file in Keras and save it with model\.save") as caught:
        loaded(small(), files / name)
    assert (caught.value.code, caught.value.facts["path"]) == ("file-kind", str(files / name))


@pytest.mark.parametrize(
    ("blocks", "widths", "fault"),
    [
        ((2, 3, 3, 2), (4, 6, 8, 10), "conv4.block3.preact_bn.weight: missing"),
        (
            (2, 3, 2, 2),
            (4, 6, 9, 10),
            "conv4.block1.1_conv.weight: the file has float64 (8, 24, 1, 1), the network float64 (9, 24, 1, 1)",
        ),
    ],
)
def test_file_of_another_depth_or_width(
    files: Path, blocks: tuple[int, ...], widths: tuple[int, ...], fault: str
) -> None:
    with pytest.raises(WeightsError) as caught:
        loaded(ResNetV2(blocks=blocks, widths=widths, classes=7), files / "legacy.h5")
    assert caught.value.code == "weights-mismatch"
    assert fault in str(caught.value)


def test_checkpoints_of_the_network_itself_load_too(tmp_path: Path) -> None:
    trained = small().state_dict()
    safetensors.torch.save_file(trained, tmp_path / "model.safetensors")
    torch.save(trained, tmp_path / "model.pth")
    for name in ("model.safetensors", "model.pth"):
        network = small()
        load_weights(network, BACKBONE, FileWeights(str(tmp_path / name)))
        assert all(torch.equal(value, trained[key]) for key, value in network.state_dict().items())


def test_network_has_the_published_number_of_parameters() -> None:
    with torch.device("meta"):
        state = resnet152v2().state_dict()
    # https://keras.io/api/applications/ counts the moving statistics in.
    counted = sum(value.numel() for name, value in state.items() if not name.endswith("num_batches_tracked"))
    assert counted == 60_380_648


def test_random_weights_begin_as_keras_begins() -> None:
    state = small().state_dict()
    kernel = state["conv5.block1.2_conv.weight"]
    limit = (6 / (9 * 10 + 9 * 10)) ** 0.5  # Glorot uniform, 3 x 3, 10 channels in and out
    assert 0.9 * limit < float(kernel.abs().max()) <= limit
    assert all(not value.any() for name, value in state.items() if name.endswith((".bias", "running_mean")))


def test_random_weights_train() -> None:
    torch.manual_seed(0)
    network = small().train()
    images, labels = torch.rand(8, 3, 48, 48) * 2 - 1, torch.arange(8) % 7
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    losses = []
    for _step in range(30):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(network(images), labels)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] / 4
