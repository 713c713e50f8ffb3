"""``zoo publish RUN --to ...``: check that a finished run loads, and upload it to the Hub or copy it to a folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from zoo_harness.cli.command import Given, command
from zoo_harness.cli.options import AsJson, Quiet, complete_run
from zoo_harness.cli.output import print_json, print_lines, print_table
from zoo_harness.cli.run_output import display_for
from zoo_harness.records.options import PublishOptions

if TYPE_CHECKING:
    from zoo_harness.hub.publish import Publication


def _publish(
    run: Annotated[
        Path,
        typer.Argument(metavar="RUN", help="Folder of a finished run.", autocompletion=complete_run),
    ],
    to: Annotated[
        str,
        typer.Option(
            metavar="OWNER/NAME|PATH",
            help="Repository on the Hugging Face Hub, or folder; a folder begins with /, ./, ../ or ~, or ends in /.",
        ),
    ],
    *,
    given: Given,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Publish a finished run on the Hugging Face Hub or in a folder.

    zoo first checks that zoo, timm and transformers can load the files that it will publish. zoo
    reads your access token from the variable HF_TOKEN, or from the login of 'hf auth login'.
    """
    from zoo_harness.api import publish

    with display_for(quiet=quiet or as_json) as display:
        found = publish(run, to, progress=False if quiet or as_json else display, **given)
    if as_json:
        print_json(found.to_dict())
        return
    if found.dry_run or not quiet:
        _print_files(found)
    if found.dry_run:
        print_lines(f"nothing was sent to {found.place} (--dry-run)")
    elif not found.changed:
        print_lines(f"already published, nothing changed: {found.place}")
    else:
        print_lines(f"published: {found.place}")


publish_command = command(PublishOptions, _publish)


def _print_files(found: Publication) -> None:
    from zoo_harness.util.byte_sizes import bytes_in_words

    rows = [
        [
            change.path,
            "-" if change.size is None else bytes_in_words(change.size),
            (change.sha256 or "-")[:16],
            change.state,
        ]
        for change in found.files
    ]
    print_table(["file", "size", "sha256", "there"], rows, right=["size"])
    print_lines("")
