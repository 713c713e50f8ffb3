"""Render the card of a backbone: its declaration, the modules its recipes train, and published results.

The card depends on the declaration and the published tables alone, so it is the same on every machine.
"""

from __future__ import annotations

from typing import Any

from zoo.backbone import Backbone, DualHead, Head
from zoo.registry import load_registry
from zoo_harness.reports import markdown
from zoo_harness.reports.backbone_summary import describe_backbone
from zoo_harness.reports.published_results import Published, published_figures, published_separation
from zoo_harness.reports.run_card import markdown_template
from zoo_harness.reports.wording import head_in_words, number

CLASSES = 10
Rows = list[tuple[str, str]]


def render_backbone_card(backbone: Backbone) -> str:
    """Render the whole card in Markdown; counts are for 10 classes.

    >>> from zoo import load_registry
    >>> print(render_backbone_card(load_registry().backbone("resnet18")).splitlines()[0])
    # ResNet-18
    """
    owner = load_registry().declares(backbone)
    recipes = [describe_backbone(backbone, recipe, CLASSES) for recipe in ("default", *backbone.recipes)]
    by_name = {recipe["recipe"]: recipe for recipe in recipes}
    card = markdown_template("backbone_card.md.j2").render(
        shown=recipes[0],
        built_in=owner is not None and owner.built_in,
        owner=owner.distribution if owner else "no plugin",
        random=backbone.weights.kind == "random",
        facts=_facts(backbone, recipes[0]),
        recipes=recipes,
        tables={name: _recipe_table(recipe, backbone.tuning(name).head) for name, recipe in by_name.items()},
        figures=[(figure, _ours(figure, backbone)) for figure in published_figures(backbone.name)],
        separation=published_separation(backbone.name),
        layer_tables=_layer_tables(recipes),
    )
    return card.rstrip() + "\n"


def _facts(backbone: Backbone, shown: dict[str, Any]) -> Rows:
    top1 = shown["imagenet_top1"]
    data = "nothing" if backbone.weights.kind == "random" else "unknown"
    return [
        ("name", shown["name"]),
        ("network", shown["network"]),
        ("weights", shown["weights"]),
        ("license of the weights", shown["license"] or data.replace("nothing", "none needed")),
        ("paper", markdown.link(shown["paper"]) if shown["paper"] else "unknown"),
        ("pretrained on", shown["pretrained_on"] or data),
        ("ImageNet-1k top-1, as published", data.replace("nothing", "none") if top1 is None else f"{top1:g} %"),
        ("parameters, as published", number(shown["parameters_as_published"])),
        ("plugin", shown["plugin"]),
    ]


def _recipe_table(shown: dict[str, Any], head: Head | DualHead) -> Rows:
    counts = shown["parameters"]
    width = shown["features"][-1]["width"]
    return [
        ("trained modules", "all" if shown["unfreeze"] == ["*"] else ", ".join(shown["unfreeze"])),
        ("new classifier", head_in_words(head, width, CLASSES)),
        (f"trained parameters, {CLASSES} classes", number(counts["trained"])),
        ("trained parameters without the classifier", number(counts["trained_without_head"])),
        ("parameters", number(counts["total"])),
        ("training", shown["training_in_words"]),
        ("images", shown["images"]),
    ]


def _ours(figure: Published, backbone: Backbone) -> str:
    """Return our parameter count for the source's number of classes; say whether the source omits the classifier."""
    classes = backbone.recipes[figure.recipe].reported_classes
    ours = describe_backbone(backbone, figure.recipe, classes)["parameters"]
    printed = figure.row.trainable_parameters
    if printed == ours["trained"]:
        return f"{printed:,}"
    if printed == ours["trained_without_head"]:
        return f"{printed:,} without the classifier, {ours['trained']:,} with it"
    return f"{ours['trained']:,}"


def _layer_tables(recipes: list[dict[str, Any]]) -> list[tuple[list[dict[str, Any]], list[str]]]:
    """Return each distinct list of feature layers with the recipes that have it."""
    tables: dict[str, tuple[list[dict[str, Any]], list[str]]] = {}
    for recipe in recipes:
        _features, names = tables.setdefault(str(recipe["features"]), (recipe["features"], []))
        names.append(recipe["recipe"])
    return list(tables.values())
