"""``zoo runs [FOLDER]``: list the runs in a folder, reading only their records and no weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from zoo_harness.cli.options import AsJson, Debug
from zoo_harness.cli.output import print_json, print_lines, print_table, tell

if TYPE_CHECKING:
    from zoo_harness.runs.found_runs import FoundRun

_WIDTH = 80


def runs(
    folder: Annotated[
        Path, typer.Argument(metavar="[FOLDER]", help="Folder to search for runs, with its subfolders.")
    ] = Path("runs"),
    as_json: AsJson = False,
    _debug: Debug = False,
) -> None:
    """List the runs of a folder and their accuracies.

    Each row shows the state, backbone, dataset, accuracy and start of a run. The exit status is 1
    if the record of a run cannot be read.
    """
    from dataclasses import asdict

    from zoo_harness.runs.found_runs import list_runs

    found = list_runs(folder)
    if as_json:
        print_json([asdict(each) for each in found])
    elif found:
        _print(folder, found)
    else:
        tell(f"no runs in {folder}")
    damaged = [each for each in found if each.fault is not None]
    tell(*(f"error: {each.folder} is {each.state}: {each.fault}" for each in damaged))
    if damaged:
        raise typer.Exit(1)


def _print(folder: Path, found: list[FoundRun]) -> None:
    """Print a table of runs; if it would be wider than 80 columns, print the folder of each run on its own line."""
    from zoo.text import one_line

    columns, rows = ["run", "state", "backbone", "dataset", "accuracy %", "started (UTC)"], []
    for each in found:
        name = one_line(str(Path(each.folder).relative_to(folder)) if each.folder != str(folder) else each.folder)
        shown = [each.state, _short(each.backbone, 18), _short(each.dataset, 13)]
        started = one_line(each.started or "-")[:16].replace("T", " ")
        rows.append([name, *shown, _accuracy(each), started])
    widths = [max(len(row[place]) for row in [columns, *rows]) for place in range(len(columns))]
    if sum(widths) + 2 * (len(widths) - 1) <= _WIDTH:
        print_table(columns, rows, right=["accuracy %"])
        return
    for row in rows:
        cells = zip(row[1:], widths[1:], strict=True)
        print_lines(row[0], f"  {'  '.join(cell.ljust(width) for cell, width in cells)}".rstrip())


def _short(text: str | None, most: int) -> str:
    from zoo.text import one_line

    shown = "-" if text is None else one_line(text)
    return shown if len(shown) <= most else f"{shown[: most - 3]}..."


def _accuracy(run: FoundRun) -> str:
    if run.accuracy is None or run.standard_error is None:
        return "-"
    return f"{100 * run.accuracy:.2f} ± {100 * run.standard_error:.2f}"
