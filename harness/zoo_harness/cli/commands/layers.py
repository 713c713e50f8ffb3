"""``zoo layers``: the Separation Index at every feature layer, with its curve."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from zoo_harness.cli.options import AsJson, Debug, Quiet, complete_backbone, complete_dataset
from zoo_harness.cli.output import print_json, print_lines, print_table, warn_of

if TYPE_CHECKING:
    from zoo_harness.evaluation.split_scores import Scoring
    from zoo_harness.runs.layer_run import Curve


_LONGEST_BAR, _SHORTEST_BAR = 24, 10
_WIDTH = 120  # where there is no terminal


def layers(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME]...", help="Backbones; zoo list names them.", autocompletion=complete_backbone),
    ] = None,
    dataset: Annotated[
        str, typer.Option(help="A data set; zoo datasets names them.", autocompletion=complete_dataset)
    ] = "digits",
    runs: Annotated[
        list[Path] | None, typer.Option("--run", help="The directory of a run, beside or in place of names.")
    ] = None,
    split: Annotated[str, typer.Option(help="train, test or both.")] = "test",
    weights: Annotated[str | None, typer.Option(help="'pretrained', 'random' or a path.")] = None,
    pool: Annotated[
        bool, typer.Option("--pool", help="Score each layer's declared vector, not all that it puts out: far cheaper.")
    ] = False,
    order: Annotated[int, typer.Option(help="Largest number of neighbours that must agree.")] = 2,
    metric: Annotated[str, typer.Option(help="euclidean or cosine.")] = "euclidean",
    normalize: Annotated[bool, typer.Option("--normalize", help="Z-score each feature first.")] = False,
    per_class: Annotated[int | None, typer.Option(help="Use this many images of each class and split.")] = None,
    limit: Annotated[int | None, typer.Option(help="Use at most this many images of each split.")] = None,
    val_fraction: Annotated[float | None, typer.Option(help="Hold this part of training out as test.")] = None,
    seed: Annotated[int, typer.Option(help="Chooses subsets and random weights.")] = 0,
    memory: Annotated[int, typer.Option(help="Memory for features and search, in MiB; more goes to a file.")] = 1024,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    precision: Annotated[str, typer.Option(help="fp32, or bf16 on a GPU that has it.")] = "fp32",
    data_dir: Annotated[Path | None, typer.Option(help="Where the data set's files lie.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for layers.json and layers.png; one in runs/ unless given."),
    ] = None,
    quiet: Quiet = False,
    as_json: AsJson = False,
    _debug: Debug = False,
) -> None:
    """Score how well every layer of a network separates the classes, from the pixels to the classifier."""
    from zoo.errors import UsageError, check_choice
    from zoo.registry import load_registry
    from zoo_harness.records import option_checks as choices
    from zoo_harness.records.subset import Subset
    from zoo_harness.runs.directory import RunDirectory

    registry = load_registry()
    warn_of(registry.problems)
    backbones = [registry.backbone(name) for name in names or []]
    if not backbones and not runs:
        raise UsageError("nothing to score: give a backbone, or a run with --run")
    if weights is not None and not backbones:
        raise UsageError(f"--weights {weights!r} is for backbones; a run has weights of its own")
    subjects_given = [*(names or []), *(str(run.expanduser().resolve()) for run in runs or [])]
    twice = [subject for subject in subjects_given if subjects_given.count(subject) > 1]
    if twice:
        raise UsageError(f"{twice[0]!r} is given {subjects_given.count(twice[0])} times; once is enough")
    found, argument = registry.dataset(dataset)
    sources = [choices.choose_source(backbone, weights) for backbone in backbones]
    subset = Subset(per_class=per_class, limit=limit, val_fraction=val_fraction, seed=choices.check_seed(seed))
    splits = check_choice("--split", split, ("train", "test", "both"))
    check_choice("--metric", metric, ("euclidean", "cosine"))
    check_choice("--precision", precision, choices.PRECISIONS)
    choices.check_device_name(device)
    for option, value in (("--order", order), ("--memory", memory)):
        if value < 1:
            raise UsageError(f"{option} {value} must be at least 1")
    folder = data_dir.expanduser() if data_dir else None
    choices.check_folders(found, argument, folder)
    if out is not None:
        RunDirectory(out).check()

    # From here on torch is imported, which takes seconds; what could be checked without it has been.
    from zoo_harness.cli.progress import TerminalProgress
    from zoo_harness.compute.allocator import keep_freed_memory
    from zoo_harness.compute.context import ComputeContext
    from zoo_harness.compute.device import choose_device
    from zoo_harness.compute.precision import check_precision
    from zoo_harness.evaluation.split_scores import Scoring
    from zoo_harness.runs.directory import claim_folder
    from zoo_harness.runs.layer_run import as_record, curves, of_backbone, of_runs, write_curves
    from zoo_harness.util.signals import Terminated, raise_on_sigterm

    keep_freed_memory()
    chosen = choose_device(device)
    compute = ComputeContext(device=chosen, precision=check_precision(precision, chosen), seed=seed)
    scoring = Scoring(order, pool, normalize, "cosine" if metric == "cosine" else "euclidean", memory * 2**20)
    try:
        with TerminalProgress(quiet=quiet) as progress, raise_on_sigterm():
            progress.stage("loading weights", 0)
            subjects = [of_backbone(*pair, seed) for pair in zip(backbones, sources, strict=True)]
            subjects += of_runs([run.expanduser() for run in runs or []])
            scored = list(curves(subjects, found, argument, folder, subset, splits, compute, scoring, progress))
    except Terminated as error:
        raise typer.Exit(error.exit_code) from error
    record = as_record(scored, scoring, ("zoo", *sys.argv[1:]))
    first = backbones[0].name if backbones else subjects[0].name.split()[0]
    written = write_curves(scored, record, claim_folder(out, f"layers-{first}-{found.name}"))
    if as_json:
        print_json(record)
        return
    for curve in scored:
        _print_curve(curve, scoring)
    print_lines("", *(f"{name:<8}{path}" for name, path in zip(("record", "plot"), written, strict=True)))


def _print_curve(curve: Curve, scoring: Scoring) -> None:
    from zoo_harness.separation.scores import SCORES

    images = curve.data["images"]
    print_lines(
        "",
        f"{curve.title}: {images:,} images of {curve.data['dataset']}, {curve.data['subset']}; {scoring.in_words()}",
        "",
    )
    rows = []
    for layer in curve.layers:
        first, *others = [layer.separation.score(each) for each in SCORES]
        values = (f"{score.value:.4f}" for score in others)
        rows.append([layer.path, f"{layer.width:,}", layer.vector, str(first), *values])
    order = curve.layers[0].separation.order
    # The key, because columns have to be narrow beside the bars.
    headings = [f"{each.key} {order}" if each.has_orders else each.heading for each in SCORES]
    columns = ["layer", "width", "vector", *headings]
    bar = _room_for_bars([columns, *rows])
    if bar:
        columns.append("SI, 0 to 1")
        for row, layer in zip(rows, curve.layers, strict=True):
            row.append(f"{'#' * round(bar * layer.separation.si.value):<{bar}}|")
    print_table(columns, rows, right=["width", *headings])


def _room_for_bars(rows: list[list[str]]) -> int:
    """Return the length of bars beside these cells; 0 if the terminal has no room for short ones."""
    taken = sum(2 + max(map(len, column)) for column in zip(*rows, strict=True))
    room = shutil.get_terminal_size((_WIDTH, 24)).columns - taken - 1
    return min(room, _LONGEST_BAR) if room >= _SHORTEST_BAR else 0
