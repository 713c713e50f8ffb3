"""The built-in backbones: their records are true of their networks, and their counts are those of the studies."""

from __future__ import annotations

import functools

import pytest

from zoo import Backbone, load_registry
from zoo.testing import check_backbone
from zoo_harness.models.build import build_network
from zoo_harness.models.preprocessing import resolve_preprocessing
from zoo_harness.models.surgery import prepare
from zoo_harness.models.tuned_network import count_parameters
from zoo_harness.records.run import ParametersRecord

from .shallow_networks import image_size, shallow

REGISTRY = load_registry()
BUILT_IN = [record for name, record in REGISTRY.backbones.items() if REGISTRY.owner("backbone", name).built_in]
STUDIED = [(record, name) for record in BUILT_IN for name in record.recipes]
REPORTED = [(record, name) for record, name in STUDIED if record.recipes[name].reported_parameters]


@functools.cache
def counted(name: str, recipe: str, classes: int = 10) -> ParametersRecord:
    backbone = REGISTRY.backbone(name)
    network = build_network(name, backbone.network, device="meta")
    return count_parameters(prepare(network, backbone.tuning(recipe), classes, example=None))


def test_none_of_the_built_in_plugins_has_a_problem() -> None:
    assert [plugin.errors for plugin in REGISTRY.plugins if plugin.built_in and plugin.errors] == []


@pytest.mark.parametrize("backbone", BUILT_IN, ids=lambda backbone: backbone.name)
def test_what_a_record_declares_is_true_of_its_network(backbone: Backbone) -> None:
    check_backbone(shallow(backbone), input_size=image_size(backbone))


# The design's table: weights, and what trains with and without the head for 10 classes.
@pytest.mark.parametrize(
    ("name", "weights", "trained", "trained_without_head"),
    [
        ("vgg19", "vgg19.tv_in1k", 9_573_130, 9_439_232),
        ("resnet152v2", "resnet152v2_weights_tf_dim_ordering_tf_kernels.h5", 15_497_994, 14_970_880),
        ("densenet201", "densenet201.tv_in1k", 7_476_746, 6_982_400),
        ("efficientnetv2_l", "tf_efficientnetv2_l.in1k", 7_351_466, 7_020_960),
        ("nfnet_f6", "dm_nfnet_f6.dm_in1k", 12_012_043, 11_222_785),
        ("vit_l32", "vit_large_patch32_224.orig_in21k", 12_863_242, 12_598_272),
        ("swin_b", "swin_base_patch4_window7_224.ms_in1k", 12_868_650, 12_603_680),
        ("coat_lite_small", "coat_lite_small.in1k", 3_308_298, 3_174_400),
        ("cait_s24", "cait_s24_224.fb_dist_in1k", 1_877_130, 1_776_000),
        ("deit_base_distilled", "deit_base_distilled_patch16_224.fb_in1k", 7_488_276, 7_089_408),
    ],
)
def test_as_many_parameters_train_as_the_paper_printed(
    name: str, weights: str, trained: int, trained_without_head: int
) -> None:
    backbone = REGISTRY.backbone(name)
    assert weights in (getattr(backbone.weights, "name", None), getattr(backbone.weights, "filename", None))
    count = counted(backbone.name, "paper")
    assert (count.trained, count.trained_without_head) == (trained, trained_without_head)


@pytest.mark.parametrize(
    ("name", "trained_without_head", "has_classifier"),
    [
        ("dinov2_s", 1_775_232 + 768, False),
        ("dinov3_s", 1_774_080 + 768, False),
        ("siglip2_b", 7_087_872 + 1536, False),
        ("clip_b", 7_087_872 + 1536, False),
        ("pe_core_b", 7_087_872 + 1536, False),
        ("eva02_tiny", 444_928 + 384, True),
        ("convnext_tiny", 4_763_136 + 1536, True),
        ("mobilenetv4_s", 124_800 + 960 * 1280 + 2 * 1280, True),
        ("resnet50_a1", 4_462_592, True),
    ],
)
def test_newer_backbones_train_their_last_block_and_norm(
    name: str, trained_without_head: int, has_classifier: bool
) -> None:
    assert counted(name, "default").trained_without_head == trained_without_head
    assert REGISTRY.backbone(name).has_classifier is has_classifier


@pytest.mark.parametrize(
    ("name", "trained", "trained_without_head"),
    [
        ("densenet201", 235_210, 216_000),
        ("deit_base_distilled", 7_103_252, 7_087_872),
        ("cait_s24", 1_779_226, 1_775_376),
    ],
)
def test_as_many_parameters_train_as_the_report_printed(name: str, trained: int, trained_without_head: int) -> None:
    count = counted(name, "report")
    assert (count.trained, count.trained_without_head) == (trained, trained_without_head)


@pytest.mark.parametrize(
    ("name", "total"),
    [("vgg16_bn_cifar", 34_015_396), ("resnet18_cifar", 11_220_132), ("efficientnet_b0_cifar", 4_135_648)],
)
def test_networks_for_cifar_train_whole_and_have_the_reported_size(name: str, total: int) -> None:
    count = counted(name, "default", classes=100)
    assert (count.total, count.trained) == (total, total)


@pytest.mark.parametrize(("backbone", "recipe"), REPORTED, ids=lambda value: getattr(value, "name", value))
def test_a_reported_count_is_ours_with_or_without_the_head(backbone: Backbone, recipe: str) -> None:
    declared = backbone.recipes[recipe]
    count = counted(backbone.name, recipe, declared.reported_classes)
    assert declared.reported_parameters in (count.trained, count.trained_without_head)


@pytest.mark.parametrize(
    "backbone",
    [record for record in BUILT_IN if record.weights.kind != "random"],
    ids=lambda backbone: backbone.name,
)
def test_the_default_recipe_trains_a_small_part(backbone: Backbone) -> None:
    count = counted(backbone.name, "default")
    network = build_network(backbone.name, backbone.network, device="meta")
    published = sum(parameter.numel() for parameter in network.parameters())  # with a classifier of many classes
    assert 0 < count.trained_without_head < count.trained < published / 2


@pytest.mark.parametrize(
    ("backbone", "recipe"),
    [(record, name) for record, name in STUDIED if name != "scratch"],
    ids=lambda value: getattr(value, "name", value),
)
def test_the_studies_squash_images_to_224_pixels(backbone: Backbone, recipe: str) -> None:
    network = build_network(backbone.name, backbone.network, device="meta")
    preprocessing = resolve_preprocessing(backbone, network, backbone.tuning(recipe))
    assert preprocessing.input_size == (224, 224)
    assert (preprocessing.crop_mode, preprocessing.crop_fraction) == ("squash", 1.0)
