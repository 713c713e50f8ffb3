"""Declare the arguments and options that several commands share, and the names that the shell completes for them."""

from __future__ import annotations

from typing import Annotated

import typer

_MOST_FOLDERS = 2000  # completion searches at most this number of folders, to be fast in a home directory


def complete_backbone(incomplete: str) -> list[str]:
    """Return the names of backbones that begin with the text that the user typed."""
    return _names("backbones", incomplete)


def complete_dataset(incomplete: str) -> list[str]:
    """Return the names of datasets that begin with the text that the user typed."""
    return _names("datasets", incomplete)


def complete_run(incomplete: str) -> list[str]:
    """Return the folders of runs whose paths begin with the text that the user typed."""
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
    """Return the names of backbones and the folders of runs that begin with the text that the user typed."""
    return [*complete_backbone(incomplete), *complete_run(incomplete)]


def complete_weights(incomplete: str) -> list[str]:
    """Return the values of ``--weights`` that begin with the text: ``pretrained``, ``random`` and folders of runs."""
    words = [word for word in ("pretrained", "random") if word.startswith(incomplete)]
    return [*words, *complete_run(incomplete)]


def _names(kind: str, beginning: str) -> list[str]:
    from zoo_harness.cli.catalogue import read_catalogue

    return [row["name"] for row in read_catalogue()[kind] if row["name"].startswith(beginning)]


OUTPUT = "Output"  # the panel of a help page with the options for printed output and written files
OptionalBackboneName = Annotated[
    str | None,
    typer.Argument(metavar="[NAME]", help="Name of a backbone from 'zoo list'.", autocompletion=complete_backbone),
]
RecipeName = Annotated[
    str, typer.Option("--recipe", help="How to fine-tune the backbone; 'zoo show NAME' lists its recipes.")
]
DatasetName = Annotated[
    str | None,
    typer.Option(
        "--dataset",
        metavar="D",
        help="Name of a dataset from 'zoo datasets'.",
        autocompletion=complete_dataset,
        rich_help_panel="Data",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.", rich_help_panel=OUTPUT)]
Quiet = Annotated[
    bool,
    typer.Option("--quiet", "-q", help="Print no progress: only results, warnings and errors.", rich_help_panel=OUTPUT),
]
Verbose = Annotated[
    bool, typer.Option("--verbose", "-v", help="Also print all details below the summary.", rich_help_panel=OUTPUT)
]
Debug = Annotated[bool, typer.Option("--debug", help="Print the Python traceback of an error.", rich_help_panel=OUTPUT)]
