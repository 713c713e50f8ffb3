"""The built-in backbones: what their records declare is true of the networks, the studies' counts and timm's facts."""

from __future__ import annotations

import pytest
import timm

from zoo import Backbone, TimmWeights, load_registry
from zoo.testing import check_backbone
from zoo_harness.network import build_network
from zoo_harness.parameters import count_parameters
from zoo_harness.run_record import ParametersRecord
from zoo_harness.surgery import prepare

REGISTRY = load_registry()
BUILT_IN = [record for name, record in REGISTRY.backbones.items() if REGISTRY.owner("backbone", name).built_in]
REPORTED = [
    (record, name) for record in BUILT_IN for name in record.recipes if record.recipes[name].reported_parameters
]


def counted(backbone: Backbone, recipe: str, classes: int = 10) -> ParametersRecord:
    network = build_network(backbone.name, backbone.network, device="meta")
    return count_parameters(prepare(network, backbone.tuning(recipe), classes, example=None))


def test_none_of_the_built_in_plugins_has_a_problem() -> None:
    assert len(BUILT_IN) >= 4
    assert [plugin.errors for plugin in REGISTRY.plugins if plugin.built_in and plugin.errors] == []


@pytest.mark.parametrize("backbone", BUILT_IN, ids=lambda backbone: backbone.name)
def test_what_a_record_declares_is_true_of_its_network(backbone: Backbone) -> None:
    check_backbone(backbone)


@pytest.mark.parametrize(
    ("name", "recipe", "trained", "trained_without_head"),
    [
        ("deit_base_distilled", "paper", 7_488_276, 7_089_408),
        ("deit_base_distilled", "report", 7_103_252, 7_087_872),
        ("cait_s24", "paper", 1_877_130, 1_776_000),
        ("cait_s24", "report", 1_779_226, 1_775_376),
        ("resnet152v2", "paper", 15_497_994, 14_970_880),
    ],
)
def test_as_many_parameters_train_as_the_studies_printed(
    name: str, recipe: str, trained: int, trained_without_head: int
) -> None:
    count = counted(REGISTRY.backbone(name), recipe)
    assert (count.trained, count.trained_without_head) == (trained, trained_without_head)


@pytest.mark.parametrize(("backbone", "recipe"), REPORTED, ids=lambda value: getattr(value, "name", value))
def test_a_reported_count_is_ours_with_or_without_the_head(backbone: Backbone, recipe: str) -> None:
    declared = backbone.recipes[recipe]
    count = counted(backbone, recipe, declared.reported_classes)
    assert declared.reported_parameters in (count.trained, count.trained_without_head)


@pytest.mark.parametrize("backbone", BUILT_IN, ids=lambda backbone: backbone.name)
def test_the_default_recipe_trains_a_small_part(backbone: Backbone) -> None:
    count = counted(backbone, "default")
    assert 0 < count.trained_without_head < count.trained < count.total / 2


@pytest.mark.parametrize(
    "backbone",
    [record for record in BUILT_IN if isinstance(record.weights, TimmWeights)],
    ids=lambda backbone: backbone.name,
)
def test_provenance_is_as_timm_publishes_it(backbone: Backbone) -> None:
    assert isinstance(backbone.weights, TimmWeights)
    published = timm.get_pretrained_cfg(backbone.weights.name)
    assert published is not None
    architecture, tag = backbone.weights.name.split(".")
    assert (published.architecture, published.tag) == (architecture, tag)
    assert published.hf_hub_id == backbone.weights.repository == f"timm/{backbone.weights.name}"
    assert published.license == backbone.license
