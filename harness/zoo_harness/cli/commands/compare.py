"""``zoo compare RUN...``: print finished runs in one table, and test whether their accuracies differ."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from zoo_harness.cli.options import AsJson, Debug, complete_run
from zoo_harness.cli.output import print_lines, print_notes, print_table, tell

if TYPE_CHECKING:
    from zoo_harness.reports.comparison import Comparison


def compare(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN|FOLDER...",
            help="Folders of finished runs, or folders that contain runs.",
            autocompletion=complete_run,
        ),
    ],
    baseline: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN",
            help="Run that every other run is compared with (default: the best on the same images).",
            autocompletion=complete_run,
        ),
    ] = None,
    published: Annotated[
        bool, typer.Option("--published", help="Add the published accuracies of the same backbones.")
    ] = False,
    group_by: Annotated[
        str,
        typer.Option(
            metavar="WHAT",
            help="What the runs of one row share: settings (all except the seed), none (one row per run), or some of "
            "backbone, recipe, dataset, split and epochs, with commas.",
        ),
    ] = "settings",
    as_json: AsJson = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print one table in Markdown.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print comma-separated values with all digits.")] = False,
    as_latex: Annotated[bool, typer.Option("--latex", help="Print one table in LaTeX.")] = False,
    _debug: Debug = False,
) -> None:
    """Compare finished runs, and test their differences.

    The tables show the parameters, accuracies, Separation Index and times of each run. Runs that
    differ only in the seed share a row. zoo tests the difference of each row from the baseline on
    the same images (McNemar's test, Holm's correction), and over the seeds if a row has three or
    more. zoo names unfinished and damaged runs, leaves them out, and exits with status 1.
    """
    from zoo.errors import UsageError

    if as_json + as_markdown + as_csv + as_latex > 1:
        message = "several formats are given; expected only one of --json, --markdown, --csv and --latex"
        raise UsageError(message, code="option-conflict")

    from zoo_harness.api import compare as compare_runs

    found = compare_runs(runs, baseline=baseline, published=published, group_by=group_by)
    if as_json or as_markdown or as_csv or as_latex:
        text = found.to_json() if as_json else found.to_markdown() if as_markdown else ""
        text = text or (found.to_latex() if as_latex else found.to_csv())
        print_lines(*text.removesuffix("\n").split("\n"))
    elif found.runs:
        _print(found)
    tell(*(f"error: {each.message}" for each in found.left_out))
    if found.left_out:
        raise typer.Exit(1)


def _print(found: Comparison) -> None:
    from zoo_harness.reports.comparison import aligned_right, notes, tables

    for columns, rows in tables(found, 80):
        print_table(columns, rows, right=aligned_right(columns))
        print_lines("")
    print_notes(*notes(found))
