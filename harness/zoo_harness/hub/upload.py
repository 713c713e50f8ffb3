"""Sends a published tree to the Hub: one atomic commit upon what was looked at, and a tag for the run.

First the repository is looked at: its last commit, what it lists, its card. The commit is made upon that very commit,
so that somebody else's change in between is told and never overwritten. Files that are there already are not sent, and
of a large file that was sent before a connection broke the Hub says so itself; a second publication of the same run
changes nothing. Where the answer to the commit is lost, what the repository lists says whether it was made.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from zoo.errors import HubError
from zoo_harness.hub.errors import has, told_plainly, without_tokens
from zoo_harness.hub.fetch import (
    MOST_OTHER_BYTES,
    SECONDS,
    ListedFile,
    Say,
    bars_for_people,
    client,
    commit_of,
    listed_files,
)
from zoo_harness.hub.names import RepositoryReference
from zoo_harness.hub.publication import Change, State
from zoo_harness.hub.retry import may_pass, patience, patiently, status_of
from zoo_harness.records.file_names import CARD, CONFUSION, HISTORY, RECORD, is_published
from zoo_harness.records.run import RunRecord
from zoo_harness.util.digests import sha256_of

_PROPOSALS_LOOKED_AT = 5


@dataclass(frozen=True)
class Remote:
    """A repository as it was looked at; ``head`` is its last commit, ``None`` where there is none yet.

    ``card`` is its ``README.md``; ``plots`` are those that the record there names.
    """

    reference: RepositoryReference
    exists: bool = False
    head: str | None = None
    private: bool | None = None
    files: dict[str, ListedFile] = field(default_factory=dict)
    card: str | None = None
    plots: tuple[str, ...] = ()
    tags: dict[str, str] = field(default_factory=dict)
    proposals: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Sent:
    """What a publication came to; ``commit`` is the repository's where nothing had to change."""

    url: str
    commit: str
    changed: bool
    tag: str | None
    pull_request: str | None = None


def look_at(reference: RepositoryReference, say: Say = lambda _line: None) -> Remote:
    """What is at the other end now, without changing anything; ``say`` is told what is waited for.

    Raises a :class:`~zoo.errors.ZooError` where it cannot be told.
    """
    with told_plainly("look at", reference), patience(say):
        return _looked_at(reference)


def require_token() -> None:
    """Raise :class:`~zoo.errors.HubError` where the Hub's client has no token to show."""
    from huggingface_hub import get_token

    if not get_token():
        raise HubError(
            "no token for the Hub: set HF_TOKEN to one that may write (made under Settings, Access Tokens on the Hub), "
            "or log in with: hf auth login"
        )


def tag_of(record: RunRecord) -> str:
    """The name that a run gets as a tag: when it started, and the beginning of its checkpoint's digest."""
    started = re.sub(r"[^0-9T]", "", record.started.partition("+")[0]).replace("T", "-")
    return f"run-{started}-{(record.checkpoint_sha256 or '')[:8]}"


def changes(tree: Path, remote: Remote) -> list[Change]:
    """What sending the tree does to each file, those that go last."""
    found = [_change(path, remote.files.get(path.name)) for path in sorted(tree.iterdir())]
    names = {change.path for change in found}
    # Plots of a person's own stay; what is left of another run would be taken for this one's.
    ours = {HISTORY, CONFUSION, *remote.plots}
    stale = sorted(name for name in remote.files if name in ours and is_published(name) and name not in names)
    return [*found, *(Change(name, None, None, "deleted") for name in stale)]


def send_tree(
    tree: Path,
    remote: Remote,
    *,
    tag: str,
    message: str,
    private: bool = False,
    create_pr: bool = False,
    say: Say,
) -> Sent:
    """Bring the repository to what ``tree`` holds, in one commit, and tag it; it is made first where it is missing.

    With ``create_pr`` the commit is proposed as a pull request, without a tag. Raises a :class:`~zoo.errors.ZooError`
    for whatever the Hub refuses, or where somebody else has changed the repository since it was looked at.
    """
    made_here = not remote.exists
    reference = remote.reference
    with _empty_repository_told(reference, made_here=made_here), told_plainly("publish to", reference), patience(say):
        remote = _made_sure_of(remote, private=private, create_pr=create_pr, say=say)
        planned = changes(tree, remote)
        url = f"{client().endpoint}/{remote.reference.id}"
        if remote.head is not None and all(change.state == "same" for change in planned):
            named = None if create_pr else _tagged(remote, tag, remote.head, say)
            return Sent(url, remote.head, changed=False, tag=named)
        if create_pr:
            return _proposed(tree, remote, planned, message, url)
        commit = _committed(tree, remote, planned, message, say)
        return Sent(url, commit, changed=True, tag=_tagged(remote, tag, commit, say))


