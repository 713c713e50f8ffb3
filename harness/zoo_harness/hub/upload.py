"""Upload the files of a run to the Hugging Face Hub in one commit, and create a tag for the run.

The commit names its parent commit. The Hub therefore refuses the commit if somebody else has changed the repository
meanwhile. The Hub's client uploads only files that the Hub lacks, so an interrupted upload resumes. ``upload_folder``
is not used, because with ``hf_xet`` it splits an upload into several commits.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.errors import HubError
from zoo_harness.hub.client import Retries, Say, client, hub_operation
from zoo_harness.hub.errors import has_type, response_of, translate_hub_errors
from zoo_harness.hub.fetch import REQUEST_SECONDS, CommitListing, check_size, list_commit
from zoo_harness.hub.names import RepositoryReference
from zoo_harness.hub.publication import compare
from zoo_harness.records.file_names import CARD
from zoo_harness.records.run import RunRecord

if TYPE_CHECKING:
    from huggingface_hub import CommitInfo

_MAX_PULL_REQUESTS = 5


@dataclass(frozen=True)
class UploadResult:
    """Describe the result of an upload; ``commit`` is the repository's latest commit if no file changed."""

    repository: str
    url: str
    commit: str
    tag: str | None
    pull_request: str | None
    changed: bool


def inspect_repository(reference: RepositoryReference, say: Say = lambda _line: None) -> CommitListing | None:
    """Return the latest commit of a repository with its card, or ``None`` if the repository does not exist.

    ``say`` receives one line of text for each retry. Raises :class:`~zoo.errors.HubError` if the Hub refuses the
    request or is unreachable.
    """
    from huggingface_hub import get_token

    with hub_operation("inspect", reference, say) as retried:
        try:
            listing = retried(lambda: list_commit(reference))
        except Exception as error:
            # Without a token, the Hub also reports private repositories as missing.
            missing = has_type(error, "RepositoryNotFoundError") and response_of(error).status_code in (401, 404)
            if missing and get_token():
                return None
            raise
        if CARD not in listing.files:
            return listing
        check_size(reference, CARD, listing.files[CARD])
        card = retried(lambda: client().hf_hub_download(reference.id, CARD, revision=listing.commit))
        return replace(listing, card=Path(card).read_bytes().decode())


def require_token() -> None:
    """Raise :class:`~zoo.errors.HubError` if no Hub token is configured."""
    from huggingface_hub import get_token

    if not get_token():
        raise HubError(
            "no token for the Hub: set HF_TOKEN to a token with write access (see Settings, Access Tokens on the Hub), "
            "or log in with: hf auth login",
            code="no-token",
        )


def tag_of(record: RunRecord) -> str:
    """Return the git tag for a run: start time and first digits of the checkpoint's SHA-256."""
    started = re.sub(r"[^0-9T]", "", record.started.partition("+")[0]).replace("T", "-")
    return f"run-{started}-{(record.checkpoint_sha256 or '')[:8]}"


def send_tree(
    tree: Path,
    reference: RepositoryReference,
    inspected: CommitListing | None,
    *,
    tag: str,
    message: str,
    private: bool = False,
    create_pr: bool = False,
    say: Say,
) -> UploadResult:
    """Upload the files of ``tree`` to a Hub repository in one commit with a tag; create a missing repository.

    ``inspected``: the result of :func:`inspect_repository`. With ``create_pr``, the commit becomes a pull request
    without a tag. Raises :class:`~zoo.errors.HubError` if the Hub refuses the request, or if somebody else has changed
    the repository since :func:`inspect_repository` was called.
    """
    url = f"{client().endpoint}/{reference.id}"
    with hub_operation("publish to", reference, say) as retried:
        before = inspected or _create_repository(reference, retried, private=private, create_pr=create_pr)
        if private and before.private is False:
            raise HubError(
                f"{reference.id} exists already and is public, so --private has no effect; change the visibility "
                "in its settings on the Hub, or omit --private",
                repository=reference.id,
                code="public",
            )
        commit, pull, made = retried(
            lambda: _commit_once(tree, reference, before, message, create_pr=create_pr, say=say)
        )
        if create_pr:
            pull_request = pull and f"{url}/discussions/{_number(pull)}"
            return UploadResult(reference.id, url, commit, None, pull_request, made)
        with translate_hub_errors(f"tag commit {commit} of", reference):
            retried(lambda: client().create_tag(reference.id, tag=tag, revision=commit, exist_ok=True))
        return UploadResult(reference.id, url, commit, tag, None, commit != before.commit)


