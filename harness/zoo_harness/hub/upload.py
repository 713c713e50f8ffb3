"""Uploads a published tree to the Hub: one commit on the inspected parent commit, and a tag for the run.

Because the commit names its parent, the Hub refuses it if somebody else has changed the repository meanwhile. The
client uploads no file that the Hub has already, so an interrupted upload resumes, and publishing a run again changes
nothing. If the response to a commit is lost, the repository's file list tells whether the commit was made.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.errors import HubError, ZooError
from zoo_harness.hub.errors import without_tokens
from zoo_harness.hub.fetch import MOST_OTHER_BYTES, CommitListing, ListedFile, Say, client, hub_operation, list_commit
from zoo_harness.hub.names import RepositoryReference
from zoo_harness.hub.publication import Change, State
from zoo_harness.hub.retry import has_type, is_transient, status_of, with_retries
from zoo_harness.records.file_names import CARD, CONFUSION, HISTORY, RECORD, is_published
from zoo_harness.records.run import RunRecord
from zoo_harness.util.digests import sha256_of

if TYPE_CHECKING:
    from huggingface_hub import CommitInfo

_MAX_PULL_REQUESTS = 5


@dataclass(frozen=True)
class RepositoryState:
    """A repository as it was inspected; ``head`` is its last commit, ``None`` if there is none yet.

    ``card`` is the text of its ``README.md``; ``plots`` are the plots that its record names.
    """

    reference: RepositoryReference
    exists: bool = False
    head: str | None = None
    private: bool | None = None
    files: dict[str, ListedFile] = field(default_factory=dict)
    card: str | None = None
    plots: tuple[str, ...] = ()
    tags: dict[str, str] = field(default_factory=dict)
    pull_requests: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class UploadPlan:
    """One commit on ``state``: the files of ``tree`` that differ from it, and stale files to delete."""

    tree: Path
    state: RepositoryState
    changes: list[Change]
    message: str

    @property
    def url(self) -> str:
        """The address of the repository."""
        return f"{client().endpoint}/{self.state.reference.id}"

    @property
    def published_commit(self) -> str | None:
        """The repository's last commit if it holds the tree already, else ``None``."""
        return self.state.head if all(change.state == "same" for change in self.changes) else None

    def is_done_in(self, listing: CommitListing) -> bool:
        """Whether a commit holds the tree and none of the stale files."""
        later = changes(self.tree, replace(self.state, files=listing.files))
        return all(change.state == "same" for change in later)


@dataclass(frozen=True)
class UploadResult:
    """The outcome of a publication; ``commit`` is the repository's last one if nothing had to change."""

    url: str
    commit: str
    changed: bool
    tag: str | None
    pull_request: str | None = None


def inspect_repository(reference: RepositoryReference, say: Say = lambda _line: None) -> RepositoryState:
    """Return the present state of a repository, and change nothing; ``say`` receives a line for each retry.

    Raises a :class:`~zoo.errors.ZooError` if the Hub does not tell.
    """
    with hub_operation("inspect", reference, say):
        return _inspect(reference)


def require_token() -> None:
    """Raise :class:`~zoo.errors.HubError` if the Hub's client finds no token."""
    from huggingface_hub import get_token

    if not get_token():
        raise HubError(
            "no token for the Hub: set HF_TOKEN to one that may write (made under Settings, Access Tokens on the Hub), "
            "or log in with: hf auth login",
            code="no-token",
        )


def tag_of(record: RunRecord) -> str:
    """Return the tag of a run: its start time and the first digits of its checkpoint's SHA-256."""
    started = re.sub(r"[^0-9T]", "", record.started.partition("+")[0]).replace("T", "-")
    return f"run-{started}-{(record.checkpoint_sha256 or '')[:8]}"


def changes(tree: Path, state: RepositoryState) -> list[Change]:
    """Compare a tree with a repository: each file of the tree, then the stale files of an earlier run."""
    found = [_change(path, state.files.get(path.name)) for path in sorted(tree.iterdir())]
    names = {change.path for change in found}
    # A person's own plots stay; files left of another run would be taken for this run's.
    ours = {HISTORY, CONFUSION, *state.plots}
    stale = sorted(name for name in state.files if name in ours and is_published(name) and name not in names)
    return [*found, *(Change(name, None, None, "deleted") for name in stale)]


