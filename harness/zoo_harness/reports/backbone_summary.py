"""Describe a backbone and one of its recipes as a dictionary, for ``zoo show`` and the backbone's card."""

from __future__ import annotations

from typing import Any

from pydantic_core import to_jsonable_python

from zoo.backbone import Backbone
from zoo.registry import load_registry
from zoo_harness.models.build import build_network
from zoo_harness.models.preprocessing import resolve_preprocessing
from zoo_harness.models.surgery import prepare
from zoo_harness.models.tuned_network import count_parameters
from zoo_harness.reports.backbone_figures import figures_of
from zoo_harness.reports.wording import preprocessing_in_words, training_in_words


def describe_backbone(backbone: Backbone, recipe: str, classes: int) -> dict[str, Any]:
    """Return a dictionary with a backbone's origin, recipe, preprocessing, parameter counts and feature layers.

    The parameter counts are for ``classes`` classes. The network is built without its weights, so nothing is
    downloaded, and the result is the same on every machine.
    Raises :class:`~zoo.errors.UnknownNameError` if the recipe is not declared.

    >>> describe_backbone(load_registry().backbone("cait_s24"), "paper", 10)["parameters"]["trained"]
    1877130
    """
    tuning = backbone.tuning(recipe)
    network = build_network(backbone.name, backbone.network, device="meta")
    preprocessing = resolve_preprocessing(backbone, network, tuning)
    as_published = sum(parameter.numel() for parameter in network.parameters())
    parameters = count_parameters(prepare(network, tuning, classes, example=None))
    declared = backbone.recipes.get(recipe)
    plugin = load_registry().declares(backbone)
    return {
        "name": backbone.name,
        "title": backbone.title or backbone.name,
        "plugin": plugin.origin if plugin else "none",
        "derived_from": backbone.derived_from,
        "network": f"{backbone.network.kind} {backbone.network.name}",
        "weights": backbone.weights.describe(),
        "license": backbone.license,
        "paper": backbone.paper,
        "pretrained_on": backbone.pretrained_on,
        "imagenet_top1": backbone.imagenet_top1,
        "figures": figures_of(backbone),
        "recipe": tuning.recipe,
        "recipe_source": tuning.source,
        "recipes": ["default", *backbone.recipes],
        "unfreeze": list(tuning.unfreeze),
        "head": [{"path": part.path, "hidden": part.hidden, "bypass": list(part.bypass)} for part in tuning.head.parts],
        "training": to_jsonable_python(tuning.training),
        "training_in_words": training_in_words(tuning.training),
        "preprocessing": to_jsonable_python(preprocessing),
        "images": preprocessing_in_words(preprocessing),
        "classes": classes,
        "parameters_as_published": as_published,
        "parameters": {
            "total": parameters.total,
            "trained": parameters.trained,
            "trained_without_head": parameters.trained_without_head,
            "reported": declared.reported_parameters if declared else None,
            "reported_classes": declared.reported_classes if declared else None,
        },
        "trained_names": list(parameters.trained_names),
        "features": to_jsonable_python(tuning.features),
    }
