"""``zoo list``, ``zoo plugins`` and ``zoo datasets``: what there is."""

from __future__ import annotations

from typing import Any

from zoo_harness.cli.options import AsJson, Debug
from zoo_harness.cli.table import print_json, print_table, tell, warn_of_broken_plugins


def list_backbones(as_json: AsJson = False, _debug: Debug = False) -> None:
    """List the backbones, where their weights come from, and whether those are on this machine."""
    from zoo.registry import load_registry
    from zoo_harness.local_weights import describe, find_local

    registry = load_registry()
    warn_of_broken_plugins()
    backbones: list[dict[str, Any]] = []
    for backbone in registry.backbones.values():
        backbones.append(
            {
                "name": backbone.name,
                "weights": describe(backbone.weights),
                "on_this_machine": backbone.weights.kind == "random" or find_local(backbone.weights) is not None,
                "imagenet_top1": backbone.imagenet_top1,
                "license": backbone.license,
                "recipes": ["default", *backbone.recipes],
                "plugin": registry.owner("backbone", backbone.name).distribution,
            }
        )
    if as_json:
        print_json(backbones)
        return
    print_table(
        ["backbone", "weights", "here", "top-1", "license", "recipes", "plugin"],
        [
            [
                row["name"],
                row["weights"],
                "yes" if row["on_this_machine"] else "no",
                f"{row['imagenet_top1']:.2f}" if row["imagenet_top1"] is not None else "-",
                row["license"] or "-",
                ", ".join(row["recipes"]),
                row["plugin"],
            ]
            for row in backbones
        ],
        right=["top-1"],
    )


def list_plugins(as_json: AsJson = False, _debug: Debug = False) -> None:
    """List the plugins found, what each declares, and why any of them could not be used."""
    from zoo.registry import load_registry

    plugins = load_registry().plugins
    if as_json:
        print_json(
            [
                {
                    "entry_point": plugin.entry_point,
                    "value": plugin.value,
                    "distribution": plugin.distribution,
                    "version": plugin.version,
                    "backbones": plugin.backbones,
                    "datasets": plugin.datasets,
                    "errors": plugin.errors,
                }
                for plugin in plugins
            ]
        )
        return
    print_table(
        ["plugin", "distribution", "version", "backbones", "datasets", "state"],
        [
            [
                plugin.entry_point,
                plugin.distribution,
                plugin.version,
                ", ".join(plugin.backbones) or "-",
                ", ".join(plugin.datasets) or "-",
                "; ".join(plugin.errors) or "ok",
            ]
            for plugin in plugins
        ],
    )


def list_datasets(as_json: AsJson = False, _debug: Debug = False) -> None:
    """List the data sets, and how to name one on the command line."""
    from zoo.registry import load_registry

    registry = load_registry()
    warn_of_broken_plugins()
    datasets = registry.datasets.values()
    if as_json:
        print_json(
            [
                {
                    "name": dataset.name,
                    "call": dataset.call,
                    "title": dataset.title,
                    "classes": dataset.classes,
                    "sizes": dataset.sizes,
                    "license": dataset.license,
                    "hub_id": dataset.hub_id,
                    "plugin": registry.owner("dataset", dataset.name).distribution,
                }
                for dataset in datasets
            ]
        )
        return
    print_table(
        ["dataset", "title", "classes", "images", "license", "plugin"],
        [
            [
                dataset.call,
                dataset.title,
                str(len(dataset.classes)) if dataset.classes else "-",
                " + ".join(f"{size:,} {split}" for split, size in (dataset.sizes or {}).items()) or "-",
                dataset.license or "-",
                registry.owner("dataset", dataset.name).distribution,
            ]
            for dataset in datasets
        ],
        right=["classes"],
    )
    if not datasets:
        tell("no plugin declares a data set")
