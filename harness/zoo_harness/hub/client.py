"""Send requests to the Hugging Face Hub with its Python client, and retry failed requests a limited number of times.

huggingface_hub itself retries some requests without a time limit, and other requests never. This module turns every
response with a transient error status into an exception immediately. Every request is therefore sent at most
five times. If the Hub asks for a wait, the client waits, but at most one minute in total for each operation.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import count
from time import sleep
from typing import TYPE_CHECKING, Any, TypeVar

from zoo_harness.hub.errors import (
    TRANSIENT_STATUSES,
    TransientResponseError,
    is_transient,
    refuse_unusable_token,
    requested_wait,
    response_of,
    translate_hub_errors,
)
from zoo_harness.hub.names import RepositoryReference

if TYPE_CHECKING:
    from huggingface_hub import HfApi

Say = Callable[[str], None]
_T = TypeVar("_T")
_MAX_ATTEMPTS = 5
_MAX_WAIT = 60.0  # seconds; limit for the total of the waits that the Hub requests in one operation


def client() -> HfApi:
    """Create the Hub's client, which reads the token from ``HF_TOKEN`` or from the Hub's login file."""
    from huggingface_hub import HfApi

    from zoo._version import __version__

    return HfApi(library_name="blockzoo", library_version=__version__)


@dataclass
class Retries:
    """Retry the requests of one operation on the Hub; ``log`` receives one line of text for each retry."""

    log: Say
    waited: float = 0.0

    def __call__(self, request: Callable[[], _T]) -> _T:
        """Send an idempotent request and return the result; after five attempts raise the last error unchanged."""
        for attempt in count(1):
            try:
                with _transient_responses_raise():
                    return request()
            except Exception as error:
                response = response_of(error)
                requested = (response is not None and requested_wait(response)) or 0.0
                self.waited += requested
                if attempt == _MAX_ATTEMPTS or self.waited > _MAX_WAIT or not is_transient(error):
                    raise
                wait = requested or 2.0 ** (attempt - 1)
                fault = "closed the connection" if response is None else f"answered with status {response.status_code}"
                self.log(f"the Hub {fault}; trying again in {wait:.0f} seconds (attempt {attempt} of {_MAX_ATTEMPTS})")
                sleep(wait)
        raise AssertionError("unreachable")


@contextmanager
def hub_operation(action: str, reference: RepositoryReference, say: Say) -> Iterator[Retries]:
    """Yield a :class:`Retries` object for requests to the Hub, and translate errors of the ``with`` block.

    The client's own messages about retries are hidden. The client's progress bars are hidden unless stderr is a
    terminal.
    """
    from huggingface_hub.utils.logging import get_verbosity, set_verbosity

    verbosity = get_verbosity()
    bars = nullcontext() if sys.stderr.isatty() else without_bars()
    refuse_unusable_token(action, reference)
    with translate_hub_errors(action, reference), bars:
        set_verbosity(logging.ERROR if verbosity == logging.WARNING else verbosity)
        try:
            yield Retries(say)
        finally:
            set_verbosity(verbosity)


@contextmanager
def without_bars() -> Iterator[None]:
    """Hide the progress bars of the Hub's client in the ``with`` block."""
    from huggingface_hub import utils

    were_on = not utils.are_progress_bars_disabled()  # type: ignore[attr-defined]  # re-exported without "as"
    utils.disable_progress_bars()  # type: ignore[attr-defined]
    try:
        yield
    finally:
        if were_on:
            utils.enable_progress_bars()  # type: ignore[attr-defined]


@contextmanager
def _transient_responses_raise() -> Iterator[None]:
    from huggingface_hub import get_session

    def check(response: Any) -> None:
        if response.status_code in TRANSIENT_STATUSES:
            raise TransientResponseError(response)

    hooks = get_session().event_hooks["response"]
    hooks.append(check)
    try:
        yield
    finally:
        hooks.remove(check)
