"""Arguments and options that several commands share, and what shells complete for them."""

from __future__ import annotations

from typing import Annotated

import typer

_MOST_FOLDERS = 2000  # that a completion searches, so that it ends in a moment in a home directory too


def complete_backbone(incomplete: str) -> list[str]:
    """Return the backbones whose names begin with the text."""
    return _names("backbones", incomplete)


def complete_dataset(incomplete: str) -> list[str]:
    """Return the datasets whose names begin with the text."""
    return _names("datasets", incomplete)


def complete_run(incomplete: str) -> list[str]:
    """Return the folders of runs whose paths begin with the text."""
    from pathlib import Path

    from zoo.errors import UsageError
    from zoo_harness.runs.found_runs import run_folders

    folder = incomplete.rpartition("/")[0] + "/" * incomplete.startswith("/")
    try:
        found = [str(path) for path in run_folders(Path(folder or "."), 3, most=_MOST_FOLDERS)]
    except UsageError:
        return []
    return [path for path in found if path.startswith(incomplete)]


def complete_backbone_or_run(incomplete: str) -> list[str]:
    """Return the backbones whose names, and the folders of runs whose paths begin with the text."""
    return [*complete_backbone(incomplete), *complete_run(incomplete)]


def complete_weights(incomplete: str) -> list[str]:
    """Return the words for ``--weights`` and the folders of runs that begin with the text."""
    words = [word for word in ("pretrained", "random") if word.startswith(incomplete)]
    return [*words, *complete_run(incomplete)]


def _names(kind: str, beginning: str) -> list[str]:
    from zoo_harness.cli.catalogue import read_catalogue

    return [row["name"] for row in read_catalogue()[kind] if row["name"].startswith(beginning)]


OUTPUT = "Output"  # the panel of help pages for what a command prints and writes
OptionalBackboneName = Annotated[
    str | None,
    typer.Argument(metavar="[NAME]", help="A backbone; 'zoo list' lists them.", autocompletion=complete_backbone),
]
RecipeName = Annotated[str, typer.Option("--recipe", help="How to tune it; 'zoo show NAME' lists the recipes.")]
DatasetName = Annotated[
    str | None,
    typer.Option(
        "--dataset",
        metavar="D",
        help="A dataset; 'zoo datasets' lists them.",
        autocompletion=complete_dataset,
        rich_help_panel="Data",
    ),
]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print JSON on stdout instead of a table.", rich_help_panel=OUTPUT)
]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="Print only results, warnings and errors.", rich_help_panel=OUTPUT)
]
Verbose = Annotated[
    bool, typer.Option("--verbose", "-v", help="Print all details below the summary.", rich_help_panel=OUTPUT)
]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.", rich_help_panel=OUTPUT)]
