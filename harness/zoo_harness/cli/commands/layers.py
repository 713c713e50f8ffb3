"""``zoo layers``: score every feature layer of a network with the Separation Index."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from zoo_harness.cli.command import Given, command
from zoo_harness.cli.options import AsJson, Quiet, complete_backbone, complete_dataset, complete_run
from zoo_harness.cli.output import print_facts, print_json, print_lines, print_notes, print_table
from zoo_harness.cli.run_output import display_for, ended_in_order
from zoo_harness.records.options import LayersOptions

if TYPE_CHECKING:
    from zoo_harness.evaluation.layer_scores import ScoredLayer
    from zoo_harness.evaluation.split_scores import Scoring
    from zoo_harness.runs.layer_run import Curve, LayerScoring


_LONGEST_BAR, _SHORTEST_BAR = 24, 10
_WIDTH = 120  # without a terminal


Names = Annotated[
    list[str] | None,
    typer.Argument(metavar="[NAME]...", help="Names of backbones from 'zoo list'.", autocompletion=complete_backbone),
]
Dataset = Annotated[
    str,
    typer.Option(
        help="Name of a dataset from 'zoo datasets'.", autocompletion=complete_dataset, rich_help_panel="Data"
    ),
]
Runs = Annotated[
    list[Path] | None,
    typer.Option(
        "--run", help="Also score the network of the run in this folder; repeatable.", autocompletion=complete_run
    ),
]


def _layers(
    names: Names = None,
    dataset: Dataset = "digits",
    runs: Runs = None,
    *,
    given: Given,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Score how well every layer of a network separates the classes."""
    from zoo_harness.api import layers

    with ended_in_order(), display_for(quiet=quiet) as display:
        found = layers([*(names or []), *(runs or [])], dataset, progress=display, **given)
    if as_json:
        print_json(found.to_dict())
        return
    if found.plot is None:
        _print_last(found)
    else:
        for curve in found.curves:
            _print_curve(curve, found.scoring)
    if given.get("published"):
        _print_published_notes(found)
    suffixes = [".png", *([".svg"] if given.get("svg") else [])]
    plots = [found.plot.with_suffix(suffix).name for suffix in suffixes] if found.plot else []
    print_lines("")
    print_facts([("folder", str(found.path.parent)), ("files", ", ".join([found.path.name, *plots]))])


layers_command = command(LayersOptions, _layers)


def _print_last(found: LayerScoring) -> None:
    """Print a row of scores for each network and split, after a row for the raw pixels of each set of images."""
    data = found.curves[0].data
    splits = dict.fromkeys(f"{each.split} {each.data['images']:,} images" for each in found.curves)
    subsets = dict.fromkeys(each.data["subset"] for each in found.curves)
    about = (
        f"{data['dataset']}: {', '.join(splits)} ({'; '.join(subsets)}); scored: the input of each network's classifier"
    )
    print_lines("")
    print_notes(f"{about}; {found.scoring.in_words()}")
    print_lines("")
    pixels = {curve.data["fingerprint"]: ("raw pixels", curve, curve.layers[0]) for curve in reversed(found.curves)}
    entries = [*reversed(pixels.values()), *((curve.subject.name, curve, curve.layers[-1]) for curve in found.curves)]
    rows, before = [], ""
    for name, curve, layer in entries:
        cells = ["" if name == before else name, curve.split, *_scores(layer)]
        rows.append(cells)
        before = name
        for values in _published_values(curve, layer):
            rows.append(["published", curve.split, *values])
            before = ""
    headings = _headings(found.curves[0])
    print_table(["network", "split", *headings], rows, right=headings)


def _published_values(curve: Curve, layer: ScoredLayer) -> list[list[str]]:
    """Return the published scores of the raw pixels or of the classifier's input, if the settings agree."""
    from zoo_harness.separation.scores import SCORES

    raw = layer is curve.layers[0]
    found = [each for each in curve.published if each.agrees and (each.features == "raw pixels") == raw]
    return [[f"{each.published[score.key]:.4f}" for score in SCORES] for each in found if len(each.published) > 1]


def _print_published_notes(found: LayerScoring) -> None:
    from zoo_harness.reports.published_separation import GENERAL, notes

    told: set[str] = set()
    lines = [f"{each.title}: {line}" for each in found.curves for line in notes(each.published, told=told)]
    known = any(each.published for each in found.curves)
    print_lines("")
    print_notes(*lines, GENERAL if known else "Nothing is published of these networks and this dataset.")


def _scores(layer: ScoredLayer) -> list[str]:
    from zoo_harness.separation.scores import SCORES

    first, *others = [layer.separation.score(each) for each in SCORES]
    return [str(first), *(f"{score.value:.4f}" for score in others)]


def _headings(curve: Curve) -> list[str]:
    """Return short column names for the scores: their keys, which are narrower than their full names."""
    from zoo_harness.separation.scores import SCORES

    order = curve.layers[0].separation.order
    return [f"{each.key} {order}" if each.has_orders else each.heading for each in SCORES]


def _print_curve(curve: Curve, scoring: Scoring) -> None:
    images = curve.data["images"]
    about = f"{images:,} images of {curve.data['dataset']}, {curve.data['subset']}; {scoring.in_words()}"
    print_lines("")
    print_notes(f"{curve.title}: {about}")
    print_lines("")
    rows = [[layer.path, f"{layer.width:,}", layer.vector, *_scores(layer)] for layer in curve.layers]
    headings = _headings(curve)
    columns = ["layer", "width", "vector", *headings]
    last = dict.fromkeys(("before training", "after training"), curve.layers[-1].path)
    known = {last.get(each.features, each.features): each.published["si"] for each in curve.published if each.agrees}
    if known:
        columns.insert(4, "published")
        for row in rows:
            row.insert(4, f"{known[row[0]]:.4f}" if row[0] in known else "-")
    bar = _room_for_bars([columns, *rows])
    if bar:
        columns.append("SI, 0 to 1")
        for row, layer in zip(rows, curve.layers, strict=True):
            row.append(f"{'#' * round(bar * layer.separation.si.value):<{bar}}|")
    print_table(columns, rows, right=["width", "published", *headings])
    best = max(curve.layers, key=lambda layer: layer.separation.si.value)
    print_lines("", f"highest SI: {best.path}, {best.separation.si}")


def _room_for_bars(rows: list[list[str]]) -> int:
    """Return how many characters long a bar beside these cells can be; 0 if the terminal is too narrow for bars."""
    taken = sum(2 + max(map(len, column)) for column in zip(*rows, strict=True))
    room = shutil.get_terminal_size((_WIDTH, 24)).columns - taken - 1
    return min(room, _LONGEST_BAR) if room >= _SHORTEST_BAR else 0
