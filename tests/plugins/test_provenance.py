"""What the built-in backbones say of their origin is what timm and torchvision say, not what somebody remembered."""

from __future__ import annotations

import importlib
import importlib.util
import re
from pathlib import Path

import pytest
import timm
import torchvision
from torchvision.models import get_model_weights

from zoo import Backbone, KerasWeights, TimmWeights, TorchvisionWeights, load_registry
from zoo_harness.models.build import build_network
from zoo_plugins.timm_networks import published_accuracies

REGISTRY = load_registry()
BUILT_IN = [record for name, record in REGISTRY.backbones.items() if REGISTRY.owner("backbone", name).built_in]
OF_TIMM = [record for record in BUILT_IN if isinstance(record.weights, TimmWeights)]
OF_TORCHVISION = [record for record in BUILT_IN if isinstance(record.weights, TorchvisionWeights)]

DATA_OF_TAG = {
    "in1k": "ImageNet-1k",
    "in21k": "ImageNet-21k",
    "in12k_ft_in1k": "ImageNet-12k, then ImageNet-1k",
    "in22k_ft_in1k": "ImageNet-22k, then ImageNet-1k",
    "lvd142m": "LVD-142M",
    "lvd1689m": "LVD-1689M",
    "openai": "WIT-400M",
    "webli": "WebLI",
    "fb": "MetaCLIP-5B",
}
"""By the end of a tag; for the networks of images and captions, the papers name the data."""


def named(backbone: Backbone) -> str:
    return backbone.name


def timm_name(backbone: Backbone) -> str:
    assert isinstance(backbone.weights, TimmWeights)
    return backbone.weights.name


@pytest.mark.parametrize("backbone", OF_TIMM, ids=named)
def test_identity_and_license_are_those_of_timm(backbone: Backbone) -> None:
    published = timm.get_pretrained_cfg(timm_name(backbone))
    assert published is not None
    architecture, tag = timm_name(backbone).split(".")
    assert (published.architecture, published.tag) == (architecture, tag)
    assert published.hf_hub_id == f"timm/{timm_name(backbone)}"
    assert published.license == backbone.license


@pytest.mark.parametrize("backbone", OF_TIMM, ids=named)
def test_heads_are_where_timm_says(backbone: Backbone) -> None:
    published = timm.get_pretrained_cfg(timm_name(backbone))
    classifier = published.classifier
    expected = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    assert tuple(head.path for head in backbone.head.parts) == expected


@pytest.mark.parametrize("backbone", OF_TIMM, ids=named)
def test_pretraining_data_are_those_of_the_tag(backbone: Backbone) -> None:
    tag = timm_name(backbone).rpartition(".")[2]
    ending = max((each for each in DATA_OF_TAG if f"_{tag}".endswith(f"_{each}")), key=len)
    assert backbone.pretrained_on == DATA_OF_TAG[ending]


@pytest.mark.parametrize("backbone", OF_TIMM, ids=named)
def test_accuracy_is_that_of_timms_own_table(backbone: Backbone) -> None:
    assert backbone.imagenet_top1 == published_accuracies().get(timm_name(backbone))


@pytest.mark.parametrize("backbone", OF_TIMM, ids=named)
def test_accuracy_is_none_only_where_there_is_no_imagenet_classifier(backbone: Backbone) -> None:
    classes = timm.get_pretrained_cfg(timm_name(backbone)).num_classes
    assert (backbone.imagenet_top1 is None) == (classes != 1000)


@pytest.mark.parametrize("backbone", [record for record in BUILT_IN if record.network.kind == "timm"], ids=named)
def test_paper_is_the_one_that_timms_module_cites(backbone: Backbone) -> None:
    network = build_network(backbone.name, backbone.network, device="meta")
    source = importlib.import_module(type(network).__module__)
    assert source.__file__ is not None
    assert backbone.paper is not None
    identifier = backbone.paper.rpartition("/")[2]
    assert identifier in Path(source.__file__).read_text()


@pytest.mark.parametrize("backbone", OF_TORCHVISION, ids=named)
def test_facts_are_those_of_torchvision(backbone: Backbone) -> None:
    weights = backbone.weights
    assert isinstance(weights, TorchvisionWeights)
    published = get_model_weights(weights.name)[weights.tag]
    assert published.url.rpartition("/")[2] == weights.filename
    assert backbone.imagenet_top1 == published.meta["_metrics"]["ImageNet-1K"]["acc@1"]
    assert backbone.pretrained_on == "ImageNet-1k"
    assert re.fullmatch("IMAGENET1K_V[12]", weights.tag)
    builder = torchvision.models.get_model_builder(weights.name)
    assert backbone.paper is not None
    assert backbone.paper.rpartition("/")[2] in (builder.__doc__ or "")


@pytest.mark.parametrize("backbone", OF_TORCHVISION, ids=named)
def test_license_is_that_of_torchvision(backbone: Backbone) -> None:
    from importlib.metadata import metadata

    assert (metadata("torchvision").get("License") or "").lower() in ("bsd", "bsd-3-clause")
    assert backbone.license == "bsd-3-clause"


def test_what_no_upstream_states_is_not_claimed() -> None:
    embedded = REGISTRY.backbone("efficientnet_lite0")
    assert embedded.imagenet_top1 is None
    scratch = [record for record in BUILT_IN if record.weights.kind == "random"]
    assert [(record.license, record.pretrained_on, record.imagenet_top1) for record in scratch] == [(None,) * 3] * 3


def test_keras_weights_are_those_that_keras_fetches() -> None:
    backbone = REGISTRY.backbone("resnet152v2")
    weights = backbone.weights
    assert isinstance(weights, KerasWeights)
    found = importlib.util.find_spec("keras")  # which is not imported: that takes seconds and sets up a backend
    assert found is not None
    assert found.origin is not None
    applications = Path(found.origin).parent / "src" / "applications"
    source = (applications / "resnet.py").read_text()
    folder = re.search(r"BASE_WEIGHTS_PATH = \(([^)]*)\)", source)
    hashes = re.search(r'"resnet152v2": \(([^)]*)\)', source)
    assert folder
    assert hashes
    assert weights.folder == "".join(re.findall(r'"([^"]*)"', folder[1]))
    assert weights.md5 == re.findall(r'"([0-9a-f]{32})"', hashes[1])[0]  # the second is that without classifier
    ending = "_weights_tf_dim_ordering_tf_kernels.h5"
    assert ending in source
    assert weights.filename == f"resnet152v2{ending}"
    assert backbone.paper is not None
    assert backbone.paper.rpartition("/")[2] in (applications / "resnet_v2.py").read_text()
