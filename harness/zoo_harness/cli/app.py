"""Define the Typer application of the ``zoo`` command.

Help pages are plain text, because importing rich's help formatter takes longer than importing everything else.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, cast

import typer

from zoo_harness.cli.command import OptionsCommand, PanelGroup
from zoo_harness.cli.commands import (
    cache as caching,
    card as cards,
    compare as comparing,
    eval as evaluation,
    features as featuring,
    layers as layering,
    list as listing,
    predict as predicting,
    publish as publishing,
    pull as pulling,
    rank as ranking,
    report as reporting,
    runs as listing_runs,
    show as showing,
    si as separating,
    stats as statistics,
    sweep as sweeping,
    train as training,
)

if TYPE_CHECKING:
    from typer.core import TyperCommand, TyperGroup


app = typer.Typer(
    name="zoo",
    cls=PanelGroup,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Choose an image backbone, fine-tune one block of it, and measure how well its layers separate the classes.",
    epilog="Exit status: 0 done, 1 failed, 2 wrong usage, 130 interrupted, 143 terminated.",
)

_START, _CHOOSE, _TRAIN, _LOOK, _SHARE = "Start", "Choose a backbone", "Train", "Look into it", "Share"

app.command("list", rich_help_panel=_START)(listing.list_backbones)
app.command("datasets", rich_help_panel=_START)(listing.list_datasets)
app.command("plugins", rich_help_panel=_START)(listing.list_plugins)
app.add_typer(caching.cache, name="cache", rich_help_panel=_START)
app.command("show", rich_help_panel=_CHOOSE)(showing.show)
app.command("stats", cls=OptionsCommand, rich_help_panel=_CHOOSE)(statistics.stats_command)
app.command("rank", cls=OptionsCommand, rich_help_panel=_CHOOSE)(ranking.rank_command)
app.command("eval", cls=OptionsCommand, rich_help_panel=_TRAIN)(evaluation.evaluate_command)
app.command("train", cls=OptionsCommand, rich_help_panel=_TRAIN)(training.train_command)
app.command("sweep", cls=OptionsCommand, rich_help_panel=_TRAIN)(sweeping.sweep_command)
app.command("runs", rich_help_panel=_LOOK)(listing_runs.runs)
app.command("compare", rich_help_panel=_LOOK)(comparing.compare)
app.command("report", rich_help_panel=_LOOK)(reporting.report)
app.command("layers", cls=OptionsCommand, rich_help_panel=_LOOK)(layering.layers_command)
app.command("features", cls=OptionsCommand, rich_help_panel=_LOOK)(featuring.features_command)
app.command("si", cls=OptionsCommand, rich_help_panel=_LOOK)(separating.si_command)
app.command("predict", rich_help_panel=_LOOK)(predicting.predict)
app.command("card", rich_help_panel=_SHARE)(cards.card)
app.command("publish", cls=OptionsCommand, rich_help_panel=_SHARE)(publishing.publish_command)
app.command("pull", rich_help_panel=_SHARE)(pulling.pull_command)


def _print_version(wanted: bool) -> None:
    if wanted:
        from zoo._version import __version__
        from zoo_harness.cli.output import print_lines

        print_lines(f"blockzoo {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    _version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


def command() -> TyperGroup:
    """Build the ``zoo`` command, which starts fast, from the Typer application.

    Typer's own flags (help and completion) default to None. Typer 0.29.2 imports all of pydantic to check a flag that
    is None, but not to check a flag that is False. This function therefore sets those defaults to False.
    """
    built = cast("TyperGroup", typer.main.get_command(app))
    for part in _commands(built):
        help_flag = part.get_help_option(typer.Context(part))
        for flag in (help_flag, *part.params):
            if flag is not None and flag.name in ("help", "install_completion", "show_completion"):
                flag.default = False
    return built


def _commands(part: TyperCommand | TyperGroup) -> Iterator[TyperCommand | TyperGroup]:
    yield part
    for child in getattr(part, "commands", {}).values():
        yield from _commands(child)
