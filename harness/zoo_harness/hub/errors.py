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
from contextlib import contextmanager
from pathlib import Path

from zoo.errors import HubError, UnreachableError, WeightsError, ZooError
from zoo_harness.hub.names import RepositoryReference
from zoo_harness.hub.retry import RetriesExhaustedError, causes, has_type, lost_connection, status_of

_LOGIN = "set HF_TOKEN to a token of yours, or log in with: hf auth login"
_MIN_TOKEN_LENGTH = 8  # a shorter text is no token, and would match in the middle of words
_TOKEN = re.compile(r"\b(?:hf|api_org)_[A-Za-z0-9]{8,}|(?i:bearer\s+)\S+")

# Code and explanation of statuses that mean the same whatever was requested.
_BY_STATUS = {
    409: ("conflict", "another change is in progress there; try again"),
    412: ("changed", "somebody else has changed it meanwhile, and nothing was overwritten; run the same command again"),
    429: ("rate-limit", "too many requests; wait some minutes and try again"),
    511: ("login-page", "the network requires a login; open any page in a browser, and try again"),
}


class NotAHubError(Exception):
    """A response that no Hub sends: from a login page, a proxy or another server."""


@contextmanager
def translate_hub_errors(action: str, reference: RepositoryReference) -> Iterator[None]:
    """Context manager that turns the errors of the Hub's client into a :class:`~zoo.errors.ZooError`.

    ``action`` completes "cannot ...". Errors of blockzoo pass unchanged. The original error stays attached for
    ``--debug`` unless its text contains a token.
    """
    try:
        yield
    except ZooError:
        raise
    except Exception as error:
        translated = _translated(action, reference, error)
        if translated is None:
            raise
        text = "".join(traceback.format_exception(error))
        raise translated from (error if without_tokens(text) == text else None)


def without_tokens(text: str) -> str:
    """Replace every token of the Hub in a text, including the user's own token of any form.

    >>> without_tokens("refused: hf_abcdefgh12345678")
    'refused: (a token)'
    """
    own = _own_token()
    return _TOKEN.sub("(a token)", text.replace(own, "(a token)") if len(own) >= _MIN_TOKEN_LENGTH else text)


def first_line(error: BaseException) -> str:
    """Return the first line of the original cause of an error, without tokens."""
    *_, first = causes(error)
    lines = (line.strip() for line in str(first).splitlines() if line.strip())
    return without_tokens(next(lines, type(first).__name__))[:300]


def _own_token() -> str:
    # Not huggingface_hub.get_token, which may request a new one over the network.
    from huggingface_hub import constants

    if given := os.environ.get("HF_TOKEN") or os.environ.get("HUGGING_FACE_HUB_TOKEN"):
        return given.strip()
    try:
        return Path(constants.HF_TOKEN_PATH).read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _translated(action: str, reference: RepositoryReference, error: Exception) -> ZooError | None:
    if "Consistency check failed" in str(error):  # the client's own check of a download's size
        return WeightsError(
            f"{reference}: a file is not the one that the Hub lists: {first_line(error)}; nothing was kept, try again"
        )
    if action == "fetch" and has_type(error, "OfflineModeIsEnabled"):
        tried = [("Hub", "HF_HUB_OFFLINE is set")]
        return UnreachableError(str(reference), tried, "unset HF_HUB_OFFLINE (or TRANSFORMERS_OFFLINE)")
    status = status_of(error)
    found = _without_response(action, error) if status is None else _refusal(action, reference, status, error)
    if found is None:
        return None
    code, explanation = found
    text = f"cannot {action} {reference}: {explanation}{_server_message(error)}"
    return HubError(text, repository=reference.id, status=status, code=code)


def _without_response(action: str, error: Exception) -> tuple[str, str] | None:
    """Return code and explanation of an error that no HTTP status caused, ``None`` for a bug."""
    from huggingface_hub import constants

    if has_type(error, "OfflineModeIsEnabled"):
        return "offline", "HF_HUB_OFFLINE is set; unset HF_HUB_OFFLINE (or TRANSFORMERS_OFFLINE)"
    if lost_connection(error):
        advice = "check the network and HF_ENDPOINT, and try again"
        advice += "; uploaded files are not uploaded again" if action.startswith("publish") else ""
        return "no-connection", f"no connection to the Hub ({first_line(error)}); {advice}"
    if _is_foreign_response(error):
        advice = "check HF_ENDPOINT, and whether a login page or a proxy of the network answers instead"
        server = without_tokens(constants.ENDPOINT)[:100]
        return "not-a-hub", (
            f"{server} is not a Hugging Face Hub ({first_line(error)}); {advice} (HF_HUB_OFFLINE=1 uses the cache)"
        )
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        file = str(error.filename or "")
        disk = "give" if file and not file.startswith(str(constants.HF_HUB_CACHE)) else "set HF_HOME to"
        return "disk-full", f"the disk is full{file and f': {file}'}; make room, or {disk} a folder on another disk"
    return ("other", first_line(error)) if isinstance(error, OSError | ValueError | RuntimeError) else None


def _is_foreign_response(error: Exception) -> bool:
    if has_type(error, "NotAHubError", "JSONDecodeError", "FileMetadataError"):
        return True
    # The client reads fields of a response without a check, and fails at a missing one.
    frames = list(traceback.walk_tb(error.__traceback__))
    module = frames[-1][0].f_globals.get("__name__", "") if frames else ""
    return isinstance(error, KeyError | TypeError | AttributeError) and module.startswith("huggingface_hub.")


def _refusal(action: str, reference: RepositoryReference, status: int, error: Exception) -> tuple[str, str]:
    """Return code and explanation of a response with an error status."""
    if has_type(error, "GatedRepoError"):
        return "gated", "it is gated; ask for access on its page on the Hub, and use the token of that account"
    if has_type(error, "RevisionNotFoundError"):
        revision = reference.revision or "main"
        return "no-revision", f"it has no revision {revision!r}; its page on the Hub lists branches and tags"
    if status == 404 and has_type(error, "EntryNotFoundError"):
        return "no-file", "a listed file is missing there; try again"
    if "Invalid metadata in README.md" in str(error):
        return "invalid-card", "the front matter of the card (README.md) is refused"
    if status == 401 and not _own_token():
        return "not-found", f"there is no such repository, or it is private and no token was found; {_LOGIN}"
    if status == 401 and not has_type(error, "RepositoryNotFoundError"):
        return "invalid-token", f"the token is not valid (any more); {_LOGIN}"
    if status in (401, 404):
        return "not-found", "there is no such repository, or it is private and the token has no access to it"
    if refused := [one for one in causes(error) if isinstance(one, RetriesExhaustedError) and one.wait is not None]:
        return "wait", f"{refused[0]}; try again after that"
    if status == 403:
        verb, alternative = (
            ("write to", "--create-pr if the repository exists")
            if action.startswith("publish")
            else ("read from", "none if the repository is public")
        )
        right = f"use one with that right (a fine-grained token has to name it), or {alternative}"
        return "forbidden", f"the token may not {verb} {reference.owner!r}; {right}"
    if status >= 500 and status not in _BY_STATUS:
        return "server-error", f"the Hub is out of order (status {status}) after several attempts; try again later"
    return _BY_STATUS.get(status, ("other", f"the Hub answered with status {status}"))


def _server_message(error: BaseException) -> str:
    messages = (getattr(one, "server_message", None) for one in causes(error))
    words = next((message for message in messages if isinstance(message, str)), "").split()
    return f" (the Hub says: {without_tokens(' '.join(words))[:300]})" if words else ""
