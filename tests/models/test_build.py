"""Networks by name: whatever does not exist is an error that names the backbone, and what comes near."""

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


def test_meta_device_takes_no_memory() -> None:
    network = build_network("mine", TorchvisionArchitecture("vgg16"), "meta")
    assert sum(value.numel() for value in network.parameters()) == 138_357_544
    assert all(value.is_meta for value in network.parameters())


def test_networks_that_compute_their_widths_go_onto_the_meta_device_too() -> None:
    network = build_network("mine", TorchvisionArchitecture("regnet_y_400mf"), "meta")
    assert sum(value.numel() for value in network.parameters()) == 4_344_144
    assert all(value.is_meta for value in network.state_dict().values())


def test_same_seed_same_network() -> None:
    def weight() -> torch.Tensor:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            return build_network("mine", TimmArchitecture("test_resnet.r160_in1k")).get_submodule("fc").weight

    assert torch.equal(weight(), weight())


@pytest.mark.parametrize(
    ("architecture", "message"),
    [
        (TimmArchitecture("test_resnett"), r"timm \S+ has no 'test_resnett'; did you mean test_resnet"),
        (
            TimmArchitecture("test_resnet.r160_in2k"),
            r"has no 'test_resnet\.r160_in2k'; did you mean test_resnet\.r160_in1k",
        ),
        (TorchvisionArchitecture("resnet17"), "torchvision has no 'resnet17'; did you mean resnet1"),
        (FactoryArchitecture("no_such_module:make"), "'no_such_module:make' cannot be imported: No module named"),
        (FactoryArchitecture("third_party:mke"), "'third_party:mke' cannot be imported: .* has no attribute 'mke'"),
        (FactoryArchitecture("third_party:number"), "'third_party:number' is not callable"),
        (FactoryArchitecture("third_party:text"), "third_party:text returned str, not a torch module"),
    ],
)
def test_architecture_that_does_not_exist(architecture: Architecture, message: str) -> None:
    with pytest.raises(DeclarationError, match=f"^backbone 'mine': .*{message}"):
        build_network("mine", architecture)