@contextmanager
def _empty_repository_told(reference: RepositoryReference, *, made_here: bool) -> Iterator[None]:
    """Where nothing came into a repository that was made for it, say that it is there."""
    try:
        yield
    except HubError as error:
        if not made_here or not _is_empty(reference):
            raise
        advice = f"{reference.id} was made and is empty; the same command again fills it, or delete it there"
        raise HubError(f"{error}; {advice}") from error.__cause__


def _is_empty(reference: RepositoryReference) -> bool:
    try:
        remote = _looked_at(reference)
    except Exception:  # the first error tells more than a second one
        return False
    return remote.exists and not set(remote.files) - {".gitattributes"}


def _looked_at(reference: RepositoryReference) -> Remote:
    try:
        info = patiently(lambda: client().model_info(reference.id, timeout=SECONDS))
    except Exception as error:
        if has(error, "RevisionNotFoundError"):
            return Remote(reference, exists=True)  # made, and empty
        if _is_missing(error):
            return Remote(reference)
        raise
    if info.sha is None:
        return Remote(reference, exists=True, private=info.private)
    files = listed_files(reference, info.sha)
    tags, proposals = _references(reference)
    return Remote(
        reference,
        exists=True,
        head=info.sha,
        private=info.private,
        files=files,
        card=_small_file(reference, info.sha, CARD, files),
        plots=_plots_named_in(_small_file(reference, info.sha, RECORD, files)),
        tags=tags,
        proposals=proposals,
    )


def _is_missing(error: Exception) -> bool:
    from huggingface_hub import get_token

    if status_of(error) == 401 and has(error, "RepositoryNotFoundError") and get_token():
        # So it is told to strangers; whether the token makes one of us, the Hub says elsewhere.
        return bool(patiently(lambda: client().whoami()))
    return status_of(error) == 404


def _references(reference: RepositoryReference) -> tuple[dict[str, str], dict[str, str]]:
    """Tags and pull requests with the commits they stand for; none where the server does not list any."""
    try:
        refs = patiently(lambda: client().list_repo_refs(reference.id, include_pull_requests=True))
    except Exception as error:
        if status_of(error) in (404, 405, 501):
            return {}, {}
        raise
    pulls = refs.pull_requests or []
    return {tag.name: tag.target_commit for tag in refs.tags}, {pull.ref: pull.target_commit for pull in pulls}


def _small_file(reference: RepositoryReference, head: str, name: str, files: dict[str, ListedFile]) -> str | None:
    if name not in files:
        return None
    if files[name].size > MOST_OTHER_BYTES:
        raise HubError(f"{reference} has a {name} of {files[name].size:,} bytes; look at it before you publish there")
    with bars_for_people():
        path = patiently(lambda: client().hf_hub_download(reference.id, name, revision=head))
    try:
        return Path(path).read_bytes().decode()
    except UnicodeDecodeError as error:
        raise HubError(
            f"{reference} has a {name} that is not UTF-8 text; repair it or delete it there first"
        ) from error


def _plots_named_in(record: str | None) -> tuple[str, ...]:
    """The plots of an earlier publication; of a record of any version, since only names are taken from it."""
    try:
        named = json.loads(record or "{}").get("plots", [])
    except (ValueError, AttributeError):
        return ()
    return tuple(name for name in named if isinstance(name, str)) if isinstance(named, list) else ()


def _change(path: Path, listed: ListedFile | None) -> Change:
    state: State = "new" if listed is None else "same" if listed.is_that_of(path) else "changed"
    return Change(path.name, path.stat().st_size, sha256_of(path), state)


