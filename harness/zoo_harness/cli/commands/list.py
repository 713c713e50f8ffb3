"""``zoo list``, ``zoo plugins`` and ``zoo datasets``: what there is."""

from __future__ import annotations

from typing import Any

from zoo_harness.cli.options import AsJson, Debug
from zoo_harness.cli.output import print_json, print_table, warn_of


def list_backbones(as_json: AsJson = False, _debug: Debug = False) -> None:
    """List the backbones, where their weights come from, and whether those are on this machine."""
    from zoo_harness.cli.catalogue import read_catalogue

    catalogue = read_catalogue()
    warn_of(catalogue["problems"])
    backbones = [_row(backbone) for backbone in catalogue["backbones"]]
    if as_json:
        print_json(backbones)
        return
    rows = [
        [
            row["name"],
            "yes" if row["on_this_machine"] else "no",
            f"{row['imagenet_top1']:.2f}" if row["imagenet_top1"] is not None else "-",
            ", ".join(row["recipes"]),
            row["weights"],
        ]
        for row in backbones
    ]
    print_table(["backbone", "here", "top-1", "recipes", "weights"], rows, right=["top-1"])


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
    from zoo_harness.cli.catalogue import read_catalogue

    catalogue = read_catalogue()
    warn_of(catalogue["problems"])
    datasets = catalogue["datasets"]
    if as_json:
        print_json(datasets)
        return
    print_table(
        ["dataset", "title", "classes", "images", "license", "plugin"],
        [
            [
                row["call"],
                row["title"],
                str(len(row["classes"])) if row["classes"] else "-",
                " + ".join(f"{size:,} {split}" for split, size in (row["sizes"] or {}).items()) or "-",
                row["license"] or "-",
                row["plugin"],
            ]
            for row in datasets
        ],
        right=["classes"],
    )


def _row(backbone: dict[str, Any]) -> dict[str, Any]:
    """The backbone as ``--json`` prints it, and whether its weights are on this machine."""
    from zoo.errors import PluginError
    from zoo_harness.cli.catalogue import weights_are_here

    try:
        here = weights_are_here(backbone)
    except PluginError as error:
        warn_of([str(error)])
        here = False
    shown = {key: value for key, value in backbone.items() if key not in ("weights_kind", "weights_place")}
    return {**shown, "on_this_machine": here}
