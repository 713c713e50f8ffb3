"""The figures that ``zoo list`` shows: those of the networks, and as timm reports them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from zoo import Backbone, load_registry
from zoo_harness.records.options import EPOCHS_HELP
from zoo_harness.reports.backbone_figures import figures_of, measure_figures, stored_figures

REGISTRY = load_registry()
BUILT_IN = sorted(name for name in REGISTRY.backbones if REGISTRY.owner("backbone", name).built_in)
LARGE = {"cait_s24", "densenet201", "efficientnetv2_l", "nfnet_f6", "resnet152v2"}


def test_every_built_in_backbone_has_figures_and_no_other() -> None:
    assert sorted(stored_figures()) == BUILT_IN


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in LARGE else ()) for name in BUILT_IN]
)
def test_the_stored_figures_are_those_of_the_network(name: str) -> None:
    assert stored_figures()[name] == measure_figures(REGISTRY.backbone(name)), "run make docs"


@pytest.mark.parametrize(
    ("name", "gmacs"), [("resnet18", 1.82), ("cait_s24", 9.35), ("swin_b", 15.47), ("vgg16", 15.5), ("nfnet_f6", 229.7)]
)
def test_the_cost_is_what_timm_reports(name: str, gmacs: float) -> None:
    assert stored_figures()[name]["gmacs"] == pytest.approx(gmacs, rel=0.01)


def test_a_backbone_of_another_plugin_is_measured(tiny_resnet: Backbone) -> None:
    figures = figures_of(tiny_resnet)
    assert figures["parameters"] == 469_688
    assert figures["input_size"] == [160, 160]
    assert figures["weights_bytes"] > 4 * figures["parameters"]  # the statistics of BatchNorm are in the file too
    named_alike = replace(tiny_resnet, name="resnet18")
    assert figures_of(named_alike) == figures


def test_the_help_names_the_epochs_of_every_recipe() -> None:
    found = {
        (recipe, backbone.tuning(recipe).training.epochs)
        for backbone in map(REGISTRY.backbone, BUILT_IN)
        for recipe in ("default", "scratch", *backbone.recipes)
    }
    assert found == {("default", 20), ("paper", 20), ("report", 10), ("scratch", 200)}
    assert "20; recipe report 10, recipe scratch 200" in EPOCHS_HELP