def _made_sure_of(remote: Remote, *, private: bool, create_pr: bool, say: Say) -> Remote:
    identifier = remote.reference.id
    if not remote.exists:
        if create_pr:
            raise HubError(
                f"{identifier} is not there, or the token is not of somebody who may read it; a pull request needs a "
                "repository (leave --create-pr out to have it made)"
            )
        # None leaves it to the owner's own default, which may be private.
        patiently(lambda: client().create_repo(identifier, private=private or None, exist_ok=True))
        remote = _looked_at(remote.reference)
        if not remote.exists:
            raise HubError(f"{identifier} was made, and the Hub says that it is not there; try again in a minute")
        say(f"made the {'private ' if remote.private else ''}repository {identifier}")
    if private and remote.private is False:
        raise HubError(
            f"{identifier} is there already and public, so --private cannot hold; make it private in its settings on "
            "the Hub, or leave --private out"
        )
    return remote


def _committed(tree: Path, remote: Remote, planned: list[Change], message: str, say: Say) -> str:
    def attempt() -> str:
        return _commit(tree, remote, planned, message, create_pr=False)[0]

    try:
        commit = patiently(attempt)
    except Exception as error:
        # The answer may have been lost after the work was done: then the next attempt meets its own commit.
        if status_of(error) not in (404, 412) and not may_pass(error):
            raise
        commit = commit_of(remote.reference)
        if commit == remote.head or not _holds(remote.reference, commit, tree, planned):
            raise
        say("the answer was lost, but the commit had been made")
    if not _holds(remote.reference, commit, tree, planned):
        raise HubError(f"{remote.reference} lists other files at commit {commit} than were sent; run zoo publish again")
    return commit


def _proposed(tree: Path, remote: Remote, planned: list[Change], message: str, url: str) -> Sent:
    newest = sorted(remote.proposals, key=_number)[-_PROPOSALS_LOOKED_AT:]
    for name in reversed(newest):
        commit = remote.proposals[name]
        if _holds(remote.reference, commit, tree, planned):
            return Sent(url, commit, changed=False, tag=None, pull_request=f"{url}/discussions/{_number(name)}")
    # Not tried again: a second attempt after a lost answer would make a second pull request.
    commit, pull_request = _commit(tree, remote, planned, message, create_pr=True)
    return Sent(url, commit, changed=True, tag=None, pull_request=pull_request)


def _number(reference: str) -> int:
    last = reference.rsplit("/", 1)[-1]
    return int(last) if last.isdigit() else 0


def _commit(
    tree: Path, remote: Remote, planned: list[Change], message: str, *, create_pr: bool
) -> tuple[str, str | None]:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    # Made anew for each attempt: the client writes into them.
    operations: list[CommitOperationAdd | CommitOperationDelete] = [
        CommitOperationDelete(change.path)
        if change.state == "deleted"
        else CommitOperationAdd(change.path, tree / change.path)
        for change in planned
        if change.state != "same"
    ]
    with bars_for_people(), _warnings_of_the_hub():
        made = client().create_commit(
            remote.reference.id,
            operations,
            commit_message=message,
            parent_commit=remote.head,
            create_pr=create_pr,
        )
    return made.oid, made.pr_url


def _warnings_of_the_hub() -> warnings.catch_warnings[None]:
    # What the Hub thinks of a card's front matter, and what the client does with its HTTP library, is no news to users.
    return warnings.catch_warnings(action="ignore")


def _holds(reference: RepositoryReference, commit: str, tree: Path, planned: Iterable[Change]) -> bool:
    listed = listed_files(reference, commit)
    for change in planned:
        if change.state == "deleted":
            if change.path in listed:
                return False
        elif change.path not in listed or not listed[change.path].is_that_of(tree / change.path):
            return False
    return True


def _tagged(remote: Remote, tag: str, commit: str, say: Say) -> str:
    if tag in remote.tags:
        if remote.tags[tag] != commit:
            say(f"tag {tag} stays at commit {remote.tags[tag]}, where this run was published first")
        return tag
    try:
        patiently(lambda: client().create_tag(remote.reference.id, tag=tag, revision=commit, exist_ok=True))
    except Exception as error:
        raise HubError(
            f"{remote.reference} has all files, as commit {commit}, but not the tag {tag}: "
            f"{without_tokens(str(error)).strip().splitlines()[0]}; run the same command again for the tag"
        ) from None
    return tag
