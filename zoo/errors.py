"""What can go wrong, told so that the reader knows what was given, what was expected and what to do.

Every error a user can cause derives from :class:`ZooError`; the command line prints its text on one line and exits
with :attr:`ZooError.exit_code`. Anything else that escapes is a bug of ours.
"""

from __future__ import annotations

import copyreg
import difflib
from collections.abc import Iterable, Sequence
from typing import Any


class ZooError(Exception):
    """Base of every error that is not a bug in blockzoo.

    ``code`` names the kind of mistake and ``facts`` holds what the message was made of: both stay when the wording
    changes.

    >>> error = UsageError("--epochs -1 must be at least 0", code="option-range", option="epochs")
    >>> error.code, error.facts["option"]
    ('option-range', 'epochs')
    """

    code = "failed"

    exit_code = 1

    def __init__(self, message: str = "", *, code: str = "", **facts: object) -> None:
        super().__init__(message)
        self.code = code or self.code
        self.facts = facts

    def __reduce__(self) -> tuple[Any, ...]:
        # Made again from its finished message, so that an error of a worker reaches the process that waits for it.
        return copyreg.__newobj__, (type(self), *self.args), vars(self)  # type: ignore[attr-defined]


class UsageError(ZooError):
    """Invalid command-line usage or argument value: exit status 2."""

    exit_code = 2
    code = "usage"


class UnknownNameError(UsageError):
    """A name that nobody declared, with the names that come near it.

    >>> print(UnknownNameError("backbone", "cait_s42", ["cait_s24", "resnet18"]))
    unknown backbone 'cait_s42'; did you mean 'cait_s24'? (2 known: cait_s24, resnet18)
    """

    def __init__(self, kind: str, given: str, known: Iterable[str], advice: str = "") -> None:
        self.kind = kind
        self.given = given
        self.known = sorted(known)
        near = near_misses(given, self.known)
        question = f"; did you mean {_either(near)}?" if near else ""
        super().__init__(
            f"unknown {kind} {shortened(given)}{question} ({_known(self.known)}){advice and '; ' + advice}",
            code="unknown-name",
            near=near,
        )


class DeclarationError(ZooError):
    """A backbone's record does not fit the module it describes."""


class PluginError(ZooError):
    """A plugin that cannot be imported, declares a bad record or takes a name already taken."""


class WeightsError(ZooError):
    """A weight file that is damaged, has another digest, or holds tensors of another network."""


class DataError(ZooError):
    """A data set that cannot be what it says: unreadable image, label outside the classes, empty class."""


class HubError(ZooError):
    """A request that the Hub refuses or cannot serve, or a repository in an unusable state; never shows a token.

    ``repository`` is ``OWNER/NAME``, ``status`` the HTTP status, ``code`` a short name of the cause such as
    ``"forbidden"``; repository and status are ``None`` if they do not apply.

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
    """A device without the memory for the smallest pieces into which work can be cut."""


class UnreachableError(ZooError):
    """Something that is neither on this machine nor reachable from it.

    >>> print(UnreachableError("weights of 'x'", [("a.pth", "no such file")], "pass --weights PATH"))
    weights of 'x' not found; looked in: a.pth (no such file); pass --weights PATH
    """

    def __init__(self, what: str, tried: Sequence[tuple[str, str]], advice: str) -> None:
        self.tried = tuple(tried)
        places = ", ".join(f"{place} ({reason})" for place, reason in tried)
        super().__init__(f"{what} not found; looked in: {places}; {advice}")


def shortened(value: object, most: int = 100) -> str:
    """The value as Python writes it, whole numbers with commas; of a long one only the beginning and how long it is.

    >>> shortened("abc"), shortened("x" * 200, most=5), shortened(10**400, most=5)
    ("'abc'", "'xxxx... (202 characters)", '10,00... (534 characters)')
    """
    try:
        told = f"{value:,}" if isinstance(value, int) else repr(value)
    except ValueError:  # of more digits than Python writes out
        return "a number of more than 4,000 digits"
    return told if len(told) <= most else f"{told[:most]}... ({len(told):,} characters)"


def near_misses(given: str, known: Iterable[str], most: int = 3) -> list[str]:
    """The known names that a typing mistake could have turned into ``given``, nearest first.

    >>> near_misses("fashion-mnist", ["fashion_mnist", "digits"])
    ['fashion_mnist']
    """
    by_folded = {name.casefold(): name for name in known}
    return [by_folded[key] for key in difflib.get_close_matches(given.casefold(), by_folded, most, 0.6)]


def check_choice(option: str, given: str, allowed: Sequence[str]) -> str:
    """Return ``given`` if it is allowed, else raise a :class:`UsageError` that says what is.

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
        option=option,
        given=given,
        near=near,
    )


def _either(names: Sequence[str]) -> str:
    return " or ".join(repr(name) for name in names)


def _known(names: Sequence[str], most: int = 12) -> str:
    shown = ", ".join(names[:most]) or "none"
    return f"{len(names)} known: {shown}" + (", ..." if len(names) > most else "")
