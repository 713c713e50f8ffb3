"""Translates the errors of the Hub's client into errors with a cause and advice; never shows a token.

The HTTP status and the Hub's error code decide: one error class of the client has many causes, and the Hub does not
say whether a repository is missing or private.
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

_LOGIN = "set HF_TOKEN to a token of yours, or log in with: hf auth login"
_MIN_TOKEN_LENGTH = 8  # a shorter text is no token, and would match in the middle of words
_XET_STATUS = re.compile(r"HTTP status (?:client|server) error \((\d{3})\b")
_TOKEN = re.compile(r"\b(?:hf|api_org)_[A-Za-z0-9]{8,}|(?i:bearer\s+)\S+")
_RATE_LIMIT = re.compile(r";\s*r\s*=\s*0\s*;\s*t\s*=\s*(\d{1,12})")

# Code and explanation of statuses that mean the same whatever was requested.
_BY_STATUS = {
    401: ("invalid-token", f"the token is not valid (any more); {_LOGIN}"),
    409: ("conflict", "another change is in progress there; try again"),
    412: ("changed", "somebody else has changed it meanwhile, and nothing was overwritten; run the same command again"),
    429: ("rate-limit", "too many requests; wait some minutes and try again"),
    511: ("login-page", "the network requires a login; open any page in a browser, and try again"),
}


class NotAHubError(Exception):
    """A response that no Hub sends: from a login page, a proxy or another server."""


class TransientResponseError(Exception):
    """A response with a status that a later attempt may not get."""

    def __init__(self, response: Any) -> None:
        wait = requested_wait(response)
        asked = "" if wait is None else f" and asks to wait {ceil(wait / 60):,} minutes"
        super().__init__(f"the Hub answered with status {response.status_code}{asked}")
        self.response = response
        self.server_message = response.headers.get("X-Error-Message")  # named as in the client's own errors


@contextmanager
def translate_hub_errors(action: str, reference: RepositoryReference) -> Iterator[None]:
    """Context manager that turns the errors of the Hub's client into a :class:`~zoo.errors.HubError`.

    ``action`` completes "cannot ...". Errors of blockzoo pass unchanged. The original error stays attached for
    ``--debug`` unless its text contains a token.
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
    """Replace every token of the Hub in a text, including the user's own token of any form.

    >>> without_tokens("refused: hf_abcdefgh12345678")
    'refused: (a token)'
    """
    own = _own_token()
    return _TOKEN.sub("(a token)", text.replace(own, "(a token)") if len(own) >= _MIN_TOKEN_LENGTH else text)


def first_line(error: BaseException) -> str:
    """Return the first line of the original cause of an error, without tokens."""
    *_, first = _causes(error)
    lines = (line.strip() for line in str(first).splitlines() if line.strip())
    return without_tokens(next(lines, type(first).__name__))[:300]


def requested_wait(response: Any) -> float | None:
    """Return the seconds that a response requests to wait, by ``RateLimit`` or ``Retry-After``."""
    limit = _RATE_LIMIT.search(response.headers.get("RateLimit", ""))
    limit = limit or re.match(r"(\d{1,12})", response.headers.get("Retry-After", ""))
    return float(limit[1]) if limit else None


def is_transient(error: BaseException) -> bool:
    """Whether a later attempt may succeed: rate limit, server fault, or no response (connection lost, timeout)."""
    response = response_of(error)
    status = xet_status(error) if response is None else response.status_code
    return _lost_connection(error) if status is None else status in TRANSIENT_STATUSES


def response_of(error: BaseException) -> Any:
    """Return the HTTP response that caused an error, ``None`` if there is none."""
    responses = (getattr(one, "response", None) for one in _causes(error))
    return next((response for response in responses if response is not None), None)


def xet_status(error: BaseException) -> int | None:
    """Return the HTTP status in the text of an error of ``hf_xet``, which calls every answer a lost connection.

    >>> xet_status(ConnectionError("Network error: HTTP status client error (404 Not Found), domain: http://hub"))
    404
    """
    found = [_XET_STATUS.search(str(one)) for one in _causes(error) if isinstance(one, OSError | RuntimeError)]
    return next((int(match[1]) for match in found if match), None)


