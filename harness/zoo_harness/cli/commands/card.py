"""``zoo card NAME|RUN``: the card of a backbone or of a run, on standard output."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from zoo_harness.cli.options import Debug, complete_backbone_or_run
from zoo_harness.cli.output import print_lines, tell, warn_of


def card(
    subject: Annotated[
        str,
        typer.Argument(
            metavar="NAME|RUN",
            help="A backbone, or the directory of a run (with a slash, if a backbone has the same name).",
            autocompletion=complete_backbone_or_run,
        ),
    ],
    write: Annotated[
        bool, typer.Option("--write", help="Write it into the run's README.md; your own text is preserved.")
    ] = False,
    _debug: Debug = False,
) -> None:
    """Print the card of a backbone or of a run, in Markdown."""
    from zoo.errors import UsageError
    from zoo.registry import load_registry

    registry = load_registry()
    is_name = subject in registry.backbones or not Path(subject).exists()
    if "/" in subject or subject in (".", "..") or not is_name:
        directory = Path(subject).expanduser()
        _run_card(directory.parent if directory.name in ("run.json", "zoo.json") else directory, write=write)
        return
    if write:
        message = f"--write is only for the card of a run: {subject!r} is not the directory of one"
        raise UsageError(message, code="option-unused", option="write")
    warn_of(registry.problems)
    backbone = registry.backbone(subject)

    from zoo_harness.reports.backbone_card import render_backbone_card  # imports torch, which takes seconds

    print_lines(render_backbone_card(backbone).rstrip("\n"))


def _run_card(directory: Path, *, write: bool) -> None:
    """Print a run's card with the text that a person added to it, or write it."""
    from zoo.errors import DataError, UsageError
    from zoo_harness.records.file_names import RECORD
    from zoo_harness.records.run import read_run, record_file
    from zoo_harness.reports.card_merge import merged_card, read_card
    from zoo_harness.reports.run_card import render_card
    from zoo_harness.util.atomic_files import write_text

    published = record_file(directory).name == RECORD
    if published and write:
        message = f"{directory} is a published checkpoint, not a run; to renew its card, publish its run again"
        raise UsageError(message, code="not-a-run", path=directory)
    card = render_card(read_run(directory), published=published)
    try:
        # Only the record of a stranger's checkpoint is printed, because its card may say anything.
        card = card if published else merged_card(read_card(directory), card)
    except DataError as error:
        if write:
            message = f"{directory / 'README.md'} was not changed: {error}"
            raise DataError(message, code="card-not-merged", path=directory) from error
        tell(f"warning: not merged with {directory / 'README.md'}: {error}")
    if write:
        write_text(directory / "README.md", card)
        print_lines(str(directory / "README.md"))
        return
    print_lines(card.rstrip("\n"))
