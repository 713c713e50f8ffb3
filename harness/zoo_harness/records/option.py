"""Declare an option: its type is the annotation of a key, everything else is in :class:`Option`.

Commands and Python functions read the same declarations. Nothing here imports typer, pydantic or torch.
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
    """The help text, default and spelling of an option.

    ``flag`` is the spelling on the command line if it is not ``--the-name``; ``metavar`` the placeholder in the help
    page; ``minimum`` the smallest value allowed; ``repeatable`` says whether the command line takes text several times;
    ``stored`` says whether the option is kept with the run, for ``--resume``; ``fixed``: whether a resumed run must
    have the same value, because another could change a result. ``bare`` is the value of an option that is typed without
    one, because it was a flag once; in Python, ``True`` means ``bare`` and ``False`` the first choice.
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
        """Return the option as it is written on the command line.

        >>> Option("").spelling("learning_rate")
        '--learning-rate'
        """
        return (self.flag or f"--{name.replace('_', '-')}").partition("/")[0]


@cache
def declared(options: type) -> dict[str, tuple[Any, Option]]:
    """Return the type and the :class:`Option` of every key of an options class; its own keys come first."""
    hints = get_type_hints(options, include_extras=True)
    kinds = {name: get_args(hints[name]) for name in (*options.__annotations__, *hints)}
    return {name: (kind, option) for name, (kind, option) in kinds.items()}


def with_defaults(options: type[Options], given: Mapping[str, Any]) -> Options:
    """Return the given options with the defaults of all others."""
    return {name: option.default for name, (_kind, option) in declared(options).items()} | dict(given)  # type: ignore[return-value]


def checked(options: type[Options], given: Mapping[str, Any]) -> Options:
    """Return the given options, each converted to its declared type.

    Options that are ``None`` count as not given. Raises :class:`~zoo.errors.UsageError` for an unknown name and for a
    value that its declaration does not allow, with near misses.
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
        # Strict, because "2" for a number or True for a count of epochs is a mistake of the program that calls.
        found = TypeAdapter(kind).validate_python(value, strict=True)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]["msg"]
        message = f"{spelled} {value!r:.100} is wrong: {fault[0].lower()}{fault[1:]}"
        raise UsageError(message, code="option-value", option=name) from error
    if option.minimum is not None and found is not None and found < option.minimum:
        raise UsageError(f"{spelled} {value} must be at least {option.minimum}", code="option-range", option=name)
    return found.expanduser() if isinstance(found, Path) else found


def _plain(value: Any) -> Any:
    """Return a numpy scalar, such as a seed from ``numpy.arange``, as Python's number; in a list or tuple too."""
    if hasattr(value, "item") and getattr(value, "shape", None) == ():
        return value.item()
    return type(value)(map(_plain, value)) if type(value) in (list, tuple) else value


def choices_of(kind: Any) -> tuple[str, ...]:
    """Return the values that ``Literal[...]`` or ``Literal[...] | None`` allows, or nothing for another type."""
    parts = [part for part in get_args(kind) if part is not NoneType]
    if get_origin(kind) is Literal:
        return tuple(parts)
    return choices_of(parts[0]) if get_origin(kind) in (Union, UnionType) and len(parts) == 1 else ()
