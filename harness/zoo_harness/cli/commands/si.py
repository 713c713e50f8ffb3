"""``zoo si FILE``: the Separation Index family of a features file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from zoo_harness.cli.options import AsJson, Debug
from zoo_harness.cli.output import print_json, print_lines, print_table, tell

if TYPE_CHECKING:
    from zoo_harness.separation.result import Separation
    from zoo_harness.separation.validation import Array


_ORDER = 2


def si(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="An .npz, .npy, .safetensors or .parquet file.")],
    features: Annotated[
        str | None,
        typer.Option(help="Name of the features in it; columns of a table with commas.", metavar="NAME"),
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(help="Name of the labels in it, or 'labels'; for .npy, their file.", metavar="NAME|FILE"),
    ] = None,
    references: Annotated[
        Path | None,
        typer.Option(help="Compare with the samples of this file, not with each other.", metavar="FILE"),
    ] = None,
    reference_labels: Annotated[
        str | None, typer.Option(help="As --labels, for the references.", metavar="NAME|FILE")
    ] = None,
    order: Annotated[
        int | None, typer.Option(help="Largest number of neighbours that must agree; 2 unless given.")
    ] = None,
    metric: Annotated[str, typer.Option(help="euclidean or cosine.")] = "euclidean",
    normalize: Annotated[bool, typer.Option("--normalize", help="Z-score each feature first.")] = False,
    per_class: Annotated[int | None, typer.Option(help="Score this many samples of each class.")] = None,
    seed: Annotated[int, typer.Option(help="Chooses the subset and drives the bootstrap.")] = 0,
    classes: Annotated[bool, typer.Option("--classes", help="Print the scores of each class too.")] = False,
    memory: Annotated[int, typer.Option(help="Memory to work in beyond the features, in MiB.")] = 768,
    as_json: AsJson = False,
    _debug: Debug = False,
) -> None:
    """Score how well features separate classes: SI, high-order, soft, anti and centre SI, with errors."""
    from zoo.errors import UsageError, check_choice

    check_choice("--metric", metric, ("euclidean", "cosine"))
    for option, value in (("--order", order), ("--memory", memory), ("--per-class", per_class)):
        if value is not None and value < 1:
            raise UsageError(f"{option} {value} must be at least 1")
    if reference_labels is not None and references is None:
        raise UsageError(f"--reference-labels {reference_labels!r} belongs to --references FILE, which is not given")
    if references is not None and reference_labels is None and references.suffix == ".npy":
        raise UsageError(f"--references {references} holds no labels: give --reference-labels FILE.npy")

    from zoo_harness.separation.feature_files import read_features  # and with it torch, which takes seconds
    from zoo_harness.separation.index import separation

    rows, of_rows = read_features(file.expanduser(), features, labels)
    others: Any = (None, None)
    if references is not None:
        others = read_features(references.expanduser(), features, reference_labels or labels)
    result = separation(
        rows,
        of_rows,
        _default_order(of_rows, others[1], per_class) if order is None else order,
        references=others[0],
        reference_labels=others[1],
        metric="cosine" if metric == "cosine" else "euclidean",
        normalize=normalize,
        per_class=per_class,
        seed=seed,
        memory_budget=memory * 2**20,
    )
    if as_json:
        compared = None if references is None else str(references)
        print_json({"file": str(file), "references_file": compared, **result.to_dict()})
        return
    print_lines(str(result))
    if classes:
        print_lines("")
        _print_classes(result)


def _default_order(labels: Array, reference_labels: Array | None, per_class: int | None) -> int:
    """Return 2, or 1 with a note if each sample has only one neighbour."""
    import numpy as np

    if reference_labels is not None:
        largest = len(reference_labels)
    else:
        samples = len(labels) if per_class is None else per_class * len(np.unique(labels))
        largest = samples - 1
    if largest >= _ORDER:
        return _ORDER
    if largest == 1:
        tell(f"note: each sample has one neighbour, so scores are of order 1 instead of {_ORDER}")
    return 1


def _print_classes(result: Separation) -> None:
    from zoo_harness.separation.scores import SCORES

    scores = [result.score(each) for each in SCORES]
    headings = (f"{each.heading} {result.order}" if each.has_orders else each.heading for each in SCORES)
    columns = ["class", "samples", *headings]
    rows = [
        [str(label), f"{size:,}", *(f"{score.per_class[label]:.4f}" for score in scores)]
        for label, size in result.classes.items()
    ]
    print_table(columns, rows, right=columns)
