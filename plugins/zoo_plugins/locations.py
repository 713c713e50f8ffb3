"""Look for data in several locations in turn, such as the zoo's own data folder and the network."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from zoo.errors import UnreachableError
from zoo.reachability import network_advice

Found = TypeVar("Found")


class NotHere(Exception):  # noqa: N818 - not yet an error, because another location may have the data
    """Raised if one location lacks the data; the user sees the reason only if no location has the data.

    >>> NotHere("folder /data", "no such folder").location
    'folder /data'
    """

    def __init__(self, location: str, reason: str) -> None:
        self.location = location
        self.reason = reason
        super().__init__(f"{location}: {reason}")


def first_found(what: str, locations: Iterable[Callable[[], Found]], advice: str) -> Found:
    """Call the functions in ``locations`` in turn, and return the data of the first function that finds them.

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
    """Return advice for data that were found in no location; ``contents`` names the data.

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
