"""``zoo list``, ``zoo plugins`` and ``zoo datasets``: list what is installed."""

from __future__ import annotations

from typing import Any

from zoo_harness.cli.options import AsJson, Debug
from zoo_harness.cli.output import print_json, print_table, warn_of


def list_backbones(as_json: AsJson = False, _debug: Debug = False) -> None:
    """List the backbones with the sources of their weights, and whether the weights are on this machine."""
    from zoo_harness.cli.catalogue import read_catalogue

    catalogue = read_catalogue()
    warn_of(catalogue["problems"])
    backbones = [_row(backbone) for backbone in catalogue["backbones"]]
    if as_json:
        print_json(backbones)
        return
    rows = []
    for row in backbones:
        here = "yes" if row["on_this_machine"] else "no"
        top1 = "-" if row["imagenet_top1"] is None else f"{row['imagenet_top1']:.2f}"
        rows.append([row["name"], here, top1, ", ".join(row["recipes"]), row["weights"]])
    print_table(["backbone", "here", "top-1", "recipes", "weights"], rows, right=["top-1"])


def list_plugins(as_json: AsJson = False, _debug: Debug = False) -> None:
    """List the plugins, their declarations, and the error of each plugin that cannot be used."""
    from dataclasses import asdict

    from zoo.registry import load_registry

    plugins = load_registry().plugins
    if as_json:
        print_json([asdict(plugin) for plugin in plugins])
        return
    rows = []
    for plugin in plugins:
        declared = [", ".join(plugin.backbones) or "-", ", ".join(plugin.datasets) or "-"]
        state = "; ".join(plugin.errors) or "ok"
        rows.append([plugin.entry_point, plugin.distribution, plugin.version, *declared, state])
    print_table(["plugin", "distribution", "version", "backbones", "datasets", "state"], rows)


def list_datasets(as_json: AsJson = False, _debug: Debug = False) -> None:
    """List the data sets by their names on the command line."""
    from zoo_harness.cli.catalogue import read_catalogue

    catalogue = read_catalogue()
    warn_of(catalogue["problems"])
    datasets = catalogue["datasets"]
    if as_json:
        print_json(datasets)
        return
    rows = []
    for row in datasets:
        classes = str(len(row["classes"])) if row["classes"] else "-"
        images = " + ".join(f"{size:,} {split}" for split, size in (row["sizes"] or {}).items()) or "-"
        rows.append([row["call"], row["title"], classes, images, row["license"] or "-", row["plugin"]])
    print_table(["dataset", "title", "classes", "images", "license", "plugin"], rows, right=["classes"])


def _row(backbone: dict[str, Any]) -> dict[str, Any]:
    """Return the backbone as ``--json`` prints it, and whether its weights are on this machine."""
    from zoo.errors import PluginError
    from zoo_harness.cli.catalogue import weights_are_here

    try:
        here = weights_are_here(backbone)
    except PluginError as error:
        warn_of([str(error)])
        here = False
    shown = {key: value for key, value in backbone.items() if key not in ("weights_kind", "weights_place")}
    return {**shown, "on_this_machine": here}
