"""Records that are derived from networks of timm."""

from __future__ import annotations

import csv
from itertools import pairwise
from pathlib import Path

import pytest
import timm

import zoo
from zoo import DeclarationError, DualHead, UnknownNameError, load_registry
from zoo.testing import check_backbone
from zoo_plugins import timm_networks
from zoo_plugins.timm_networks import derive, published_accuracies


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


def table() -> list[dict[str, str]]:
    path = Path(timm_networks.__file__).with_name("timm_imagenet.csv")
    return list(csv.DictReader(path.read_text().splitlines()))


def test_the_published_table_is_whole() -> None:
    rows = table()
    names = [row["model"] for row in rows]
    assert len(rows) == len(set(names)) == 1177
    assert set(names) <= set(timm.list_pretrained())
    thousandths = [(round(1000 * float(row["top1"])), round(1000 * float(row["top1_err"]))) for row in rows]
    assert {right + wrong for right, wrong in thousandths} == {100_000}
    assert all(0 < right < 100_000 for right, _ in thousandths)
    assert all(before >= after for before, after in pairwise(right for right, _ in thousandths))


def test_every_published_accuracy_is_at_the_size_at_which_timm_tests() -> None:
    for row in table():
        published = timm.get_pretrained_cfg(row["model"])
        assert published is not None
        assert published.num_classes == 1000
        assert int(row["img_size"]) == (published.test_input_size or published.input_size)[-1], row["model"]


@pytest.mark.parametrize(
    ("name", "accuracy"),
    [
        ("resnet18.tv_in1k", 69.752),
        ("cait_s24_224.fb_dist_in1k", 83.484),
        ("eva02_tiny_patch14_336.mim_in22k_ft_in1k", 80.672),
        ("convnext_tiny.in12k_ft_in1k", 84.448),  # at 288 pixels; 84.192 at 224
        ("test_vit.r160_in1k", 40.832),  # the last row
    ],
)
def test_published_accuracies_are_those_of_the_source(name: str, accuracy: float) -> None:
    assert published_accuracies()[name] == accuracy


def test_a_derived_record_has_the_published_accuracy_of_its_weights() -> None:
    assert derive("test_vit.r160_in1k").imagenet_top1 == 40.832
    assert derive("test_vit").imagenet_top1 == 40.832  # the weights that timm takes without a tag
    assert derive("test_vit.r160_in1k").pretrained_on is None
    assert derive("test_resnet.r160_in1k").imagenet_top1 is None  # not in the table
    assert derive("vit_small_patch14_dinov2.lvd142m").imagenet_top1 is None  # no ImageNet-1k classifier
    assert derive("resnetv2_18").imagenet_top1 is None
    assert derive("gmlp_ti16_224").imagenet_top1 is None  # timm has no weights of it
