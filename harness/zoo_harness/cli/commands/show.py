"""``zoo show NAME``: describe a backbone, one of its recipes, and the parameters that the recipe trains."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from zoo.license_terms import binding_terms
from zoo_harness.cli.commands.show_run import show_run
from zoo_harness.cli.options import AsJson, Debug, RecipeName, complete_backbone_or_run
from zoo_harness.cli.output import print_facts, print_json, print_lines, print_table, warn_of


def show(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME|RUN",
            help="Name of a backbone from 'zoo list', or the folder of a run.",
            autocompletion=complete_backbone_or_run,
        ),
    ],
    recipe: RecipeName = "default",
    classes: Annotated[int, typer.Option(help="Number of classes that the new head predicts.")] = 10,
    partition: Annotated[
        bool,
        typer.Option(
            "--partition", "--split", help="Show the first trained module, and the size of the cache per image."
        ),
    ] = False,
    as_json: AsJson = False,
    _debug: Debug = False,
) -> None:
    """Show a backbone or a run.

    For a backbone, zoo shows its origin, recipe, trained tensors, parameter counts and feature layers.
    For a run, zoo shows its data, settings, scores, checkpoints and disk use.
    """
    from zoo_harness.hub.locate import names_a_checkpoint

    if names_a_checkpoint(name):
        show_run(name, as_json=as_json)
        return

    from zoo.registry import load_registry
    from zoo_harness.records.option_checks import check_classes

    registry = load_registry()
    warn_of(registry.problems)
    backbone = registry.backbone(name)
    backbone.tuning(recipe)
    check_classes(classes)

    from zoo_harness.cli.catalogue import read_description
    from zoo_harness.models.weight_source import find_local

    local = find_local(backbone)
    description = {**read_description(backbone, recipe, classes), "weights_file": str(local) if local else None}
    if partition:  # importing torch takes seconds
        from zoo_harness.frozen.partition.summary import describe_partition

        description["partition"] = describe_partition(backbone, recipe, classes)
    if as_json:
        print_json(description)
    else:
        _print(description)


def _license(given: str | None) -> str:
    terms = binding_terms(given)
    return f"{given}: {terms}" if terms else given or "unknown"


def _print(shown: dict[str, Any]) -> None:
    top1 = shown["imagenet_top1"]
    source = [("derived from", f"{shown['derived_from']}, automatically")] if shown["derived_from"] else []
    print_lines(f"{shown['title']} ({shown['name']})", "")
    _print_part(
        ("weights", shown["weights"]),
        *([] if shown["weights"] == "random" else [("", shown["weights_file"] or "not on this machine yet")]),
        ("network", shown["network"]),
        ("license", _license(shown["license"])),
        ("paper", shown["paper"] or "unknown"),
        ("pretrained on", shown["pretrained_on"] or "unknown"),
        ("ImageNet top-1", f"{top1:g} %, as published" if top1 is not None else "unknown for these weights"),
        ("size", _size(shown["figures"])),
        ("plugin", shown["plugin"]),
        *source,
    )
    print_lines("", f"Recipe {shown['recipe']} (of {', '.join(shown['recipes'])})", "")
    _print_part(*_recipe_facts(shown))
    print_lines("", f"Parameters, {shown['classes']} classes", "")
    _print_part(*_count_facts(shown["parameters"]))
    print_lines(
        "",
        f"Trained tensors: {len(shown['trained_names'])}",
        "",
        *(f"  {name}" for name in shown["trained_names"]),
        "",
        "Feature layers, in depth order; the last is the input of the classifier",
        "",
    )
    rows = [[layer["path"], str(layer["width"]), layer["pool"]] for layer in shown["features"]]
    print_table(["layer", "width", "pool"], rows, right=["width"])
    if "partition" in shown:
        print_lines("", "Where training starts", "")
        _print_part(*_partition_facts(shown["partition"]))


def _print_part(*facts: tuple[str, str]) -> None:
    """Print names with their values below a heading; the values of all parts start in the same column."""
    print_facts([(f"{name:<14}", value) for name, value in facts], indent="  ", gap=1)


def _size(figures: dict[str, Any]) -> str:
    from zoo_harness.util.byte_sizes import bytes_in_words

    height, width = figures["input_size"]
    cost = "cost unknown" if figures["gmacs"] is None else f"{figures['gmacs']:.4g} GMACs"
    stored = "" if figures["weights_bytes"] is None else f", weights ~{bytes_in_words(figures['weights_bytes'])}"
    return f"{figures['parameters'] / 1e6:.1f} M parameters{stored}; {cost} an image of {height} x {width}"


def _recipe_facts(shown: dict[str, Any]) -> list[tuple[str, str]]:
    heads = [f"{part['path']}: {_kind_of_head(part)}" for part in shown["head"]]
    return [
        ("unfrozen", ", ".join(shown["unfreeze"]) or "nothing but the head"),
        ("head", "; ".join(heads)),
        *_facts("training", shown["training_in_words"].split("; ")),
        ("images", shown["images"]),
        *([("source", shown["recipe_source"])] if shown["recipe_source"] else []),
    ]


def _facts(title: str, parts: list[str]) -> list[tuple[str, str]]:
    return [("" if place else title, part) for place, part in enumerate(parts)]


def _kind_of_head(part: dict[str, Any]) -> str:
    kind = "linear" if part["hidden"] is None else f"MLP, {part['hidden']} hidden units"
    return f"{kind}, {' and '.join(part['bypass'])} bypassed" if part["bypass"] else kind


def _count_facts(counts: dict[str, Any]) -> list[tuple[str, str]]:
    facts = [
        ("trained", f"{counts['trained']:>13,}"),
        ("without head", f"{counts['trained_without_head']:>13,}"),
        ("total", f"{counts['total']:>13,}"),
    ]
    if counts["reported"] is not None:
        which = "without head" if counts["reported"] == counts["trained_without_head"] else "trained"
        source = f"the source, {counts['reported_classes']} classes: {which}"
        facts.append(("reported", f"{counts['reported']:>13,}  ({source})"))
    return facts


def _partition_facts(partition: dict[str, Any]) -> list[tuple[str, str]]:
    if partition["reason"]:
        return [("not cut", partition["reason"]), ("forward pass", f"{partition['flops'] / 1e9:.2f} GFLOP")]
    kept = [f"{part['name']}: {' x '.join(map(str, part['shape']))} {part['dtype']}" for part in partition["kept"]]
    whole, suffix = partition["flops"], partition["suffix_flops"]
    return [
        *_facts("kept per image", [*kept, f"{partition['bytes_per_image']:,} bytes; half of that in bf16"]),
        ("forward pass", f"{whole / 1e9:.2f} GFLOP an image"),
        ("before the cut", f"{(whole - suffix) / 1e9:.2f} GFLOP, {1 - suffix / whole:.1%}: once an image"),
        ("after it", f"{suffix / 1e9:.2f} GFLOP, {suffix / whole:.1%}: in every epoch"),
    ]
