"""Says in plain words what the Hub refuses or cannot do, and what to do about it; never shows a token.

What the Hub's client raises is told by its HTTP status and the Hub's own error code, since one class of its serves many
causes and the Hub does not say whether a repository is missing or private.
"""

from __future__ import annotations

import errno
import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from zoo.errors import HubError, UnreachableError, ZooError
from zoo_harness.hub.names import RepositoryReference
from zoo_harness.hub.retry import and_asks_to_wait, chain, lost_connection, status_of, wait_asked_in_vain

_LOGIN = "set HF_TOKEN to a token of yours, or log in with: hf auth login"
_READING = ("fetch", "look at")
_SHORTEST_TOKEN = 8
_TOKEN = re.compile(r"\b(?:hf|api_org)_[A-Za-z0-9]{8,}|(?i:bearer\s+)\S+")


class NotAHubError(Exception):
    """What answers is no Hub: a login page of a network, a proxy, another server."""


@contextmanager
def told_plainly(doing: str, reference: RepositoryReference) -> Iterator[None]:
    """Turn whatever the Hub's client raises in the body into a :class:`~zoo.errors.ZooError`.

    ``doing`` completes "cannot ...". Our own errors pass. What led to the error stays for ``--debug``, unless the
    token is in it.
    """
    try:
        yield
    except ZooError:
        raise
    except Exception as error:
        told = _told(doing, reference, error)
        if told is None:
            raise
        raise told from (None if _shows_a_token(error) else error)


def without_tokens(text: str) -> str:
    """The text with every token of the Hub left out, the user's own whatever it looks like.

    >>> without_tokens("refused: hf_abcdefgh12345678")
    'refused: (a token)'
    """
    own = _own_token()
    # What is shorter is no token, and would be found in the middle of words.
    return _TOKEN.sub("(a token)", text.replace(own, "(a token)") if own and len(own) >= _SHORTEST_TOKEN else text)


def _own_token() -> str | None:
    # Not huggingface_hub.get_token, which may ask the network for a fresh one.
    import os

    given = os.environ.get("HF_TOKEN") or os.environ.get("HUGGING_FACE_HUB_TOKEN") or _saved_token()
    return given.strip() or None if given else None


def _saved_token() -> str | None:
    from pathlib import Path

    from huggingface_hub import constants

    try:
        return Path(constants.HF_TOKEN_PATH).read_text().strip() or None
    except (OSError, UnicodeDecodeError):
        return None


def _shows_a_token(error: BaseException) -> bool:
    told = "".join(traceback.format_exception(error))
    return without_tokens(told) != told


def _told(doing: str, reference: RepositoryReference, error: Exception) -> ZooError | None:
    if has(error, "OfflineModeIsEnabled"):
        advice = "unset HF_HUB_OFFLINE (or TRANSFORMERS_OFFLINE)"
        if doing != "fetch":  # there is no cache to look into
            return HubError(f"cannot {doing} {reference}: HF_HUB_OFFLINE is set; {advice}")
        return UnreachableError(str(reference), [("Hub", "HF_HUB_OFFLINE is set")], advice)
    status = status_of(error)
    if status is not None:
        because = _because(doing, reference, status, error)
        said = _what_the_hub_said(error)
        return HubError(f"cannot {doing} {reference}: {because}" + (f" (the Hub says: {said})" if said else ""))
    if lost_connection(error):
        sent = ": what has been sent is not sent twice" if doing.startswith("publish") else ""
        advice = f"check the network and HF_ENDPOINT, and try again{sent}"
        return HubError(f"cannot {doing} {reference}: no connection to the Hub ({first_line(error)}); {advice}")
    if _is_no_hubs_answer(error):
        return HubError(
            f"cannot {doing} {reference}: {_endpoint()} answers, but not as a Hub does ({first_line(error)}); check "
            "HF_ENDPOINT, and whether your network has a login page or a proxy that answers in its place "
            "(HF_HUB_OFFLINE=1 uses what is cached)"
        )
    return _told_without_answer(doing, reference, error)


