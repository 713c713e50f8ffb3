"""``zoo pull OWNER/NAME[@REV]``: download a published checkpoint, verify its files, and print a summary."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from zoo_harness.cli.options import AsJson, Debug, Quiet
from zoo_harness.cli.output import print_facts, print_json, print_lines
from zoo_harness.cli.run_output import display_for


def pull_command(
    repository: Annotated[
        str,
        typer.Argument(metavar="OWNER/NAME[@REV]", help="Repository on the Hugging Face Hub that 'zoo publish' made."),
    ],
    to: Annotated[
        Path | None,
        typer.Option(help="New or empty folder to copy the checkpoint to (default: only the Hub's cache)."),
    ] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    _debug: Debug = False,
) -> None:
    """Download a published checkpoint, verify it and describe it."""
    from zoo_harness.api import pull
    from zoo_harness.hub.summary import summary, summary_facts, uses

    with display_for(quiet=quiet or as_json) as display:
        run = pull(repository, to, progress=False if quiet or as_json else display)
    if as_json:
        print_json(summary(run.record, run.directory, repository, run.commit))
    elif quiet:
        print_lines(str(run.directory))
    else:
        print_facts(summary_facts(run.record, run.directory, repository, run.commit))
        print_lines("")
        print_facts(uses(run.directory, repository, run.commit))
