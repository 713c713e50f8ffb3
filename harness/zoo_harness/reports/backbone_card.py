"""Render the card of a backbone: its declaration, the modules that its recipes train, and published results.

The card depends only on the declaration and the published tables, so it is the same on every machine.
"""

from __future__ import annotations

from typing import Any

from zoo.backbone import Backbone
from zoo.registry import load_registry
from zoo_harness.reports.backbone_summary import describe_backbone
from zoo_harness.reports.published_results import Published, published_figures
from zoo_harness.reports.published_separation import published_separation
from zoo_harness.reports.run_card import markdown_template

CLASSES = 10


def render_backbone_card(backbone: Backbone) -> str:
    """Render the card of a backbone in Markdown, with parameter counts for 10 classes.

    >>> from zoo import load_registry
    >>> print(render_backbone_card(load_registry().backbone("resnet18")).splitlines()[0])
    # ResNet-18
    """
    owner = load_registry().declares(backbone)
    recipes = [describe_backbone(backbone, recipe, CLASSES) for recipe in ("default", *backbone.recipes)]
    card = markdown_template("backbone_card.md.j2").render(
        backbone=backbone,
        shown=recipes[0],
        built_in=owner is not None and owner.built_in,
        owner=owner.distribution if owner else "no plugin",
        random=backbone.weights.kind == "random",
        recipes=recipes,
        figures=[(figure, _ours(figure, backbone)) for figure in published_figures(backbone.name)],
        separation=published_separation(backbone.name),
        layer_tables=_layer_tables(recipes),
    )
    return card.rstrip() + "\n"


def _ours(figure: Published, backbone: Backbone) -> str:
    """Return our trained-parameter count for the source's classes, with a note if the source counts differently."""
    classes = backbone.recipes[figure.recipe].reported_classes
    ours = describe_backbone(backbone, figure.recipe, classes)["parameters"]
    printed = figure.row.trainable_parameters
    if printed == ours["trained"]:
        return f"{printed:,}"
    if printed == ours["trained_without_head"]:
        return f"{printed:,} without the classifier, {ours['trained']:,} with it"
    return f"{ours['trained']:,}"


def _layer_tables(recipes: list[dict[str, Any]]) -> list[tuple[list[dict[str, Any]], list[str]]]:
    """Return each distinct list of feature layers with the names of the recipes that use it."""
    tables: dict[str, tuple[list[dict[str, Any]], list[str]]] = {}
    for recipe in recipes:
        _features, names = tables.setdefault(str(recipe["features"]), (recipe["features"], []))
        names.append(recipe["recipe"])
    return list(tables.values())
