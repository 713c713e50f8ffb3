"""Make a Typer command of an options class, by building the signature that Typer reads."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import typer
from typer.core import TyperCommand

from zoo_harness.cli.options import Debug
from zoo_harness.records.option import Option, choices_of, declared

Given = Mapping[str, Any]


def command(options: type, run: Callable[..., None]) -> Callable[..., None]:
    """Return a function for ``app.command`` that takes the parameters of ``run`` and the options of a class.

    ``run`` has a parameter ``given``, a mapping of the options that were typed and no others. Its other parameters
    are arguments and flags that only the command line has, declared as Typer reads them.
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
    """A command of :func:`command` whose options may be typed without a value if they declare a bare one."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments as Typer does, after every bare option got its value."""
        known = declared(self.callback.options)  # type: ignore[union-attr]
        bare = {option.spelling(name): (option.bare, choices_of(kind)) for name, (kind, option) in known.items()}
        words = []
        for place, word in enumerate(args):
            value, choices = bare.get(word, (None, ()))
            given = place + 1 < len(args) and args[place + 1] in choices
            words.append(word if value is None or given else f"{word}={value}")
        return super().parse_args(ctx, words)


def _keyword(name: str, default: object, annotation: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _annotation(kind: Any, option: Option) -> Any:
    flags = [option.flag] if option.flag else []
    parsed = list[str] | None if option.repeatable else _typer_type(kind)
    return Annotated[parsed, typer.Option(*flags, help=option.help, metavar=option.metavar)]


def _typer_type(kind: Any) -> Any:
    """Return the type that Typer parses; choices are text, because they are checked later, with near misses."""
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
