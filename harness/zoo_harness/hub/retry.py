"""Tries a request to the Hub again where another attempt may succeed: it is busy, or the connection was cut.

The Hub's client does so itself for some requests (uploads, listings) and for others not (creating a repository,
committing, tagging). Only what may be done twice belongs into :func:`patiently`. So that the client's attempts and ours
do not multiply, :func:`patience` looks at every answer that comes in during an operation, the client's own attempts
included: five failures of one address in a row are the end of it, and so is a Hub that asks for more than a minute of
waiting in all. What is waited for is said.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from math import ceil
from time import monotonic, sleep
from typing import Any, TypeVar

_T = TypeVar("_T")
_WAITS = (1.0, 2.0, 4.0, 8.0)
_ATTEMPTS = 1 + len(_WAITS)
_FEWEST_ATTEMPTS = 3
_MOST_WAITED = 60.0  # seconds, over a whole operation
_PASSING = (408, 429, 500, 502, 503, 504)
_RATE_LIMIT = re.compile(r";\s*r\s*=\s*0\s*;\s*t\s*=\s*(\d+)")


class GaveUpError(Exception):
    """The Hub answered with ``status`` once too often, or asks for a wait of ``seconds``, which is too long."""

    def __init__(self, status: int, seconds: float | None = None, server_message: str | None = None) -> None:
        super().__init__(f"it answers with status {status}{and_asks_to_wait(seconds)}")
        self.status = status
        self.seconds = seconds
        self.server_message = server_message  # as the client's own errors have it


@dataclass
class Patience:
    """What one operation has left; ``say`` is told what is waited for."""

    say: Callable[[str], None]
    _failed: Counter[tuple[str, str]] = field(default_factory=Counter)
    _waited: float = 0.0
    _waits_until: float = 0.0
    _watched: list[Any] = field(default_factory=list)

    def watch(self) -> None:
        """Have every answer that the Hub's client gets in its present session looked at."""
        from huggingface_hub import get_session

        session = get_session()
        # A session of requests, which older releases of the client have, has other hooks; there our own attempts count.
        if hasattr(session, "event_hooks") and not any(session is one for one in self._watched):
            session.event_hooks["response"].append(self._look)
            self._watched.append(session)

    def watch_no_more(self) -> None:
        """Leave the client as it was."""
        for session in self._watched:
            session.event_hooks["response"].remove(self._look)
        self._watched.clear()

    def _look(self, response: Any) -> None:
        self.look_at(response.request.method, str(response.request.url), response.status_code, response.headers)

    @property
    def is_over(self) -> bool:
        """Whether one address has failed so often in a row that another attempt is no use."""
        return max(self._failed.values(), default=0) >= _ATTEMPTS

    def look_at(self, method: str, address: str, status: int, headers: Mapping[str, str]) -> None:
        """Take note of an answer; raise :class:`GaveUpError` where waiting would take too long."""
        if status not in _PASSING:
            self._failed.pop((method, address), None)
            return
        self._failed[method, address] += 1
        failed = self._failed[method, address]
        seconds = _seconds_asked_for(headers)
        if seconds is not None and not self._may_wait(seconds):
            raise GaveUpError(status, seconds, headers.get("X-Error-Message"))
        if failed >= _ATTEMPTS:
            raise GaveUpError(status, server_message=headers.get("X-Error-Message"))
        pause = f"; waiting {seconds:.0f} seconds, as it asks" if seconds else "; asking it again"
        self.say(f"the Hub answers with status {status}{pause} (attempt {failed} of {_ATTEMPTS})")

    def _may_wait(self, seconds: float) -> bool:
        # Several downloads at once wait at the same time.
        now = monotonic()
        begin = max(now, self._waits_until)
        self._waits_until = max(begin, now + seconds)
        self._waited += self._waits_until - begin
        return self._waited <= _MOST_WAITED


_PATIENCE: ContextVar[Patience | None] = ContextVar("patience", default=None)


@contextmanager
def patience(say: Callable[[str], None]) -> Iterator[Patience]:
    """Bound the attempts and the waiting of all requests that the Hub's client makes while the body runs.

    What the client would log of its own attempts is left out: it is said here.
    """
    from huggingface_hub.utils.logging import get_verbosity, set_verbosity

    own = Patience(say)
    outer, verbosity = _PATIENCE.set(own), get_verbosity()
    if verbosity == logging.WARNING:
        set_verbosity(logging.ERROR)
    own.watch()
    try:
        yield own
    finally:
        own.watch_no_more()
        set_verbosity(verbosity)
        _PATIENCE.reset(outer)


def patiently(request: Callable[[], _T]) -> _T:
    """What ``request`` returns, tried up to five times; the last failure is raised as it is."""
    own = _PATIENCE.get() or Patience(lambda _line: None)
    begin = monotonic()
    for attempt, wait in enumerate(_WAITS, start=1):
        try:
            if _PATIENCE.get() is not None:
                own.watch()  # the client makes a new session after some failures
            return request()
        except Exception as error:
            slow = attempt >= _FEWEST_ATTEMPTS and monotonic() - begin > _MOST_WAITED
            if not may_pass(error) or isinstance(error, GaveUpError) or own.is_over or slow:
                raise
            if status_of(error) is None:
                own.say(f"the connection to the Hub was cut; trying again (attempt {attempt} of {_ATTEMPTS})")
            sleep(_asked_wait(error) or wait)
    return request()


def and_asks_to_wait(seconds: float | None) -> str:
    """The wait that the Hub asks for, in words that go on a sentence; nothing where it asks for none.

    >>> and_asks_to_wait(7000.0), and_asks_to_wait(None)
    (' and asks to wait 117 minutes', '')
    """
    if seconds is None:
        return ""
    if seconds < 120:
        return f" and asks to wait {ceil(seconds)} seconds"
    if seconds < 7200:
        return f" and asks to wait {ceil(seconds / 60)} minutes"
    return f" and asks to wait {min(ceil(seconds / 3600), 10_000):,} hours"


def wait_asked_in_vain(error: BaseException) -> float | None:
    """The seconds that the Hub asked to wait and that were too many, if that is what the error is."""
    return next((one.seconds for one in chain(error) if isinstance(one, GaveUpError)), None)


def may_pass(error: BaseException) -> bool:
    """Whether what went wrong may be over soon: too many requests, a fault of the server, a connection cut."""
    status = status_of(error)
    return status in _PASSING if status is not None else lost_connection(error)


def status_of(error: BaseException) -> int | None:
    """The HTTP status that an error, or one that led to it, stands for."""
    statuses = (
        one.status if isinstance(one, GaveUpError) else getattr(getattr(one, "response", None), "status_code", None)
        for one in chain(error)
    )
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
        if headers is not None and (asked := _seconds_asked_for(headers)) is not None:
            return asked
    return None


def _seconds_asked_for(headers: Mapping[str, str]) -> float | None:
    """The wait that ``Retry-After`` (seconds or a date) or the Hub's own ``RateLimit`` asks for."""
    if limit := _RATE_LIMIT.search(headers.get("RateLimit", "")):
        return float(limit[1][:12])
    asked = headers.get("Retry-After", "").strip()
    if asked.isascii() and asked.isdigit():
        return float(asked[:12])
    try:
        date = parsedate_to_datetime(asked)
    except ValueError:
        return None
    if date.tzinfo is None:
        date = date.replace(tzinfo=UTC)
    return max(0.0, (date - datetime.now(UTC)).total_seconds())