def has_type(error: BaseException, *names: str) -> bool:
    """Whether an error or one of its causes has a class of one of these names.

    Names, because the client's HTTP library was renamed between releases, and its error classes kept their names.
    """
    return any(kind.__name__ in names for one in _causes(error) for kind in type(one).__mro__)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Iterate over an error and its explicit causes, latest first."""
    while error is not None:
        yield error
        error = error.__cause__  # not __context__, which may be an earlier attempt


def _lost_connection(error: BaseException) -> bool:
    lost = has_type(error, "TransportError", "ConnectionError", "TimeoutError")
    return lost and not has_type(error, "OfflineModeIsEnabled")


def refuse_unusable_token(action: str, reference: RepositoryReference) -> None:
    """Raise :class:`~zoo.errors.HubError` if the user's token has characters that no request can carry."""
    if not _own_token().isascii():
        message = (
            f"cannot {action} {reference}: the token has characters that are not ASCII; copy it again, or {_LOGIN}"
        )
        raise HubError(message, repository=reference.id, status=None, code="invalid-token")


def _own_token() -> str:
    # Not huggingface_hub.get_token, which may request a new one over the network.
    from huggingface_hub import constants

    token = os.environ.get("HF_TOKEN") or os.environ.get("HUGGING_FACE_HUB_TOKEN") or ""
    with suppress(OSError, UnicodeDecodeError):
        token = token or Path(constants.HF_TOKEN_PATH).read_text()
    return token.strip()


def _without_response(error: Exception) -> tuple[str, str] | None:
    """Return code and explanation of an error that no HTTP status caused, ``None`` for a bug."""
    from huggingface_hub import constants

    if has_type(error, "OfflineModeIsEnabled"):
        return "offline", "HF_HUB_OFFLINE is set; unset HF_HUB_OFFLINE (or TRANSFORMERS_OFFLINE)"
    if (status := xet_status(error)) is not None:
        return "xet", f"its Xet storage answered with status {status}; set HF_HUB_DISABLE_XET=1 to do without it"
    if _lost_connection(error):
        advice = "check the network and HF_ENDPOINT, and try again; uploaded files are not uploaded again"
        return "no-connection", f"no connection to the Hub ({first_line(error)}); {advice}"
    if has_type(error, "NotAHubError", "JSONDecodeError", "FileMetadataError"):
        server = without_tokens(constants.ENDPOINT)[:100]
        advice = "check HF_ENDPOINT, and whether a login page or a proxy of the network answers instead"
        return "not-a-hub", f"{server} is not a Hugging Face Hub ({first_line(error)}); {advice}"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "disk-full", f"the disk is full: {error.filename}; make room, or set HF_HOME to a folder on another disk"
    return ("other", first_line(error)) if isinstance(error, OSError | ValueError | RuntimeError) else None


def _refusal(action: str, reference: RepositoryReference, response: Any, error: Exception) -> tuple[str, str]:
    """Return code and explanation of a response with an error status."""
    status = int(response.status_code)
    if has_type(error, "GatedRepoError"):
        return "gated", "it is gated; ask for access on its page on the Hub, and use the token of that account"
    if has_type(error, "RevisionNotFoundError"):
        revision = reference.revision or "main"
        return "no-revision", f"it has no revision {revision!r}; its page on the Hub lists branches and tags"
    if "Invalid metadata in README.md" in str(error):
        return "invalid-card", "the front matter of the card (README.md) is refused"
    if status == 401 and not _own_token():
        return "not-found", f"there is no such repository, or it is private and no token was found; {_LOGIN}"
    if has_type(error, "RepositoryNotFoundError"):
        return "not-found", "there is no such repository, or it is private and the token has no access to it"
    if requested_wait(response) is not None:
        return "wait", f"{TransientResponseError(response)}; try again after that"
    if status == 403:
        verb, alternative = ("read from", "") if action == "fetch" else ("write to", ", or --create-pr")
        return "forbidden", f"the token may not {verb} {reference.owner!r}; use one with that right{alternative}"
    if status == 501:
        alternative = "" if action == "fetch" else "; leave --create-pr out, if you gave it"
        return "not-supported", f"this Hub does not support the request (status 501){alternative}"
    if status in TRANSIENT_STATUSES and status not in _BY_STATUS:
        return "server-error", f"the Hub is out of order (status {status}) after several attempts; try again later"
    return _BY_STATUS.get(status, ("other", f"the Hub answered with status {status}"))


def _server_message(error: BaseException) -> str:
    messages = (getattr(one, "server_message", None) for one in _causes(error))
    words = next((message for message in messages if isinstance(message, str)), "").split()
    return f" (the Hub says: {without_tokens(' '.join(words))[:300]})" if words else ""
