"""Turn an options class into a Typer command, and print the options of a help page in panels."""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import typer
from typer.core import TyperCommand, TyperGroup

from zoo.errors import check_choice
from zoo_harness.cli.options import Debug, complete_run, complete_weights
from zoo_harness.records.option import Option, choices_of, declared
from zoo_harness.records.options import EvalOptions

Given = Mapping[str, Any]

OWN_PANEL = "Options"
PANELS = {
    "Data": ("ReadingOptions", "DataOptions", "NormalizationOptions", "HeldOutOption", "InputSizeOption"),
    "What is trained": ("TuningOptions", "TrainOptions"),
    "Training": ("TrainingOptions",),
    "Scores": ("ScoringOptions", "SeparationOptions"),
    "Checkpoint": ("KeptWeightsOptions", "EvalOptions"),
    "Compute": ("ComputeOptions", "CompileOption"),
    "Cache": ("CacheOptions",),
    "Output": ("RunOutputOptions",),
}
"""The panels of a help page, in order, with the options classes whose options each panel shows.

An option of any other class is in the panel ``Options``.
"""


def command(options: type, run: Callable[..., None]) -> Callable[..., None]:
    """Return a function for ``app.command`` whose parameters are those of ``run`` and all options of a class.

    The function passes to ``run`` a mapping ``given``, which holds only the options that the user typed. All other
    parameters of ``run`` are arguments and flags that exist only on the command line, and have Typer's annotations.
    """
    own = [parameter for name, parameter in inspect.signature(run, eval_str=True).parameters.items() if name != "given"]
    known = declared(options)

    def invoke(context: typer.Context, **values: Any) -> None:
        given = {name: values[name] for name in known if _typed(context, name)}
        run(given=given, **{parameter.name: values[parameter.name] for parameter in own})

    arguments = [parameter for parameter in own if parameter.kind is not parameter.KEYWORD_ONLY]
    flags = [parameter for parameter in own if parameter.kind is parameter.KEYWORD_ONLY]
    context = inspect.Parameter("context", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)
    debug = _keyword("_debug", False, Debug)
    made = [_keyword(name, option.default, _annotation(kind, option)) for name, (kind, option) in known.items()]
    signature = inspect.Signature([context, *arguments, *made, *flags, debug])
    invoke.__signature__ = signature  # type: ignore[attr-defined]
    invoke.__doc__ = run.__doc__
    invoke.options = options  # type: ignore[attr-defined]
    return invoke


class OptionsCommand(TyperCommand):
    """A command of :func:`command`; an option that declares a ``bare`` value may be typed without a value."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments as Typer does, after adding the ``bare`` value to options typed without a value."""
        known = declared(self.callback.options)  # type: ignore[union-attr]
        bare = {option.spelling(name): (option.bare, choices_of(kind)) for name, (kind, option) in known.items()}
        words = []
        for place, word in enumerate(args):
            value, choices = bare.get(word, (None, ()))
            following = args[place + 1] if value is not None and place + 1 < len(args) else ""
            given = following in choices or (value is not None and _is_mistyped(following))
            if given:
                check_choice(word, following, choices)
            words.append(word if value is None or given else f"{word}={value}")
        return super().parse_args(ctx, words)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the arguments of a help page, then the options, grouped into panels by the class that declares them."""
        panels = {"help": "Output", **panels_of(self.callback.options)}  # type: ignore[union-attr]
        sections: dict[str, list[tuple[str, str]]] = {"Arguments": [], OWN_PANEL: [], **{name: [] for name in PANELS}}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                named = getattr(parameter, "rich_help_panel", None) or panels.get(parameter.name or "", OWN_PANEL)
                sections["Arguments" if parameter.param_type_name == "argument" else named].append(record)
        write_sections(formatter, sections)


class PanelGroup(TyperGroup):
    """A group of commands; its help page has a section for each panel, and a command is listed in its own panel."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the name of each command with the first sentence of its help."""
        sections: dict[str, list[tuple[str, str]]] = {}
        commands = {name: self.commands[name] for name in self.list_commands(ctx) if not self.commands[name].hidden}
        room = formatter.width - 6 - max(map(len, commands))
        for name, found in commands.items():
            panel = getattr(found, "rich_help_panel", None) or "Commands"
            sections.setdefault(panel, []).append((name, found.get_short_help_str(room)))
        write_sections(formatter, sections)


def panels_of(options: type) -> dict[str, str]:
    """Return the name of the help-page panel for each option of a class.

    If the class that declares an option has no panel, the option has the panel of the same option in ``zoo eval``.

    >>> from zoo_harness.records.options import LayersOptions
    >>> panels = panels_of(LayersOptions)
    >>> panels["per_class"], panels["device"], panels["memory"]
    ('Data', 'Compute', 'Options')
    """
    usual = {} if options is EvalOptions else panels_of(EvalOptions)
    return {name: panel or usual.get(name, OWN_PANEL) for name, panel in _declaring_panels(options).items()}


def _declaring_panels(options: type) -> dict[str, str]:
    own = next((panel for panel, names in PANELS.items() if options.__name__ in names), "")
    found = dict.fromkeys(options.__annotations__, own)
    for base in getattr(options, "__orig_bases__", ()):
        if hasattr(base, "__annotations__"):
            found |= _declaring_panels(base)
    return found


def write_sections(formatter: Any, sections: Mapping[str, Sequence[tuple[str, str]]]) -> None:
    """Write every section of a help page that has rows, with the same column widths in all sections."""
    width = max((len(first) for rows in sections.values() for first, _second in rows), default=0)
    for name, rows in sections.items():
        if rows:
            with formatter.section(name):
                formatter.write_dl([(f"{first:<{min(width, 30)}}", second) for first, second in rows])


def _is_mistyped(word: str) -> bool:
    """Return whether a word after an option with a ``bare`` value must be a mistyped value.

    Such a word looks like a name, but no backbone and no file has this name.
    """
    from zoo_harness.cli.catalogue import read_catalogue

    if not re.fullmatch(r"\w[\w-]*", word) or os.path.exists(word):  # noqa: PTH110 - Path.exists raises for a name that is too long
        return False
    return word not in (row["name"] for row in read_catalogue()["backbones"])


def _keyword(name: str, default: object, annotation: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _annotation(kind: Any, option: Option) -> Any:
    flags = [option.flag] if option.flag else []
    parsed = list[str] | None if option.repeatable else _typer_type(kind)
    about: dict[str, Any] = {"help": option.help, "metavar": option.metavar}
    return Annotated[parsed, typer.Option(*flags, **about, autocompletion=_completion(kind, option))]


def _completion(kind: Any, option: Option) -> Callable[[str], list[str]] | None:
    """Return the function that completes the value of an option in the shell, or ``None`` if the value is not a run."""
    if {str, Path} <= {*get_args(kind)}:
        return complete_weights
    return complete_run if option.metavar == "RUN" else None


def _typer_type(kind: Any) -> Any:
    """Return the type that Typer must parse an option as.

    Typer parses an option with fixed choices as text, because zoo checks the choices later and suggests near misses.
    """
    if choices_of(kind):
        return str | None
    parts = get_args(kind)
    if str in parts and any(part in (Path, int) or get_origin(part) is Sequence for part in parts):
        return str | None
    if any(get_origin(part) is Sequence for part in parts):
        return list[str] | None
    return kind


def _typed(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"