def _create_repository(
    reference: RepositoryReference, retried: Retries, *, private: bool, create_pr: bool
) -> CommitListing:
    name = reference.id
    if create_pr:
        message = f"no such repository for a pull request: {name}; omit --create-pr to create the repository"
        raise HubError(message, repository=name, code="not-found")
    # private=None uses the owner's default visibility, which may be private.
    retried(lambda: client().create_repo(name, private=private or None, exist_ok=True))
    listing = retried(lambda: list_commit(reference))
    if CARD in listing.files:  # zoo prepared its card without the text of this card
        message = f"somebody else has created {name} meanwhile; run the same command again"
        raise HubError(message, repository=name, code="changed")
    retried.log(f"created the {'private ' if listing.private else ''}repository {name}")
    return listing


def _commit_once(
    tree: Path, reference: RepositoryReference, before: CommitListing, message: str, *, create_pr: bool, say: Say
) -> tuple[str, str | None, bool]:
    """Commit the files of ``tree``, unless an earlier attempt already succeeded and only its response was lost.

    Return the commit id, the reference of the pull request, and whether this call created the commit.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete
    from huggingface_hub.constants import REGEX_COMMIT_OID

    current = list_commit(reference)
    listings: list[tuple[CommitListing, str | None]] = [(current, None)]
    if create_pr:
        listings += [(list_commit(reference, pull), pull) for pull in _newest_pull_requests(reference)]
    for listing, revision in listings:
        if all(change.state == "same" for change in compare(tree, listing.files)):
            return listing.commit, revision, False
    operations: list[CommitOperationAdd | CommitOperationDelete] = [
        CommitOperationDelete(change.path)
        if change.state == "deleted"
        else CommitOperationAdd(change.path, tree / change.path)
        for change in compare(tree, before.files)
    ]
    options = {"commit_message": message, "create_pr": create_pr}
    if REGEX_COMMIT_OID.fullmatch(before.commit):
        options["parent_commit"] = before.commit
    elif current.commit != before.commit and not create_pr:
        # The client accepts only parent ids of 40 digits. For a longer id, zoo itself compares the parent commit.
        text = f"somebody else has changed {reference.id} meanwhile; zoo overwrote nothing; try again"
        raise HubError(text, repository=reference.id, code="changed")
    made = _create_commit(reference, operations, options, say)
    return made.oid, made.pr_revision, True


def _create_commit(
    reference: RepositoryReference, operations: list[Any], options: dict[str, Any], say: Say
) -> CommitInfo:
    """Create a commit; use plain HTTP if the Hub has no Xet storage, because ``hf_xet`` would wait for a long time."""
    from huggingface_hub import constants

    xet: AbstractContextManager[None] = nullcontext()
    if (
        find_spec("hf_xet")
        and not constants.HF_HUB_DISABLE_XET
        and not _has_xet(reference, create_pr=options["create_pr"])
    ):
        say("the Hub offers no Xet storage; uploading by plain HTTP")
        xet = _without_xet()
    # Hide warnings about the card's front matter and about the client's HTTP library, which do not help users.
    with warnings.catch_warnings(action="ignore"), xet:
        made: CommitInfo = client().create_commit(reference.id, operations, **options)
    return made


def _has_xet(reference: RepositoryReference, *, create_pr: bool) -> bool:
    """Whether the Hub has Xet storage: request the address of the storage, and check the response."""
    from huggingface_hub import get_session
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]  # re-exported without "as"

    url = f"{client().endpoint}/api/models/{reference.id}/xet-write-token/main"
    query = {"create_pr": "1"} if create_pr else {}
    response = get_session().get(url, params=query, headers=build_hf_headers(), timeout=REQUEST_SECONDS)
    if response.status_code != 200:
        return False
    try:
        return "X-Xet-Cas-Url" in response.headers or "casUrl" in response.json()
    except (ValueError, TypeError):  # an HTML page instead of JSON
        return False


@contextmanager
def _without_xet() -> Iterator[None]:
    """Disable Xet in the ``with`` block, as HF_HUB_DISABLE_XET=1 does; the client reads the variable only at import."""
    from huggingface_hub import constants

    before = constants.HF_HUB_DISABLE_XET
    constants.HF_HUB_DISABLE_XET = True
    try:
        yield
    finally:
        constants.HF_HUB_DISABLE_XET = before


def _newest_pull_requests(reference: RepositoryReference) -> list[str]:
    pulls = client().list_repo_refs(reference.id, include_pull_requests=True).pull_requests or []
    return sorted((pull.ref for pull in pulls), key=_number, reverse=True)[:_MAX_PULL_REQUESTS]


def _number(pull: str) -> int:
    return int(pull.rsplit("/", 1)[-1])
