"""The exceptions of zoo; each message names the fault, the given value, the expected value and a remedy.

Every error that a user can cause derives from :class:`ZooError`. The command line prints the message on one line, and
exits with :attr:`ZooError.exit_code`. An exception that does not derive from :class:`ZooError` is a bug in blockzoo.
"""

from __future__ import annotations

import copyreg
import difflib
from collections.abc import Iterable, Sequence
from pathlib import PurePath
from typing import Any


class ZooError(Exception):
    """Base class of every error that is not a bug in blockzoo.

    ``exit_code`` is the exit status of the command. Status 2 means that the user must type something else, because a
    name, an option or a path is wrong or does not exist. Status 1 means that something that exists is damaged, or
    cannot be reached or written.

    ``code`` identifies the kind of mistake, and ``facts`` holds the values in the message, with paths as text. A
    later version may reword the message, but changes neither ``code`` nor ``facts``.

    >>> error = UsageError("--epochs -1 must be at least 0", code="option-range", option="epochs")
    >>> error.code, error.facts["option"]
    ('option-range', 'epochs')
    """

    code = "failed"

    exit_code = 1

    def __init__(self, message: str = "", *, code: str = "", **facts: object) -> None:
        super().__init__(message)
        self.code = code or self.code
        self.facts = {name: str(fact) if isinstance(fact, PurePath) else fact for name, fact in facts.items()}

    def __reduce__(self) -> tuple[Any, ...]:
        # An error of a worker process is pickled, and restored from its finished message.
        return copyreg.__newobj__, (type(self), *self.args), vars(self)  # type: ignore[attr-defined]


class UsageError(ZooError):
    """Invalid command-line usage or argument value, such as the path of a missing file: exit status 2."""

    exit_code = 2
    code = "usage"


class UnknownNameError(UsageError):
    """An unknown name, such as a misspelt backbone; the message suggests similarly spelled names.

    >>> print(UnknownNameError("backbone", "cait_s42", ["cait_s24", "resnet18"]))
    unknown backbone 'cait_s42'; did you mean 'cait_s24'? (2 known: cait_s24, resnet18)
    """

    def __init__(self, kind: str, given: str, known: Iterable[str], advice: str = "") -> None:
        self.kind = kind
        self.given = given
        self.known = sorted(known)
        near = near_misses(given, self.known)
        question = f"; did you mean {_either(near)}?" if near else ""
        noun, of, owner = kind.partition(" of ")
        fault = f"unknown {noun} {shortened(given)}{of}{owner}"
        if kind == "backbone" and set("*?[") & set(given):
            fault = f"pattern {shortened(given)} matches no backbone"
        super().__init__(
            f"{fault}{question} ({_known(self.known)}){advice and '; ' + advice}",
            code="unknown-name",
            near=near,
        )


class DeclarationError(ZooError):
    """The record of a backbone does not match the network that the record declares."""


class PluginError(ZooError):
    """A plugin cannot be imported, declares an invalid record, or uses a name that is already taken."""


class WeightsError(ZooError):
    """A weight file is damaged, has an unexpected digest, or holds the tensors of a different network."""


class DataError(ZooError):
    """The content of a file is invalid, such as an unreadable image, a label without a class, or a damaged record."""


class HubError(ZooError):
    """A request to the Hugging Face Hub failed, or a repository is unusable; messages never show a token.

    ``repository`` is ``OWNER/NAME``, and ``status`` is the HTTP status; either is ``None`` if it does not apply.
    ``code`` is a short name of the cause, such as ``"forbidden"``.

    >>> HubError("too many requests", repository="ada/net", status=429, code="rate-limit").status
    429
    """

    def __init__(
        self, message: str, *, repository: str | None = None, status: int | None = None, code: str | None = None
    ) -> None:
        super().__init__(message, code=code or "hub")
        self.repository = repository
        self.status = status


class DeviceMemoryError(ZooError):
    """The device has too little memory, even for a batch of one image or for the smallest memory budget."""


class UnreachableError(ZooError):
    """A file or dataset is not on this machine and cannot be downloaded.

    >>> print(UnreachableError("weights of 'x'", [("a.pth", "no such file")], "pass --weights PATH"))
    weights of 'x' not found; looked in: a.pth (no such file); pass --weights PATH
    """

    def __init__(self, what: str, tried: Sequence[tuple[str, str]], advice: str) -> None:
        self.tried = tuple(tried)
        places = ", ".join(f"{place} ({reason})" for place, reason in tried)
        super().__init__(f"{what} not found; looked in: {places}; {advice}", code="unreachable", what=what)


def shortened(value: object, most: int = 100) -> str:
    """Return a value's ``repr``, cut after ``most`` characters; integers have commas.

    >>> shortened("abc"), shortened("x" * 200, most=5), shortened(10**400, most=5)
    ("'abc'", "'xxxx... (202 characters)", '10,00... (534 characters)')
    """
    try:
        text = f"{value:,}" if isinstance(value, int) else repr(value)
    except ValueError:  # Python refuses to print integers with too many digits
        return "a number of more than 4,000 digits"
    return text if len(text) <= most else f"{text[:most]}... ({len(text):,} characters)"


def near_misses(given: str, known: Iterable[str], most: int = 3) -> list[str]:
    """Return at most ``most`` known names that are spelled similarly to ``given``, the most similar first.

    >>> near_misses("fashion-mnist", ["fashion_mnist", "digits"])
    ['fashion_mnist']
    """
    by_folded = {name.casefold(): name for name in known}
    return [by_folded[key] for key in difflib.get_close_matches(given.casefold(), by_folded, most, 0.6)]


def check_choice(option: str, given: str, allowed: Sequence[str]) -> str:
    """Return the value ``given`` if it is allowed; otherwise raise a :class:`UsageError` that lists the allowed values.

    >>> check_choice("--predict", "mean", ("cls", "mean"))
    'mean'
    """
    if given in allowed:
        return given
    near = near_misses(given, allowed, 1) if isinstance(given, str) else []
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise UsageError(
        f"{option} {shortened(given)} is not one of {', '.join(allowed)}{hint}",
        code="option-choice",
        option=option.removeprefix("--").replace("-", "_"),
        given=given,
        near=near,
    )


def _either(names: Sequence[str]) -> str:
    return " or ".join(repr(name) for name in names)


def _known(names: Sequence[str], most: int = 12) -> str:
    if len(names) > 200:  # the list of a family's names is too long to help the user
        return f"{len(names)} known"
    shown = ", ".join(names[:most]) or "none"
    return f"{len(names)} known: {shown}" + (", ..." if len(names) > most else "")
