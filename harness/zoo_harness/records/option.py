"""Declare an option: the annotation of a key gives the option's type, and :class:`Option` gives its other properties.

The command line and the Python functions read the same declarations. This module imports neither typer, pydantic nor
torch.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from zoo.errors import UsageError, check_choice, near_misses

Options = TypeVar("Options", bound=Mapping[str, Any])


@dataclass(frozen=True)
class Option:
    """The help text, the default and the command-line spelling of an option.

    ``flag`` is the command-line spelling if it is not ``--the-name``. ``metavar`` is the placeholder in the help page.
    ``minimum`` is the smallest allowed value. ``repeatable`` means that the command line accepts the option several
    times. ``stored`` means that the run saves the value for ``--resume``. ``fixed`` means that a resumed run must use
    the same value, because another value could change a result. ``bare`` is the value if the option is typed without
    a value: such an option used to be a flag. In Python, ``True`` stands for ``bare`` and ``False`` for the first
    choice.
    """

    help: str
    default: object = None
    flag: str | None = None
    metavar: str | None = None
    minimum: int | None = None
    stored: bool = True
    bare: str | None = None
    repeatable: bool = False
    fixed: bool = True

    def spelling(self, name: str) -> str:
        """Return the option as the user types it on the command line.

        >>> Option("").spelling("learning_rate")
        '--learning-rate'
        """
        return (self.flag or f"--{name.replace('_', '-')}").partition("/")[0]


@cache
def declared(options: type) -> dict[str, tuple[Any, Option]]:
    """Return the type and the :class:`Option` of every key of an options class; inherited keys come last."""
    hints = get_type_hints(options, include_extras=True)
    kinds = {name: get_args(hints[name]) for name in (*options.__annotations__, *hints)}
    return {name: (kind, option) for name, (kind, option) in kinds.items()}


def with_defaults(options: type[Options], given: Mapping[str, Any]) -> Options:
    """Return the given options, completed with the defaults of the missing options."""
    return {name: option.default for name, (_kind, option) in declared(options).items()} | dict(given)  # type: ignore[return-value]


def checked(options: type[Options], given: Mapping[str, Any]) -> Options:
    """Return the given options, with each value converted to its declared type.

    Options whose value is ``None`` are removed. Raises :class:`~zoo.errors.UsageError` for an unknown name, with
    similarly spelled names, and for a value that the declaration does not allow.
    """
    known = declared(options)
    for name in given.keys() - known:
        near = near_misses(name, known, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(known)}"
        raise UsageError(f"unknown option: {name!r}; {hint}", code="option-unknown", option=name, near=near)
    return {name: _value(name, value, *known[name]) for name, value in given.items() if value is not None}  # type: ignore[return-value]


def _value(name: str, value: Any, kind: Any, option: Option) -> Any:
    from pydantic import TypeAdapter, ValidationError

    spelled = option.spelling(name)
    value = _plain(value)
    if isinstance(value, str | os.PathLike) and Path in (kind, *get_args(kind)) and str not in get_args(kind):
        value = Path(value)
    choices = choices_of(kind)
    if option.bare is not None and isinstance(value, bool):
        value = option.bare if value else choices[0]
    if choices:
        return check_choice(spelled, value, choices)
    try:
        # Strict, because the text "2" for a number, or True for a count of epochs, is a mistake in the calling program.
        found = TypeAdapter(kind).validate_python(value, strict=True)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]["msg"]
        message = f"{spelled} {value!r:.100} is wrong: {fault[0].lower()}{fault[1:]}"
        raise UsageError(message, code="option-value", option=name) from error
    if option.minimum is not None and found is not None and found < option.minimum:
        raise UsageError(f"{spelled} {value} must be at least {option.minimum}", code="option-range", option=name)
    return found.expanduser() if isinstance(found, Path) else found


def _plain(value: Any) -> Any:
    """Convert numpy scalars, such as a seed from ``numpy.arange``, to Python numbers, also in a list or tuple."""
    if hasattr(value, "item") and getattr(value, "shape", None) == ():
        return value.item()
    return type(value)(map(_plain, value)) if type(value) in (list, tuple) else value


def choices_of(kind: Any) -> tuple[str, ...]:
    """Return the values that ``Literal[...]`` or ``Literal[...] | None`` allows; an empty tuple for other types."""
    parts = [part for part in get_args(kind) if part is not NoneType]
    if get_origin(kind) is Literal:
        return tuple(parts)
    return choices_of(parts[0]) if get_origin(kind) in (Union, UnionType) and len(parts) == 1 else ()
