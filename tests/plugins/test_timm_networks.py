"""Records that are derived from networks of timm."""

from __future__ import annotations

from pathlib import Path

import pytest

import zoo
from zoo import DeclarationError, DualHead, UnknownNameError, load_registry
from zoo.testing import check_backbone
from zoo_plugins.timm_networks import derive


@pytest.mark.parametrize(
    "name",
    [
        "test_byobnet",
        "test_convnext",
        "test_efficientnet",
        "test_mambaout",
        "test_nfnet",
        "test_resnet",
        "test_vit",
        "test_vit3",
        "test_vit4",
        "levit_128s",  # two heads, each behind a norm
        "resnetv2_18",  # the classifier is a convolution
        "edgenext_xx_small",
    ],
)
def test_what_is_derived_is_true_of_the_network(name: str) -> None:
    check_backbone(load_registry().backbone(f"timm:{name}"))


def test_the_declared_block_of_known_networks_is_found() -> None:
    """The last block, the head and the last layer that timm's authors would name, by the table of the design."""
    expected = {
        "vit_small_patch14_dinov2.lvd142m": (("blocks.11", "norm"), "head", "fc_norm", 384),
        "convnext_tiny.in12k_ft_in1k": (("stages.3.blocks.2", "head.norm"), "head.fc", "head.pre_logits", 768),
        "swinv2_tiny_window8_256.ms_in1k": (("layers.3.blocks.1", "norm"), "head.fc", "head.global_pool", 768),
        "resnet50.a1_in1k": (("layer4.2",), "fc", "global_pool", 2048),
        "regnety_016.tv2_in1k": (("s4.b2",), "head.fc", "head.global_pool", 888),
    }
    for name, (unfreeze, head, last, width) in expected.items():
        record = derive(name)
        assert record.unfreeze == unfreeze
        assert record.head.parts[0].path == head
        assert (record.features[-1].path, record.features[-1].width) == (last, width)
        assert record.derived_from is not None


def test_prefix_tokens_are_left_out_of_the_mean() -> None:
    layers = derive("vit_base_patch14_reg4_dinov2.lvd142m").features
    assert {layer.pool for layer in layers[:-1]} == {"cls"}
    layers = derive("vit_small_patch16_dinov3.lvd1689m").features
    assert {(layer.pool, layer.skip) for layer in layers[:-1]} == {("average", 5)}


def test_two_heads_are_a_dual_head_and_licences_are_kept() -> None:
    assert isinstance(derive("deit_tiny_distilled_patch16_224").head, DualHead)
    assert derive("convnextv2_atto.fcmae_ft_in1k").license == "cc-by-nc-4.0"


@pytest.mark.parametrize(
    ("name", "reason"),
    [("crossvit_tiny_240", "several classifiers"), ("gemma4_vit_167m_enc", "encoder"), ("volo_d1_224", "several")],
)
def test_a_network_that_is_not_understood_is_refused_by_name(name: str, reason: str) -> None:
    with pytest.raises(DeclarationError) as caught:
        derive(name)
    assert caught.value.code == "not-derivable"
    assert caught.value.facts["name"] == name
    assert reason in str(caught.value)


def test_a_run_of_a_derived_backbone_says_so_and_loads(tmp_path: Path) -> None:
    options = {"weights": "random", "per_class": 3, "epochs": 1, "layer_curve": False}
    run = zoo.evaluate("timm:test_resnet", "digits", out=tmp_path / "run", **options)
    assert run.record.backbone.name == "timm:test_resnet"
    assert run.record.backbone.derived_from is not None
    card = (run.directory / "README.md").read_text()
    assert f"Derived from {run.record.backbone.derived_from}" in card
    assert len(zoo.load(run.directory).classes) == 10
    again = zoo.evaluate(run, "digits", out=tmp_path / "again", **{**options, "weights": run.directory})
    assert again.record.weights.sha256 == run.record.checkpoint_sha256


def test_globs_and_near_misses() -> None:
    registry = load_registry()
    assert "timm:vit_small_patch14_dinov2.lvd142m" in registry.backbone_names("timm:vit_*_dinov2*")
    with pytest.raises(UnknownNameError) as caught:
        registry.backbone("timm:vit_smal_patch14_dinov2.lvd142m")
    assert caught.value.facts["near"][0] == "timm:vit_small_patch14_dinov2.lvd142m"
