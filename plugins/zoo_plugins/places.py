"""Where data may lie: the zoo's own data folder, the network, and looking in several places in turn."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from zoo.errors import UnreachableError
from zoo.reachability import network_advice

Found = TypeVar("Found")


class NotHere(Exception):  # noqa: N818 - nothing is wrong yet: another place may have it
    """One place does not have the data; the user hears of it only when no other has either.

    >>> NotHere("folder /data", "no such folder").place
    'folder /data'
    """

    def __init__(self, place: str, reason: str) -> None:
        self.place = place
        self.reason = reason
        super().__init__(f"{place}: {reason}")


def first_found(what: str, places: Iterable[Callable[[], Found]], advice: str) -> Found:
    """What the first place that has it gives.

    Raises :class:`~zoo.errors.UnreachableError` with every place and its reason when each raised
    :class:`NotHere`.

    >>> first_found("a number", [lambda: 7], "count again")
    7
    """
    tried = []
    for look in places:
        try:
            return look()
        except NotHere as missing:
            tried.append((missing.place, missing.reason))
    raise UnreachableError(what, tried, advice)


def reach_advice(contents: str) -> str:
    """How to get at data that was found nowhere.

    >>> reach_advice("the idx files").partition(", or ")[0]
    'pass --data-dir FOLDER with the idx files'
    """
    return f"pass --data-dir FOLDER with {contents}, or {network_advice()}"


def data_folder() -> Path:
    """Where the zoo keeps what it downloads: ``$ZOO_DATA_DIR``, else ``blockzoo/data`` in the user cache."""
    named = os.environ.get("ZOO_DATA_DIR")
    if named:
        return Path(named).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache).expanduser() / "blockzoo" / "data"
