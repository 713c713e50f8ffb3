"""``zoo card NAME|RUN``: the card of a backbone or of a run, on standard output."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from zoo_harness.cli.options import Debug, complete_backbone
from zoo_harness.cli.table import print_lines, warn_of


def card(
    subject: Annotated[
        str,
        typer.Argument(
            metavar="NAME|RUN",
            help="A backbone, or the directory of a run (with a slash, if a backbone has the same name).",
            autocompletion=complete_backbone,
        ),
    ],
    _debug: Debug = False,
) -> None:
    """Print the card of a backbone or of a run, in Markdown."""
    print_lines((_card_of_run(Path(subject)) if _means_a_run(subject) else _card_of_backbone(subject)).rstrip("\n"))


def _means_a_run(subject: str) -> bool:
    from zoo.registry import load_registry

    if "/" in subject or subject in (".", ".."):
        return True
    return subject not in load_registry().backbones and Path(subject).exists()


def _card_of_run(directory: Path) -> str:
    from zoo_harness.card import render_card
    from zoo_harness.run_record import read_run

    directory = directory.expanduser()
    return render_card(read_run(directory.parent if directory.name == "run.json" else directory))


def _card_of_backbone(name: str) -> str:
    from zoo.registry import load_registry

    registry = load_registry()
    warn_of(registry.problems)
    backbone = registry.backbone(name)

    from zoo_harness.backbone_card import render_backbone_card  # and with it torch, which takes seconds

    return render_backbone_card(backbone)
