"""Tries a request to the Hub again where another attempt may succeed: it is busy, or the connection was cut.

The Hub's client does so itself for some requests (uploads, listings) and for others not (creating a repository,
committing, tagging). Only what may be done twice belongs here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from time import sleep
from typing import TypeVar

_T = TypeVar("_T")
_WAITS = (1.0, 2.0, 4.0, 8.0)
_LONGEST_WAIT = 60.0
_PASSING = (408, 429, 500, 502, 503, 504)


def patiently(request: Callable[[], _T]) -> _T:
    """What ``request`` returns, tried up to five times; the last failure is raised as it is."""
    for wait in _WAITS:
        try:
            return request()
        except Exception as error:
            if not may_pass(error):
                raise
            sleep(_asked_wait(error) or wait)
    return request()


def may_pass(error: BaseException) -> bool:
    """Whether what went wrong may be over soon: too many requests, a fault of the server, a connection cut."""
    status = status_of(error)
    return status in _PASSING if status is not None else lost_connection(error)


def status_of(error: BaseException) -> int | None:
    """The HTTP status that an error, or one that led to it, stands for."""
    statuses = (getattr(getattr(one, "response", None), "status_code", None) for one in chain(error))
    return next((status for status in statuses if isinstance(status, int)), None)


def lost_connection(error: BaseException) -> bool:
    """Whether there was no answer at all: no connection, a connection cut, or silence."""
    # The client's HTTP library has changed its name from release to release, and kept those of its errors.
    names = {kind.__name__ for one in chain(error) for kind in type(one).__mro__}
    return bool(names & {"TransportError", "ConnectionError", "TimeoutError"}) and "OfflineModeIsEnabled" not in names


def chain(error: BaseException) -> Iterator[BaseException]:
    """The error and what it was raised from, latest first."""
    # Not __context__: that may be an earlier attempt.
    following: BaseException | None = error
    while following is not None:
        yield following
        following = following.__cause__


def _asked_wait(error: BaseException) -> float | None:
    for one in chain(error):
        headers = getattr(getattr(one, "response", None), "headers", None)
        asked = headers.get("Retry-After", "") if headers is not None else ""
        if asked.isdigit():
            return min(float(asked), _LONGEST_WAIT)
    return None
