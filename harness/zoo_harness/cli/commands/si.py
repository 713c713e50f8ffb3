"""``zoo si FILE``: score the features in a file with the Separation Index and its variants."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from zoo_harness.cli.command import Given, command
from zoo_harness.cli.options import AsJson
from zoo_harness.cli.output import print_json, print_lines, print_table, tell
from zoo_harness.cli.run_output import display_for
from zoo_harness.records.options import SeparationOptions

if TYPE_CHECKING:
    from zoo_harness.separation.result import Separation


def _si(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="Feature file: .npz, .npy, .safetensors, .parquet, .arrow or .csv.")
    ],
    *,
    given: Given,
    classes: Annotated[bool, typer.Option("--classes", help="Also print the scores of each class.")] = False,
    as_json: AsJson = False,
) -> None:
    """Score the features in a file with the Separation Index.

    zoo prints SI, high-order, soft, anti and centre SI, each with its standard error.
    """
    from zoo_harness.api import score_features

    with display_for(quiet=False) as display:
        result = score_features(file, progress=display, **given)
    if "order" not in given and result.order == 1:
        tell("note: the scores have order 1 instead of 2, because each sample has only one neighbour")
    if as_json:
        references = given.get("references")
        compared = None if references is None else str(references)
        print_json({"file": str(file), "references_file": compared, **result.to_dict()})
        return
    print_lines(str(result))
    if classes:
        print_lines("")
        _print_classes(result)


si_command = command(SeparationOptions, _si)


def _print_classes(result: Separation) -> None:
    from zoo_harness.separation.scores import SCORES

    scores = [result.score(each) for each in SCORES]
    headings = (f"{each.heading} {result.order}" if each.has_orders else each.heading for each in SCORES)
    columns = ["class", "samples", *headings]
    rows = [
        [result.class_name(label), f"{size:,}", *(f"{score.per_class[label]:.4f}" for score in scores)]
        for label, size in result.classes.items()
    ]
    print_table(columns, rows, right=columns)
