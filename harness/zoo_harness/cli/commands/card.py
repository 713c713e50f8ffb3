"""``zoo card NAME|RUN``: the card of a backbone or of a run, on standard output."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from zoo_harness.cli.options import Debug, complete_backbone
from zoo_harness.cli.output import print_lines, tell, warn_of


def card(
    subject: Annotated[
        str,
        typer.Argument(
            metavar="NAME|RUN",
            help="A backbone, or the directory of a run (with a slash, if a backbone has the same name).",
            autocompletion=complete_backbone,
        ),
    ],
    write: Annotated[
        bool, typer.Option("--write", help="Write it into the run's README.md; what you wrote beside our part stays.")
    ] = False,
    _debug: Debug = False,
) -> None:
    """Print the card of a backbone or of a run, in Markdown."""
    if _means_a_run(subject):
        directory = Path(subject).expanduser()
        _of_run(directory.parent if directory.name in ("run.json", "zoo.json") else directory, write=write)
        return
    if write:
        from zoo.errors import UsageError

        raise UsageError(f"--write is for the card of a run, and {subject!r} is not the directory of one")
    print_lines(_card_of_backbone(subject).rstrip("\n"))


def _means_a_run(subject: str) -> bool:
    from zoo.registry import load_registry

    if "/" in subject or subject in (".", ".."):
        return True
    return subject not in load_registry().backbones and Path(subject).exists()


def _of_run(directory: Path, *, write: bool) -> None:
    """Print a run's card with what a person has added to it, or write it."""
    from zoo.errors import UsageError
    from zoo_harness.records.file_names import RECORD
    from zoo_harness.records.run import read_run, record_file
    from zoo_harness.reports.card_merge import merged_card, read_card
    from zoo_harness.reports.run_card import render_card
    from zoo_harness.util.atomic_files import write_text

    published = record_file(directory).name == RECORD
    if published and write:
        raise UsageError(f"{directory} is a published checkpoint, not a run; publish its run again to renew the card")
    card = render_card(read_run(directory), published=published)
    try:
        # Of a stranger's checkpoint nothing but what the record says is printed.
        card = card if published else merged_card(read_card(directory), card)
    except UsageError as error:
        if write:
            raise UsageError(f"{directory / 'README.md'} is left as it is: {error}") from error
        tell(f"warning: not merged with {directory / 'README.md'}: {error}")
    if write:
        write_text(directory / "README.md", card)
        print_lines(str(directory / "README.md"))
        return
    print_lines(card.rstrip("\n"))


def _card_of_backbone(name: str) -> str:
    from zoo.registry import load_registry

    registry = load_registry()
    warn_of(registry.problems)
    backbone = registry.backbone(name)

    from zoo_harness.reports.backbone_card import render_backbone_card  # and with it torch, which takes seconds

    return render_backbone_card(backbone)
