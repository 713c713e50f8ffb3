"""Look for data in several locations, one after another, such as zoo's data folder and the Hub."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from zoo.errors import UnreachableError
from zoo.reachability import network_advice

Found = TypeVar("Found")


class NotHere(Exception):  # noqa: N818 - no error, because another location may have the data
    """An exception that one location lacks the data; the user sees it only if all locations lack the data.

    >>> NotHere("folder /data", "no such folder").location
    'folder /data'
    """

    def __init__(self, location: str, reason: str) -> None:
        self.location = location
        self.reason = reason
        super().__init__(f"{location}: {reason}")


def first_found(what: str, locations: Iterable[Callable[[], Found]], advice: str) -> Found:
    """Call the functions in ``locations`` one after another until a function returns the data, and return the data.

    Raises :class:`~zoo.errors.UnreachableError`, with every location and reason, if all functions raise
    :class:`NotHere`.

    >>> first_found("a number", [lambda: 7], "count again")
    7
    """
    tried = []
    for look in locations:
        try:
            return look()
        except NotHere as missing:
            tried.append((missing.location, missing.reason))
    raise UnreachableError(what, tried, advice)


def reach_advice(contents: str) -> str:
    """Return advice for a user whose data were found in no location; ``contents`` names the data.

    >>> reach_advice("the idx files").partition(", or ")[0]
    'pass --data-dir FOLDER with the idx files'
    """
    return f"pass --data-dir FOLDER with {contents}, or {network_advice()}"


def data_folder() -> Path:
    """Return the folder for downloaded data: ``$ZOO_DATA_DIR``, or else ``blockzoo/data`` in the user's cache."""
    named = os.environ.get("ZOO_DATA_DIR")
    if named:
        return Path(named).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache).expanduser() / "blockzoo" / "data"
