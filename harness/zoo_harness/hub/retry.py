"""Bounds the retries of the Hub's client, and retries the requests that the client sends only once.

huggingface_hub retries listings, uploads and most downloads itself, but sleeps as long as a server asks it to. It does
not retry look-ups, ``create_repo``, commits, ``create_tag`` and downloads answered with 5xx: :func:`with_retries` does.
:func:`retry_budget` checks the responses to both, so that their attempts do not multiply: it stops after five failures
of one request in a row, or once the requested waits exceed a minute in total.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from itertools import count
from math import ceil
from time import monotonic, sleep
from typing import Any, TypeVar

_T = TypeVar("_T")
_MAX_ATTEMPTS = 5
_MAX_SECONDS = 60.0  # of requested waits in an operation, and of attempts that get no response
_TRANSIENT_STATUSES = (408, 429, 500, 502, 503, 504)
_RATE_LIMIT = re.compile(r";\s*r\s*=\s*0\s*;\s*t\s*=\s*(\d{1,12})")


class RetriesExhaustedError(Exception):
    """A request failed too often, or the server asks for ``wait`` seconds, more than the budget has left."""

    def __init__(self, response: Any, wait: float | None = None) -> None:
        asked = "" if wait is None else f" and asks to wait {ceil(wait / 60):,} minutes"
        super().__init__(f"the Hub answered with status {response.status_code}{asked}")
        self.response = response
        self.wait = wait
        self.server_message = response.headers.get("X-Error-Message")  # named as in the client's own errors


@dataclass
class RetryBudget:
    """Count the failures and the requested waits of one operation; ``log`` receives a line for each retry."""

    log: Callable[[str], None]
    _failures: Counter[tuple[str, str]] = field(default_factory=Counter)
    _waited: float = 0.0
    _waiting_until: float = 0.0

    def check_response(self, response: Any) -> None:
        """Count a response; raise :class:`RetriesExhaustedError` if the client must not try again."""
        request = response.request.method, str(response.request.url)
        if response.status_code not in _TRANSIENT_STATUSES:
            self._failures.pop(request, None)
            return
        self._failures[request] += 1
        wait = _requested_wait(response.headers)
        if wait is not None and not self._can_wait(wait):
            raise RetriesExhaustedError(response, wait)
        if self._failures[request] >= _MAX_ATTEMPTS:
            raise RetriesExhaustedError(response)
        pause = f"waiting {wait:.0f} seconds as it asks" if wait else "trying again"
        attempt = f"attempt {self._failures[request]} of {_MAX_ATTEMPTS}"
        self.log(f"the Hub answered with status {response.status_code}; {pause} ({attempt})")

    def _can_wait(self, seconds: float) -> bool:
        # Parallel downloads wait at the same time: only the time that a wait adds counts.
        begin = max(monotonic(), self._waiting_until)
        self._waiting_until = max(begin, monotonic() + seconds)
        self._waited += self._waiting_until - begin
        return self._waited <= _MAX_SECONDS


_BUDGET: ContextVar[RetryBudget] = ContextVar("budget")


@contextmanager
def retry_budget(log: Callable[[str], None]) -> Iterator[None]:
    """Context manager that bounds all retries in its body; ``log`` replaces the client's own messages about them."""
    from huggingface_hub.utils.logging import get_verbosity, set_verbosity

    budget = RetryBudget(log)
    outer, verbosity = _BUDGET.set(budget), get_verbosity()
    if verbosity == logging.WARNING:
        set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        _BUDGET.reset(outer)
        set_verbosity(verbosity)
        if budget.check_response in (hooks := _response_hooks()):
            hooks.remove(budget.check_response)


def with_retries(request: Callable[[], _T]) -> _T:
    """Return the result of ``request``, after up to five attempts; raise its last error unchanged.

    It needs a surrounding :func:`retry_budget`, and a request that may be sent twice.
    """
    budget, begin = _BUDGET.get(), monotonic()
    for attempt in count(1):
        # Each time, because the client opens a new session after some failures.
        if budget.check_response not in (hooks := _response_hooks()):
            hooks.append(budget.check_response)
        try:
            return request()
        except Exception as error:
            late = attempt > 1 and monotonic() - begin > _MAX_SECONDS
            final = attempt == _MAX_ATTEMPTS or late or has_type(error, "RetriesExhaustedError")
            if final or not is_transient(error):
                raise
            response = response_of(error)
            if response is None:
                budget.log(f"the connection to the Hub was cut; trying again (attempt {attempt} of {_MAX_ATTEMPTS})")
            sleep((response is not None and _requested_wait(response.headers)) or 2.0 ** (attempt - 1))
    raise AssertionError("unreachable")


def is_transient(error: BaseException) -> bool:
    """Whether a later attempt may succeed: rate limit, server fault, or connection lost."""
    response = response_of(error)
    return lost_connection(error) if response is None else response.status_code in _TRANSIENT_STATUSES


def response_of(error: BaseException) -> Any:
    """Return the HTTP response that caused an error, ``None`` if there is none."""
    responses = (getattr(one, "response", None) for one in causes(error))
    return next((response for response in responses if response is not None), None)


def lost_connection(error: BaseException) -> bool:
    """Whether no response came: no connection, connection cut, or timeout."""
    lost = has_type(error, "TransportError", "ConnectionError", "TimeoutError")
    return lost and not has_type(error, "OfflineModeIsEnabled")


def has_type(error: BaseException, *names: str) -> bool:
    """Whether an error or one of its causes has a class of one of these names.

    Names, because the client's HTTP library was renamed between releases, and its error classes kept their names.
    """
    return any(kind.__name__ in names for one in causes(error) for kind in type(one).__mro__)


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """Iterate over an error and its explicit causes, latest first."""
    while error is not None:
        yield error
        error = error.__cause__  # not __context__, which may be an earlier attempt


def _response_hooks() -> list[Callable[[Any], None]]:
    from huggingface_hub import get_session

    hooks: list[Callable[[Any], None]] = get_session().event_hooks["response"]
    return hooks


def _requested_wait(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that the Hub requests by ``RateLimit`` or ``Retry-After``."""
    limit = _RATE_LIMIT.search(headers.get("RateLimit", "")) or re.match(r"(\d{1,12})", headers.get("Retry-After", ""))
    return float(limit[1]) if limit else None
