"""The Typer application. Help is plain text: rich's help formatter alone takes longer to import than all the rest."""

from __future__ import annotations

from typing import Annotated

import typer

from zoo_harness.cli import evaluation, listing, showing

app = typer.Typer(
    name="zoo",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Choose an image backbone, fine-tune one block of it, measure how well its layers separate the classes.",
    epilog="Exit status: 0 done, 1 failed, 2 wrong usage, 130 interrupted.",
)
app.command("list")(listing.list_backbones)
app.command("show")(showing.show)
app.command("plugins")(listing.list_plugins)
app.command("datasets")(listing.list_datasets)
app.command("eval")(evaluation.evaluate)


@app.callback()
def _options(
    version: Annotated[bool, typer.Option("--version", is_eager=True, help="Print the version and exit.")] = False,
) -> None:
    if version:
        from zoo import __version__
        from zoo_harness.cli.table import print_lines

        print_lines(f"blockzoo {__version__}")
        raise typer.Exit