def _is_no_hubs_answer(error: Exception) -> bool:
    from json import JSONDecodeError

    if isinstance(error, NotAHubError | JSONDecodeError) or has(error, "FileMetadataError"):
        return True
    # The client takes answers for what the Hub would send, and stumbles upon what is missing there.
    frames = list(traceback.walk_tb(error.__traceback__))
    where = frames[-1][0].f_globals.get("__name__", "") if frames else ""
    return isinstance(error, KeyError | TypeError | AttributeError) and where.startswith("huggingface_hub.")


def _endpoint() -> str:
    from huggingface_hub import constants

    return without_tokens(constants.ENDPOINT)[:100]


def _told_without_answer(doing: str, reference: RepositoryReference, error: Exception) -> ZooError | None:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        place = f": {error.filename}" if error.filename else ""
        return HubError(f"cannot {doing} {reference}: the disk is full{place}; make room, or {_another_disk(error)}")
    if isinstance(error, OSError | ValueError | RuntimeError):
        return HubError(f"cannot {doing} {reference}: {first_line(error)}")
    return None  # a bug, of ours or theirs


def _another_disk(error: OSError) -> str:
    from huggingface_hub import constants

    in_cache = error.filename is None or str(error.filename).startswith(str(constants.HF_HUB_CACHE))
    return "set HF_HOME to a folder on another disk" if in_cache else "give a folder on another disk"


def _because(doing: str, reference: RepositoryReference, status: int, error: Exception) -> str:
    if has(error, "GatedRepoError"):
        return "it is gated; ask for access on its page on the Hub, and use the token of the account that was given it"
    if has(error, "RevisionNotFoundError"):
        return f"it has no revision {reference.revision or 'main'!r}; its page on the Hub lists branches and tags"
    # Where the client was refused a file, it says that the file is not in its cache.
    if status == 404 and has(error, "RemoteEntryNotFoundError", "EntryNotFoundError"):
        return "a file that it lists is not there; try again"
    if "Invalid metadata in README.md" in str(error):
        return "the front matter of the card (README.md) is refused"
    if status == 401 and _own_token() is not None and not has(error, "RepositoryNotFoundError"):
        return f"the token is not valid (any more); {_LOGIN}"
    if status == 401 and _own_token() is None:
        return f"there is no such repository, or it is private and no token was found; {_LOGIN}"
    if status in (401, 404):
        return "there is no such repository, or it is private and the token is not of a member (or not valid)"
    seconds = wait_asked_in_vain(error)
    if seconds is not None:
        return f"it answers with status {status}{and_asks_to_wait(seconds)}; try again after that"
    return _because_of_the_server(doing, reference, status)


def _because_of_the_server(doing: str, reference: RepositoryReference, status: int) -> str:
    match status:
        case 403 if doing in _READING:
            return (
                f"the token may not read it; use one that may read from {reference.owner!r} (a fine-grained token "
                "has to name it), or none where the repository is public"
            )
        case 403:
            return (
                f"the token may not do that in {reference.owner!r}; use one of a member that has the right to write, "
                "or --create-pr where the repository is there already"
            )
        case 409:
            return "another change is being made there; try again"
        case 412:
            return "somebody else has changed it meanwhile, and nothing was overwritten; run the same command again"
        case 429:
            return "too many requests; wait some minutes and try again"
        case 511:
            return "your network wants a login first; open any page in a browser, and try again"
        case _ if status >= 500:
            return f"the Hub is out of order (status {status}) and was asked several times; try again later"
        case _:
            return f"the Hub answered with status {status}"


def has(error: BaseException, *names: str) -> bool:
    """Whether an error, or one that led to it, is of a class of one of these names."""
    return any(kind.__name__ in names for one in chain(error) for kind in type(one).__mro__)


def _what_the_hub_said(error: BaseException) -> str:
    messages = (getattr(one, "server_message", None) for one in chain(error))
    said = next((message for message in messages if isinstance(message, str)), "")
    return without_tokens(" ".join(said.split()))[:300]


def first_line(error: BaseException) -> str:
    """What an error was in the first place, in one line without tokens."""
    *_, first = chain(error)
    words = next((line for line in str(first).splitlines() if line.strip()), type(first).__name__)
    return without_tokens(words.strip())[:300]
