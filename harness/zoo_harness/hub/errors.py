"""Translate errors of the Hub's client into error messages with a cause and advice, without revealing a token.

The HTTP status and the Hub's error code determine the message, because one error class of the client has many causes.
The Hub does not reveal whether a repository is missing or private.
"""

from __future__ import annotations

import errno
import os
import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from math import ceil
from pathlib import Path
from typing import Any

from zoo.errors import HubError, ZooError
from zoo_harness.hub.names import RepositoryReference

TRANSIENT_STATUSES = (408, 429, 500, 502, 503, 504)

_LOGIN = "set HF_TOKEN to your token, or log in with: hf auth login"
_MIN_TOKEN_LENGTH = 8  # shorter text is not a token, and could match parts of words
_XET_STATUS = re.compile(r"HTTP status (?:client|server) error \((\d{3})\b")
_TOKEN = re.compile(r"\b(?:hf|api_org)_[A-Za-z0-9]{8,}|(?i:bearer\s+)\S+")
_RATE_LIMIT = re.compile(r";\s*r\s*=\s*0\s*;\s*t\s*=\s*(\d{1,12})")

# Error code and explanation of HTTP statuses whose meaning does not depend on the request.
_BY_STATUS = {
    401: ("invalid-token", f"the token is invalid or has expired; {_LOGIN}"),
    409: ("conflict", "another change of the repository is in progress; try again"),
    412: (
        "changed",
        "somebody else has changed the repository meanwhile; zoo overwrote nothing; run the command again",
    ),
    429: ("rate-limit", "too many requests; wait some minutes and try again"),
    511: ("login-page", "the network requires a login; open any page in a browser, and try again"),
}


class NotAHubError(Exception):
    """Report a response that a Hub never sends, for example from a login page or a proxy."""


class TransientResponseError(Exception):
    """Report a response with a transient error status, so a later attempt may succeed."""

    def __init__(self, response: Any) -> None:
        wait = requested_wait(response)
        asked = "" if wait is None else f" and asks to wait {ceil(wait / 60):,} minutes"
        super().__init__(f"the Hub answered with status {response.status_code}{asked}")
        self.response = response
        self.server_message = response.headers.get("X-Error-Message")  # a name of the client's errors


@contextmanager
def translate_hub_errors(action: str, reference: RepositoryReference) -> Iterator[None]:
    """Convert errors of the Hub's client in the ``with`` block to :class:`~zoo.errors.HubError`.

    ``action`` completes the phrase "cannot ..." of the message. Errors of blockzoo pass unchanged. The original error
    stays attached for ``--debug`` unless its text contains a token.
    """
    try:
        yield
    except ZooError:
        raise
    except Exception as error:
        response = response_of(error)
        found = _without_response(error) if response is None else _refusal(action, reference, response, error)
        if found is None:
            raise
        code, explanation = found
        message = f"cannot {action} {reference}: {explanation}{_server_message(error)}"
        status = None if response is None else int(response.status_code)
        text = "".join(traceback.format_exception(error))
        raise HubError(message, repository=reference.id, status=status, code=code) from (
            error if without_tokens(text) == text else None
        )


def without_tokens(text: str) -> str:
    """Replace every Hub token in a text by "(a token)", including the user's own token in any format.

    >>> without_tokens("refused: hf_abcdefgh12345678")
    'refused: (a token)'
    """
    own = _own_token()
    return _TOKEN.sub("(a token)", text.replace(own, "(a token)") if len(own) >= _MIN_TOKEN_LENGTH else text)


def first_line(error: BaseException) -> str:
    """Return the first line of the message of an error's original cause, without tokens."""
    *_, first = _causes(error)
    lines = (line.strip() for line in str(first).splitlines() if line.strip())
    return without_tokens(next(lines, type(first).__name__))[:300]


def requested_wait(response: Any) -> float | None:
    """Return the waiting time in seconds that the header ``RateLimit`` or ``Retry-After`` of a response requests."""
    limit = _RATE_LIMIT.search(response.headers.get("RateLimit", ""))
    limit = limit or re.match(r"(\d{1,12})", response.headers.get("Retry-After", ""))
    return float(limit[1]) if limit else None


def is_transient(error: BaseException) -> bool:
    """Whether an error is temporary: a rate limit, a server error, a lost connection or a timeout."""
    response = response_of(error)
    status = xet_status(error) if response is None else response.status_code
    return _lost_connection(error) if status is None else status in TRANSIENT_STATUSES


def response_of(error: BaseException) -> Any:
    """Return the HTTP response that caused an error, or ``None`` if no response did."""
    responses = (getattr(one, "response", None) for one in _causes(error))
    return next((response for response in responses if response is not None), None)


def xet_status(error: BaseException) -> int | None:
    """Extract the HTTP status from an error message of ``hf_xet``, which reports every failure as a network error.

    >>> xet_status(ConnectionError("Network error: HTTP status client error (404 Not Found), domain: http://hub"))
    404
    """
    found = [_XET_STATUS.search(str(one)) for one in _causes(error) if isinstance(one, OSError | RuntimeError)]
    return next((int(match[1]) for match in found if match), None)