def send_tree(
    tree: Path,
    state: RepositoryState,
    *,
    tag: str,
    message: str,
    private: bool = False,
    create_pr: bool = False,
    say: Say,
) -> UploadResult:
    """Bring a repository to the content of ``tree`` in one commit, and tag it; create it first if it is missing.

    With ``create_pr`` the commit becomes a pull request, without a tag. Raises a :class:`~zoo.errors.ZooError` if the
    Hub refuses, or if somebody else has changed the repository since it was inspected.
    """
    reference = state.reference
    try:
        with hub_operation("publish to", reference, say):
            current = _ensure_repository(state, private=private, create_pr=create_pr, say=say)
            plan = UploadPlan(tree, current, changes(tree, current), message)
            return _propose(plan) if create_pr else _publish(plan, tag, say)
    except HubError as error:
        if not state.exists and _is_empty(reference):
            advice = f"{reference.id} was made and is empty; the same command again fills it, or delete it there"
            error.args = (f"{error}; {advice}",)
        raise


def _is_empty(reference: RepositoryReference) -> bool:
    try:
        state = inspect_repository(reference)
    except ZooError:  # the first error tells more
        return False
    return state.exists and not set(state.files) - {".gitattributes"}


def _inspect(reference: RepositoryReference) -> RepositoryState:
    try:
        listing = list_commit(reference, None)
    except Exception as error:
        if has_type(error, "RevisionNotFoundError"):
            return RepositoryState(reference, exists=True)  # without a commit
        if _is_missing(error):
            return RepositoryState(reference)
        raise
    tags, pull_requests = _references(reference)
    return RepositoryState(
        reference,
        exists=True,
        head=listing.commit,
        private=listing.private,
        files=listing.files,
        card=_small_file(reference, listing, CARD),
        plots=_plots_named_in(_small_file(reference, listing, RECORD)),
        tags=tags,
        pull_requests=pull_requests,
    )


def _is_missing(error: Exception) -> bool:
    from huggingface_hub import get_token

    if status_of(error) == 401 and has_type(error, "RepositoryNotFoundError") and get_token():
        # Strangers get this answer too; whoami fails if the token is not valid.
        return bool(with_retries(lambda: client().whoami()))
    return status_of(error) == 404


def _references(reference: RepositoryReference) -> tuple[dict[str, str], dict[str, str]]:
    """Return the commits of tags and of pull requests by name, none if the server does not list them."""
    try:
        refs = with_retries(lambda: client().list_repo_refs(reference.id, include_pull_requests=True))
    except Exception as error:
        if status_of(error) in (404, 405, 501):
            return {}, {}
        raise
    pulls = refs.pull_requests or []
    return {tag.name: tag.target_commit for tag in refs.tags}, {pull.ref: pull.target_commit for pull in pulls}


def _small_file(reference: RepositoryReference, listing: CommitListing, name: str) -> str | None:
    listed = listing.files.get(name)
    if listed is None:
        return None
    if listed.size > MOST_OTHER_BYTES:
        raise HubError(f"{reference} has a {name} of {listed.size:,} bytes; look at it before you publish there")
    path = with_retries(lambda: client().hf_hub_download(reference.id, name, revision=listing.commit))
    try:
        return Path(path).read_bytes().decode()
    except UnicodeDecodeError as error:
        raise HubError(
            f"{reference} has a {name} that is not UTF-8 text; repair it or delete it there first"
        ) from error


def _plots_named_in(record: str | None) -> tuple[str, ...]:
    """Return the plots that a record of any version names."""
    try:
        named = json.loads(record or "{}").get("plots", [])
    except (ValueError, AttributeError):
        return ()
    return tuple(name for name in named if isinstance(name, str)) if isinstance(named, list) else ()


def _change(path: Path, listed: ListedFile | None) -> Change:
    state: State = "new" if listed is None else "same" if listed.matches(path) else "changed"
    return Change(path.name, path.stat().st_size, sha256_of(path), state)


