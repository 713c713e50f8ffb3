"""Retries the requests of the Hub's client, within bounds.

huggingface_hub retries some requests itself, as long as a server asks it to wait, and others never. Here each answer
that may be better later becomes an error at once, so that every request has the same five attempts, and the waits that
the Hub asks for are honoured up to a minute in total.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import count
from math import ceil
from time import sleep
from typing import Any, TypeVar

_T = TypeVar("_T")
_MAX_ATTEMPTS = 5
_MAX_WAIT = 60.0  # seconds of requested waits in an operation
_TRANSIENT_STATUSES = (408, 429, 500, 502, 503, 504)
_RATE_LIMIT = re.compile(r";\s*r\s*=\s*0\s*;\s*t\s*=\s*(\d{1,12})")


class TransientResponseError(Exception):
    """A response with a status that a later attempt may not get."""

    def __init__(self, response: Any) -> None:
        wait = requested_wait(response)
        asked = "" if wait is None else f" and asks to wait {ceil(wait / 60):,} minutes"
        super().__init__(f"the Hub answered with status {response.status_code}{asked}")
        self.response = response
        self.server_message = response.headers.get("X-Error-Message")  # named as in the client's own errors


@dataclass
class _Budget:
    log: Callable[[str], None]
    waited: float = 0.0


_BUDGET: ContextVar[_Budget] = ContextVar("budget")


@contextmanager
def retry_budget(log: Callable[[str], None]) -> Iterator[None]:
    """Context manager that bounds all retries in its body; ``log`` replaces the client's own messages about them."""
    from huggingface_hub.utils.logging import get_verbosity, set_verbosity

    outer, verbosity = _BUDGET.set(_Budget(log)), get_verbosity()
    if verbosity == logging.WARNING:
        set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        _BUDGET.reset(outer)
        set_verbosity(verbosity)


def with_retries(request: Callable[[], _T]) -> _T:
    """Return the result of ``request``, after up to five attempts; raise its last error unchanged.

    It needs a surrounding :func:`retry_budget`, and a request that may be sent twice.
    """
    budget = _BUDGET.get()
    for attempt in count(1):
        try:
            with _transient_responses_raise():
                return request()
        except Exception as error:
            response = response_of(error)
            requested = (response is not None and requested_wait(response)) or 0.0
            budget.waited += requested
            if attempt == _MAX_ATTEMPTS or budget.waited > _MAX_WAIT or not is_transient(error):
                raise
            wait = requested or 2.0 ** (attempt - 1)
            fault = "cut the connection" if response is None else f"answered with status {response.status_code}"
            budget.log(f"the Hub {fault}; trying again in {wait:.0f} seconds (attempt {attempt} of {_MAX_ATTEMPTS})")
            sleep(wait)
    raise AssertionError("unreachable")


@contextmanager
def _transient_responses_raise() -> Iterator[None]:
    from huggingface_hub import get_session

    hooks = get_session().event_hooks["response"]
    hooks.append(_raise_if_transient)
    try:
        yield
    finally:
        hooks.remove(_raise_if_transient)


def _raise_if_transient(response: Any) -> None:
    if response.status_code in _TRANSIENT_STATUSES:
        raise TransientResponseError(response)


def requested_wait(response: Any) -> float | None:
    """Return the seconds that a response requests to wait, by ``RateLimit`` or ``Retry-After``."""
    limit = _RATE_LIMIT.search(response.headers.get("RateLimit", ""))
    limit = limit or re.match(r"(\d{1,12})", response.headers.get("Retry-After", ""))
    return float(limit[1]) if limit else None


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
