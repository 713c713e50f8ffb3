"""``zoo compare RUN...``: print finished runs in one table, and test whether their accuracies differ."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from zoo_harness.cli.options import AsJson, Debug, complete_run
from zoo_harness.cli.output import print_lines, print_notes, print_table, tell
from zoo_harness.cli.run_output import display_for

if TYPE_CHECKING:
    from zoo_harness.reports.comparison import Comparison


def compare(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN|FOLDER|REPO...",
            help="Folders of finished runs, folders that contain runs, or OWNER/NAME[@REV] on the Hub.",
            autocompletion=complete_run,
        ),
    ],
    baseline: Annotated[
        str | None,
        typer.Option(
            metavar="RUN|REPO",
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
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print the rows as a table in Markdown.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print comma-separated values with all digits.")] = False,
    as_latex: Annotated[bool, typer.Option("--latex", help="Print the rows as a table in LaTeX.")] = False,
    _debug: Debug = False,
) -> None:
    """Compare finished runs, and test their differences.

    The tables show the parameters, accuracies, Separation Index and times of each run. Runs that
    differ only in the seed share a row. zoo tests the difference of each row from the baseline on
    the same images (McNemar's test, Holm's correction), and over the seeds if a row has three or
    more. zoo downloads the record and the predictions of a Hub repository. zoo names unfinished,
    damaged and missing runs, leaves them out, and exits with status 1.
    """
    from zoo.errors import UsageError

    if as_json + as_markdown + as_csv + as_latex > 1:
        message = "several formats are given; expected only one of --json, --markdown, --csv and --latex"
        raise UsageError(message, code="option-conflict")

    from zoo_harness.api import compare as compare_runs

    machine_readable = as_json or as_markdown or as_csv or as_latex
    with display_for(quiet=machine_readable) as display:
        found = compare_runs(runs, baseline=baseline, published=published, group_by=group_by, progress=display)
    if machine_readable:
        text = found.to_json() if as_json else found.to_markdown() if as_markdown else ""
        text = text or (found.to_latex() if as_latex else found.to_csv())
        print_lines(*text.removesuffix("\n").split("\n"))
    elif found.runs:
        _print(found)
    tell(*(f"error: {each.message}" for each in found.left_out))
    if found.left_out:
        raise typer.Exit(1)


def _print(found: Comparison) -> None:
    from zoo_harness.reports.comparison import aligned_right, conclusions, notes, tables

    for columns, rows in tables(found, 80):
        print_table(columns, rows, right=aligned_right(columns))
        print_lines("")
    print_notes(*notes(found))
    if concluded := [*conclusions(found)]:
        print_lines("")
        print_notes(*concluded)
