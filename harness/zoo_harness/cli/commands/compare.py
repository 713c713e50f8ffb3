"""``zoo compare RUN...``: finished runs beside each other."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from zoo_harness.cli.options import AsJson, Debug
from zoo_harness.cli.output import print_lines, print_notes, print_table, tell

if TYPE_CHECKING:
    from zoo_harness.reports.comparison import Comparison


def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Directories of finished runs.")],
    published: Annotated[
        bool, typer.Option("--published", help="Add published figures of the same setting, where there are some.")
    ] = False,
    as_json: AsJson = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print one table in Markdown.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print comma-separated values, numbers in full.")] = False,
    _debug: Debug = False,
) -> None:
    """Compare finished runs beside each other.

    The tables have parameters, accuracies, the Separation Index and seconds per epoch. A run
    that is unfinished or damaged is named and left out; the exit status is then 1.
    """
    from zoo.errors import UsageError

    if as_json + as_markdown + as_csv > 1:
        message = "--json, --markdown and --csv exclude each other; expected one of them"
        raise UsageError(message, code="option-conflict")

    from zoo_harness.api import compare as compare_runs

    found = compare_runs(runs, published=published)
    if as_json or as_markdown or as_csv:
        text = found.to_json() if as_json else found.to_markdown() if as_markdown else found.to_csv()
        print_lines(*text.removesuffix("\n").split("\n"))
    elif found.runs:
        _print(found)
    tell(*(f"error: {each.message}" for each in found.left_out))
    if found.left_out:
        raise typer.Exit(1)


def _print(found: Comparison) -> None:
    from zoo_harness.reports.comparison import notes, results_table, settings_table

    columns, rows = results_table(found)
    print_table(columns, rows, right=columns[2:])
    print_lines("")
    columns, rows = settings_table(found)
    print_table(columns, rows, right=columns[5:])
    print_lines("")
    print_notes(*notes(found))
