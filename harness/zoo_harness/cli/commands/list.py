"""``zoo list``, ``zoo plugins`` and ``zoo datasets``: list the installed backbones, plugins and datasets."""

from __future__ import annotations

from typing import Any

from zoo_harness.cli.options import AsJson, Debug
from zoo_harness.cli.output import print_json, print_lines, print_notes, print_table, warn_of


def list_backbones(as_json: AsJson = False, _debug: Debug = False) -> None:
    """List the backbones: weights, size, cost, recipes.

    Backbones whose weights are on this machine come first.
    """
    from zoo_harness.cli.catalogue import read_catalogue

    catalogue = read_catalogue()
    warn_of(catalogue["problems"])
    backbones = sorted(map(_row, catalogue["backbones"]), key=_readiness)
    if as_json:
        print_json(backbones)
        return
    columns = ["backbone", "weights", "top-1", "size, M", "input", "GMACs", "recipes"]
    print_table(columns, [_cells(row) for row in backbones], right=columns[1:-1])
    print_lines("")
    print_notes(*_NOTES, *_license_notes(backbones))


_NOTES = (
    "weights: here (on this machine), random (trained from scratch), or the size of the download, estimated from the "
    "parameters. size: millions of parameters. input: pixels. GMACs: billions of multiply-accumulates per image.",
    "next: zoo show NAME, zoo rank --dataset D",
)


def _license_notes(backbones: list[dict[str, Any]]) -> list[str]:
    """Return a line that names the backbones whose licence restricts their use, or an empty list."""
    from zoo.license_terms import binding_terms

    names: dict[str, list[str]] = {}
    for row in backbones:
        if terms := binding_terms(row["license"]):
            names.setdefault(terms, []).append(row["name"])
    bound = "; ".join(f"{', '.join(several)} ({terms})" for terms, several in names.items())
    return [f"licences that restrict the use: {bound}"] if bound else []


def list_plugins(as_json: AsJson = False, _debug: Debug = False) -> None:
    """List the installed plugins, and the error of each broken plugin."""
    from dataclasses import asdict

    from zoo.registry import load_registry

    plugins = load_registry().plugins
    if as_json:
        print_json([asdict(plugin) for plugin in plugins])
        return
    rows = []
    for plugin in plugins:
        datasets = f"datasets: {', '.join(plugin.datasets)}" if plugin.datasets else ""
        declared = "; ".join(filter(None, [", ".join(plugin.backbones), datasets])) or "-"
        state = "; ".join(plugin.errors) or "ok"
        rows.append([plugin.entry_point, plugin.distribution, plugin.version, declared, state])
    print_table(["plugin", "distribution", "version", "backbones, datasets", "state"], rows)


def list_datasets(as_json: AsJson = False, _debug: Debug = False) -> None:
    """List the datasets by the names that --dataset takes."""
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
        sizes = row["sizes"] or {}
        images = [f"{sizes[split]:,}" if split in sizes else "-" for split in ("train", "test")]
        rows.append([row["call"], row["title"], classes, *images, row["license"] or "-", row["plugin"]])
    columns = ["dataset", "title", "classes", "train", "test", "license", "plugin"]
    print_table(columns, rows, right=columns[2:5])
    print_lines("")
    print_notes("train, test: images. next: zoo stats --dataset D, zoo rank --dataset D")


def _row(backbone: dict[str, Any]) -> dict[str, Any]:
    """Return the entry that ``--json`` prints for a backbone: description, size, cost, and where the weights are."""
    from zoo.errors import PluginError
    from zoo_harness.cli.catalogue import weights_file

    try:
        file = weights_file(backbone)
    except PluginError as error:
        warn_of([str(error)])
        file = None
    hidden = ("weights_kind", "weights_place", "built_in")
    shown = {key: value for key, value in backbone.items() if key not in hidden}
    random = backbone["weights_kind"] == "random"
    figures = _figures(backbone)
    derived = figures.pop("weights_bytes", None)
    return {
        **shown,
        **figures,
        "weights_bytes": file.stat().st_size if file else derived,
        "weights_bytes_derived": file is None and derived is not None,
        "random_weights": random,
        "on_this_machine": random or file is not None,
    }


def _figures(backbone: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters, input size and GMACs of a backbone; values that nobody stored or declared are ``None``."""
    from zoo_harness.reports.backbone_figures import stored_figures

    stored = stored_figures().get(backbone["name"]) if backbone["built_in"] else None
    return dict(stored or {"parameters": None, "input_size": backbone["input_size"], "gmacs": None})


def _readiness(row: dict[str, Any]) -> tuple[bool, bool, str]:
    return not row["on_this_machine"], row["random_weights"], row["name"]


def _cells(row: dict[str, Any]) -> list[str]:
    size = row["input_size"]
    return [
        row["name"],
        _weights(row),
        "-" if row["imagenet_top1"] is None else f"{row['imagenet_top1']:.2f}",
        "-" if row["parameters"] is None else f"{row['parameters'] / 1e6:.1f}",
        "-" if size is None else str(size[0]) if size[0] == size[1] else f"{size[0]}x{size[1]}",
        "-" if row["gmacs"] is None else f"{row['gmacs']:.{2 if row['gmacs'] < 100 else 1}f}",
        ", ".join(row["recipes"][1:]) or "-",
    ]


def _weights(row: dict[str, Any]) -> str:
    """Return the cell of the column ``weights``: ``here``, ``random``, or the size of the download."""
    size = row["weights_bytes"]
    if row["on_this_machine"]:
        return "random" if row["random_weights"] else "here"
    if size is None:
        return "to fetch"
    return f"~{size / 2**20:.0f} MiB" if size < 1000 * 2**20 else f"~{size / 2**30:.1f} GiB"
