"""``zoo report [RUN|FOLDER|REPO...]``: write finished runs and rankings into one HTML file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from zoo_harness.cli.options import OUTPUT, Debug, complete_run
from zoo_harness.cli.output import print_lines, tell
from zoo_harness.cli.run_output import display_for


def report(
    runs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="RUN|FOLDER|REPO",
            help="Folders of finished runs, folders that contain runs and rankings, or OWNER/NAME[@REV] on the Hub "
            "(default: runs).",
            autocompletion=complete_run,
        ),
    ] = None,
    out: Annotated[
        Path,
        typer.Option(
            metavar="FILE",
            help="HTML file to write; only an earlier report is overwritten.",
            rich_help_panel=OUTPUT,
        ),
    ] = Path("report.html"),
    _debug: Debug = False,
) -> None:
    """Write one HTML file that compares finished runs.

    The page has a table that can be sorted, filtered and copied, the tests of 'zoo compare', charts,
    the SI of the layers, confusion matrices, and the rankings of 'zoo rank'. The page needs no
    network and no JavaScript. zoo downloads the record and the predictions of a Hub repository.
    zoo names unfinished, damaged and missing runs, leaves them out, and exits with status 1.
    """
    from zoo_harness.api import report as write_report
    from zoo_harness.util.byte_sizes import bytes_in_words

    with display_for(quiet=False) as display:
        found = write_report(runs or ["runs"], out=out, progress=display)
    counted = [(len(found.comparison.runs), "run"), (len(found.rankings), "ranking")]
    shown = " and ".join(f"{count:,} {name}{'s' * (count != 1)}" for count, name in counted if count)
    print_lines(f"{found.path}: {shown}, {bytes_in_words(found.path.stat().st_size)}")
    tell(*(f"error: {each.message}" for each in found.left_out))
    if found.left_out:
        raise typer.Exit(1)