def _ensure_repository(state: RepositoryState, *, private: bool, create_pr: bool, say: Say) -> RepositoryState:
    name = state.reference.id
    if not state.exists:
        if create_pr:
            raise HubError(
                f"{name} is not there, or the token has no access to it; a pull request needs a repository (leave "
                "--create-pr out to have it made)",
                repository=name,
                code="not-found",
            )
        # private=None leaves the visibility to the owner's default, which may be private.
        with_retries(lambda: client().create_repo(name, private=private or None, exist_ok=True))
        state = _inspect(state.reference)
        if not state.exists:
            raise HubError(f"{name} was made, and the Hub says that it is not there; try again in a minute")
        say(f"made the {'private ' if state.private else ''}repository {name}")
    if private and state.private is False:
        raise HubError(
            f"{name} exists already and is public, so --private cannot hold; make it private in its settings on the "
            "Hub, or leave --private out",
            repository=name,
            code="public",
        )
    return state


def _publish(plan: UploadPlan, tag: str, say: Say) -> UploadResult:
    present = plan.published_commit
    commit = present or _commit_once(plan, say)
    return UploadResult(plan.url, commit, changed=present is None, tag=_ensure_tag(plan.state, tag, commit, say))


def _commit_once(plan: UploadPlan, say: Say) -> str:
    try:
        return with_retries(_commit_request(plan)).oid
    except Exception as error:
        # If the first response was lost, the next attempt finds its own commit in the way.
        if status_of(error) not in (404, 412) and not is_transient(error):
            raise
        listing = list_commit(plan.state.reference, None)
        if listing.commit == plan.state.head or not plan.is_done_in(listing):
            raise
        say("the response was lost, but the commit had been made")
        return listing.commit


def _propose(plan: UploadPlan) -> UploadResult:
    if present := plan.published_commit:
        return UploadResult(plan.url, present, changed=False, tag=None)
    proposed = plan.state.pull_requests
    for name in sorted(proposed, key=_number)[: -_MAX_PULL_REQUESTS - 1 : -1]:
        if plan.is_done_in(list_commit(plan.state.reference, proposed[name])):
            return UploadResult(plan.url, proposed[name], False, None, f"{plan.url}/discussions/{_number(name)}")
    made = _commit_request(plan, create_pr=True)()  # a retry after a lost response would make a second one
    return UploadResult(plan.url, made.oid, True, None, made.pr_url)


def _number(reference: str) -> int:
    last = reference.rsplit("/", 1)[-1]
    return int(last) if last.isdigit() else 0


def _commit_request(plan: UploadPlan, *, create_pr: bool = False) -> Callable[[], CommitInfo]:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    # The same objects in all attempts: the client notes in them which files have been uploaded.
    operations: list[CommitOperationAdd | CommitOperationDelete] = [
        CommitOperationDelete(change.path)
        if change.state == "deleted"
        else CommitOperationAdd(change.path, plan.tree / change.path)
        for change in plan.changes
        if change.state != "same"
    ]
    head, name = plan.state.head, plan.state.reference.id

    def request() -> CommitInfo:
        # Users need neither the Hub's opinion of the front matter, nor the client's of its HTTP library.
        with warnings.catch_warnings(action="ignore"):
            return client().create_commit(
                name, operations, commit_message=plan.message, parent_commit=head, create_pr=create_pr
            )

    return request


def _ensure_tag(state: RepositoryState, tag: str, commit: str, say: Say) -> str:
    if tag in state.tags:
        if state.tags[tag] != commit:
            say(f"tag {tag} stays at commit {state.tags[tag]}, where this run was published first")
        return tag
    name = state.reference.id
    try:
        with_retries(lambda: client().create_tag(name, tag=tag, revision=commit, exist_ok=True))
    except Exception as error:
        reason = without_tokens(str(error)).strip().splitlines()[0]
        raise HubError(
            f"{name} has all files, as commit {commit}, but not the tag {tag}: {reason}; run the same command again "
            "for the tag",
            repository=name,
            status=status_of(error),
            code="no-tag",
        ) from None
    return tag
