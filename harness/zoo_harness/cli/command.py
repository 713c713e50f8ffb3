"""Make a Typer command of an options class: Typer reads a signature, so the signature is built from the class."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import typer

from zoo_harness.cli.options import COMPLETIONS, Debug
from zoo_harness.records.option import Option, choices_of, declared

Given = Mapping[str, Any]


def command(options: type, run: Callable[..., None], *hidden: str) -> Callable[..., None]:
    """Return a function for ``app.command`` that takes the parameters of ``run`` and the options of a class.

    ``run`` has one parameter ``given``, a mapping of the options that were typed and no others. Its remaining
    parameters are arguments and flags of the command line alone, declared as Typer reads them.
    """
    own = [parameter for name, parameter in inspect.signature(run, eval_str=True).parameters.items() if name != "given"]
    names = [name for name in declared(options) if name not in hidden]

    def invoke(context: typer.Context, **values: Any) -> None:
        given = {name: values[name] for name in names if _typed(context, name)}
        run(given=given, **{parameter.name: values[parameter.name] for parameter in own})

    arguments = [parameter for parameter in own if parameter.kind is not parameter.KEYWORD_ONLY]
    flags = [parameter for parameter in own if parameter.kind is parameter.KEYWORD_ONLY]
    context = inspect.Parameter("context", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)
    made = [_parameter(name, *declared(options)[name]) for name in names]
    debug = inspect.Parameter("_debug", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Debug)
    in_order = [context, *arguments, *made, *flags, debug]
    invoke.__signature__ = inspect.Signature(in_order)  # type: ignore[attr-defined]
    invoke.__doc__ = run.__doc__
    return invoke


def _parameter(name: str, kind: Any, option: Option) -> inspect.Parameter:
    flags = [option.flag] if option.flag else []
    complete = COMPLETIONS.get(option.complete or "")
    made = typer.Option(*flags, help=option.help, metavar=option.metavar, autocompletion=complete)
    annotation: Any = Annotated[_typer_type(kind), made]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=option.default, annotation=annotation)


def _typer_type(kind: Any) -> Any:
    """What Typer parses: choices as text, which are checked with near misses later, and lists as lists."""
    if choices_of(kind):
        return str | None
    parts = get_args(kind)
    if str in parts and any(part is Path or get_origin(part) is Sequence for part in parts):
        return str | None
    if any(get_origin(part) is Sequence for part in parts):
        return list[str] | None
    return kind


def _typed(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"