def has_type(error: BaseException, *names: str) -> bool:
    """Whether an error or one of its causes has a class with one of these names.

    Class names are compared because releases of the client use different HTTP libraries with equal class names.
    """
    return any(kind.__name__ in names for one in _causes(error) for kind in type(one).__mro__)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and then its chain of explicit causes."""
    while error is not None:
        yield error
        error = error.__cause__  # not __context__, which may belong to an earlier attempt


def _lost_connection(error: BaseException) -> bool:
    lost = has_type(error, "TransportError", "ConnectionError", "TimeoutError")
    return lost and not has_type(error, "OfflineModeIsEnabled")


def refuse_unusable_token(action: str, reference: RepositoryReference) -> None:
    """Raise :class:`~zoo.errors.HubError` if the user's token has non-ASCII characters, which HTTP headers forbid."""
    if not _own_token().isascii():
        message = (
            f"cannot {action} {reference}: the token has characters that are not ASCII; copy it again, or {_LOGIN}"
        )
        raise HubError(message, repository=reference.id, status=None, code="invalid-token")


def _own_token() -> str:
    # Do not call huggingface_hub.get_token, which may request a new token over the network.
    from huggingface_hub import constants

    token = os.environ.get("HF_TOKEN") or os.environ.get("HUGGING_FACE_HUB_TOKEN") or ""
    with suppress(OSError, UnicodeDecodeError):
        token = token or Path(constants.HF_TOKEN_PATH).read_text()
    return token.strip()


def _without_response(error: Exception) -> tuple[str, str] | None:
    """Return error code and explanation for an error without an HTTP response, or ``None`` for a bug."""
    from huggingface_hub import constants

    if has_type(error, "OfflineModeIsEnabled"):
        return "offline", "HF_HUB_OFFLINE is set; unset HF_HUB_OFFLINE (or TRANSFORMERS_OFFLINE)"
    if (status := xet_status(error)) is not None:
        return "xet", f"the Xet storage answered with status {status}; set HF_HUB_DISABLE_XET=1"
    if _lost_connection(error):
        advice = "check the network and HF_ENDPOINT, and try again; zoo does not send uploaded files twice"
        return "no-connection", f"no connection to the Hub ({first_line(error)}); {advice}"
    if has_type(error, "NotAHubError", "JSONDecodeError", "FileMetadataError"):
        server = without_tokens(constants.ENDPOINT)[:100]
        advice = "check HF_ENDPOINT, and check whether the network has a login page or a proxy"
        return "not-a-hub", f"{server} is not a Hugging Face Hub ({first_line(error)}); {advice}"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            "disk-full",
            f"the disk is full: {error.filename}; free some space, or set HF_HOME to a folder on another disk",
        )
    return ("other", first_line(error)) if isinstance(error, OSError | ValueError | RuntimeError) else None


def _refusal(action: str, reference: RepositoryReference, response: Any, error: Exception) -> tuple[str, str]:
    """Return error code and explanation for a response with an error status."""
    status = int(response.status_code)
    if has_type(error, "GatedRepoError"):
        return "gated", "the repository is gated; request access on its Hub page, and use the token of the same account"
    if has_type(error, "RevisionNotFoundError"):
        revision = reference.revision or "main"
        return "no-revision", f"the repository has no revision {revision!r}; its Hub page lists branches and tags"
    if "Invalid metadata in README.md" in str(error):
        return "invalid-card", "the Hub refused the front matter of the card (README.md)"
    if status == 401 and not _own_token():
        return "not-found", f"the repository does not exist, or it is private and no token was found; {_LOGIN}"
    if has_type(error, "RepositoryNotFoundError"):
        return "not-found", "the repository does not exist, or it is private and the token has no access"
    if requested_wait(response) is not None:
        return "wait", f"{TransientResponseError(response)}; try again after that"
    if status == 403:
        verb, alternative = ("read from", "") if action == "fetch" else ("write to", ", or --create-pr")
        return "forbidden", f"the token may not {verb} {reference.owner!r}; use a token with that right{alternative}"
    if status == 501:
        alternative = "" if action == "fetch" else "; omit --create-pr if you gave that option"
        return "not-supported", f"this Hub does not support the request (status 501){alternative}"
    if status in TRANSIENT_STATUSES and status not in _BY_STATUS:
        return "server-error", f"the Hub still fails (status {status}) after several attempts; try again later"
    return _BY_STATUS.get(status, ("other", f"the Hub answered with status {status}"))


def _server_message(error: BaseException) -> str:
    messages = (getattr(one, "server_message", None) for one in _causes(error))
    words = next((message for message in messages if isinstance(message, str)), "").split()
    return f" (the Hub says: {without_tokens(' '.join(words))[:300]})" if words else ""
