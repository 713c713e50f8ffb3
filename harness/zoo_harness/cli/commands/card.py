"""``zoo card NAME|RUN``: print the model card of a backbone or of a run on standard output."""

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
            help="Name of a backbone, or folder of a run (type ./NAME if a backbone has the same name).",
            autocompletion=complete_backbone_or_run,
        ),
    ],
    write: Annotated[
        bool, typer.Option("--write", help="Write the card to the README.md of the run; keep your own text.")
    ] = False,
    _debug: Debug = False,
) -> None:
    """Print the model card of a backbone or of a run in Markdown."""
    from zoo.errors import UsageError
    from zoo.registry import load_registry

    registry = load_registry()
    is_name = subject in registry.backbones or not Path(subject).exists()
    if "/" in subject or subject in (".", "..") or not is_name:
        directory = Path(subject).expanduser()
        _run_card(directory.parent if directory.name in ("run.json", "zoo.json") else directory, write=write)
        return
    if write:
        message = f"--write cannot be used: {subject!r} is not the folder of a run; expected --write with a run"
        raise UsageError(message, code="option-unused", option="write")
    warn_of(registry.problems)
    backbone = registry.backbone(subject)

    from zoo_harness.reports.backbone_card import render_backbone_card  # imports torch, which takes seconds

    print_lines(render_backbone_card(backbone).rstrip("\n"))


def _run_card(directory: Path, *, write: bool) -> None:
    """Print the card of a run, or write the card to README.md; text that a person added to the card stays."""
    from zoo.errors import DataError, UsageError
    from zoo_harness.records.file_names import RECORD
    from zoo_harness.records.run import read_run, record_file
    from zoo_harness.reports.card_merge import merged_card, read_card
    from zoo_harness.reports.run_card import render_card
    from zoo_harness.util.atomic_files import write_text

    published = record_file(directory).name == RECORD
    if published and write:
        message = (
            f"--write cannot be used: {directory} is a published checkpoint; expected a run; publish the run again"
        )
        raise UsageError(message, code="not-a-run", path=directory)
    card = render_card(read_run(directory), published=published)
    try:
        # The card of a stranger's checkpoint may say anything, so zoo makes the printed card from the record alone.
        card = card if published else merged_card(read_card(directory), card)
    except DataError as error:
        if write:
            message = f"{directory / 'README.md'} was not changed: {error}"
            raise DataError(message, code="card-not-merged", path=directory) from error
        tell(f"warning: your own text in {directory / 'README.md'} is missing from this card: {error}")
    if write:
        write_text(directory / "README.md", card)
        print_lines(str(directory / "README.md"))
        return
    print_lines(card.rstrip("\n"))
