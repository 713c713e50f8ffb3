"""Networks by name: a network that does not exist is an error that names the backbone and near misses."""

from __future__ import annotations

import sys
import types

import pytest
import torch
from torch import nn

from zoo import DeclarationError, FactoryArchitecture, TimmArchitecture, TorchvisionArchitecture
from zoo.architecture import Architecture
from zoo_harness.models.build import build_network


@pytest.fixture(autouse=True)
def _third_party(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("third_party")
    vars(module).update(make=lambda: nn.Linear(2, 2), text=lambda: "no network", number=7)
    monkeypatch.setitem(sys.modules, "third_party", module)


@pytest.mark.parametrize(
    "architecture",
    [
        TimmArchitecture("test_resnet.r160_in1k"),
        TimmArchitecture("test_resnet"),
        TorchvisionArchitecture("squeezenet1_1"),
        FactoryArchitecture("third_party:make"),
    ],
)
def test_network_comes_in_inference_mode(architecture: Architecture) -> None:
    network = build_network("mine", architecture)
    assert not any(module.training for module in network.modules())
    assert {value.device.type for value in network.parameters()} == {"cpu"}


# RegNets compute their widths from tensors.
@pytest.mark.parametrize(("name", "parameters"), [("vgg16", 138_357_544), ("regnet_y_400mf", 4_344_144)])
def test_meta_device_takes_no_memory(name: str, parameters: int) -> None:
    network = build_network("mine", TorchvisionArchitecture(name), "meta")
    assert sum(value.numel() for value in network.parameters()) == parameters
    assert all(value.is_meta for value in network.state_dict().values())


def test_same_seed_same_network() -> None:
    def weight() -> torch.Tensor:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            return build_network("mine", TimmArchitecture("test_resnet.r160_in1k")).get_submodule("fc").weight

    assert torch.equal(weight(), weight())


@pytest.mark.parametrize(
    ("architecture", "code", "near"),
    [
        (TimmArchitecture("test_resnett"), "network-unknown", "test_resnet"),
        (TimmArchitecture("test_resnet.r160_in2k"), "network-unknown", "test_resnet.r160_in1k"),
        (TorchvisionArchitecture("resnet17"), "network-unknown", "resnet18"),
        (FactoryArchitecture("no_such_module:make"), "import-failed", None),
        (FactoryArchitecture("third_party:mke"), "import-failed", None),
        (FactoryArchitecture("third_party:number"), "not-callable", None),
        (FactoryArchitecture("third_party:text"), "network-type", None),
    ],
)
def test_architecture_that_does_not_exist(architecture: Architecture, code: str, near: str | None) -> None:
    with pytest.raises(DeclarationError, match=r"^backbone 'mine': ") as caught:
        build_network("mine", architecture)
    assert caught.value.code == code
    assert near is None or near in caught.value.facts["near"]
