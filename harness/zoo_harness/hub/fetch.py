"""Fetches published runs from the Hub; with :mod:`zoo_harness.hub_sending` the one place that talks to its client.

What a repository declares is looked at before anything is downloaded: only the files of a published run are ever
fetched, their number and sizes must be sane, and there must be room. What was fetched must be what the Hub lists, by
size and digest. Downloads go to the Hub's own cache; a folder that was asked for is copied whole beside its place and
then renamed.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.errors import HubError, UnreachableError, UsageError, WeightsError
from zoo.reachability import why_unreachable
from zoo_harness.checkpoints.foreign import what_it_seems
from zoo_harness.hub.errors import NotAHubError, first_line, told_plainly
from zoo_harness.hub.names import RepositoryReference
from zoo_harness.hub.retry import and_asks_to_wait, may_pass, patience, patiently, status_of, wait_asked_in_vain
from zoo_harness.records.file_names import CHECKPOINT, CONFIGURATION, RECORD, is_published
from zoo_harness.util.byte_sizes import bytes_in_words

if TYPE_CHECKING:
    from huggingface_hub import HfApi


Say = Callable[[str], None]
MOST_FILES = 1_000  # that a repository may list
MOST_CHECKPOINT_BYTES = 32 * 2**30  # the largest checkpoint of a built-in backbone has under 2
MOST_OTHER_BYTES = 64 * 2**20  # of any other file: records, histories and plots have kilobytes
_MOST_CONFIGURATION_BYTES = 2**20
_SPARE_BYTES = 2**26
SECONDS = 15.0
_MOST_ROUNDS = 3

_OTHER_SIZE = re.compile(
    r"Consistency check failed: file should be of size (\d{1,20}) but has size (\d{1,20}) \((.*)\)"
)


@dataclass(frozen=True)
class ListedFile:
    """What the Hub says of a file: its size in bytes, and the SHA-256 of a large one or git's SHA-1 of a small one."""

    size: int
    sha256: str | None
    git_sha1: str

    def is_that_of(self, path: Path) -> bool:
        """Whether the file at ``path`` is this one."""
        if path.stat().st_size != self.size:
            return False
        with path.open("rb") as file:
            if self.sha256 is not None:
                return hashlib.file_digest(file, "sha256").hexdigest() == self.sha256
            header = b"blob %d\0" % self.size
            return hashlib.sha1(header + file.read(), usedforsecurity=False).hexdigest() == self.git_sha1


def fetch_snapshot(reference: RepositoryReference, to: Path | None, say: Say) -> Path:
    """The folder with the published files of a repository, and with no other files of it.

    Without ``to`` it is in the Hub's cache, named by the commit, and must not be changed. ``to`` is a folder that is
    not there yet, or empty; it appears whole or not at all. Without network, or with ``HF_HUB_OFFLINE``, the cache is
    all there is. ``say`` is told the commit, and what is fetched.

    Raises :class:`~zoo.errors.HubError` for what the Hub refuses and for a repository that is not a published run or
    declares absurd sizes, :class:`~zoo.errors.UnreachableError` for what is neither cached nor reachable, and
    :class:`~zoo.errors.WeightsError` for files that are not those listed.
    """
    if to is not None:
        check_target(to)
    with told_plainly("fetch", reference), patience(say):
        folder = _fetched_or_cached(reference, say)
        return folder if to is None else _copied(folder, to)


def check_target(to: Path) -> None:
    """Raise :class:`~zoo.errors.UsageError` where a folder cannot be put."""
    if to.is_dir() and not any(to.iterdir()):
        return
    if to.exists() or to.is_symlink():
        kind = "is not empty" if to.is_dir() else "is a file"
        raise UsageError(f"--to {str(to)!r} {kind}; give a folder that does not exist yet")


def client() -> HfApi:
    """The Hub's client, which says who asks; the token is its own affair (``HF_TOKEN`` or the Hub's login)."""
    from huggingface_hub import HfApi

    from zoo import __version__

    return HfApi(library_name="blockzoo", library_version=__version__)


def commit_of(reference: RepositoryReference) -> str:
    """The commit, 40 hexadecimal digits, that the revision of a reference stands for now."""
    commit = patiently(lambda: client().model_info(reference.id, revision=reference.revision, timeout=SECONDS)).sha
    if not isinstance(commit, str) or re.fullmatch("[0-9a-f]{40}", commit) is None:
        raise NotAHubError(f"it gives {commit!r:.60} for a commit")
    return commit


def listed_files(reference: RepositoryReference, commit: str) -> dict[str, ListedFile]:
    """What the Hub lists of a commit, by path.

    Raises :class:`~zoo.errors.HubError` where it lists more files than a published run could have around it.
    """
    from huggingface_hub.hf_api import RepoFile

    # The client asks for page after page while it is read: no endless list is taken in.
    listing = client().list_repo_tree(reference.id, recursive=True, revision=commit)
    entries = list(islice(listing, MOST_FILES + 1))
    if len(entries) > MOST_FILES:
        raise HubError(f"{reference} lists more than {MOST_FILES:,} files; a published run has about ten")
    return {
        entry.path: ListedFile(entry.size, entry.lfs.sha256 if entry.lfs else None, entry.blob_id)
        for entry in entries
        if isinstance(entry, RepoFile)
    }


def _fetched_or_cached(reference: RepositoryReference, say: Say) -> Path:
    from huggingface_hub import constants

    obstacle = why_unreachable(constants.ENDPOINT)
    if obstacle is not None:
        return _cached(reference, obstacle, say)
    try:
        commit = commit_of(reference)
    except Exception as error:
        # Of what is missing or refused an older copy must not be taken in silence.
        if not may_pass(error):
            raise
        status = status_of(error)
        asked = wait_asked_in_vain(error)
        reason = f"it answers with status {status}{and_asks_to_wait(asked)}" if status else first_line(error)
        return _cached(reference, reason, say, "try again later" if status else None)
    for _ in range(_MOST_ROUNDS):
        folder = _fetched(reference, commit, say)
        if folder.name == commit:
            return folder
        commit = folder.name  # somebody has committed since: what came is not what was looked at
    raise HubError(f"{reference} changes while it is fetched; try again, or give a commit: {reference.id}@{commit}")


def _cached(reference: RepositoryReference, reason: str, say: Say, advice: str | None = None) -> Path:
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = _download(reference, [CHECKPOINT, RECORD], local_files_only=True)
        missing = [name for name in (RECORD, CHECKPOINT) if not (folder / name).is_file()]
        found = f"without {' and '.join(missing)}" if missing else ""
    except LocalEntryNotFoundError:
        found = "no such revision" if reference.revision else "not there"
    if found:
        tried = [("Hub", reason), (f"Hub cache {_cache_folder()}", f"{found}; it has {_cached_revisions(reference)}")]
        advice = advice or "connect to the network, and unset HF_HUB_OFFLINE, to fetch it"
        raise UnreachableError(str(reference), tried, advice)
    say(f"{reference}: commit {folder.name}, from the Hub's cache ({reason})")
    return folder


def _fetched(reference: RepositoryReference, commit: str, say: Say) -> Path:
    from huggingface_hub import try_to_load_from_cache

    listed = listed_files(reference, commit)
    wanted = _checked(reference, listed, commit)
    new = [name for name in wanted if not isinstance(try_to_load_from_cache(reference.id, name, revision=commit), str)]
    size = sum(wanted[name].size for name in new)
    _check_room(_cache_folder(), size)
    todo = f"fetching {len(new)} files, {bytes_in_words(size)}" if new else "in the Hub's cache already"
    say(f"{reference}: commit {commit}, {todo}")
    # By the name it was asked for, so that the cache knows the name too when there is no network.
    try:
        folder = patiently(lambda: _download(reference, list(wanted)))
    except OSError as error:
        if (told := _of_another_size(reference, wanted, error)) is None:
            raise
        raise told from error
    if folder.name == commit:
        for name in new:
            _verify(reference, folder / name, wanted[name])
    return folder


def _download(reference: RepositoryReference, names: list[str], *, local_files_only: bool = False) -> Path:
    with bars_for_people():
        folder = client().snapshot_download(
            reference.id, revision=reference.revision, allow_patterns=names, local_files_only=local_files_only
        )
    return Path(folder)


@contextmanager
def bars_for_people() -> Iterator[None]:
    """Have the Hub's client show progress only where standard error is a terminal."""
    with nullcontext() if sys.stderr.isatty() else without_bars():
        yield


@contextmanager
def without_bars() -> Iterator[None]:
    """Have the Hub's client show no progress."""
    from huggingface_hub.utils import (  # type: ignore[attr-defined]  # re-exported without "as"
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    if are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()


def _checked(reference: RepositoryReference, listed: dict[str, ListedFile], commit: str) -> dict[str, ListedFile]:
    wanted = {name: file for name, file in listed.items() if is_published(name)}
    missing = [name for name in (RECORD, CHECKPOINT) if name not in wanted]
    if missing:
        raise HubError(_not_ours(reference, missing, listed, commit))
    for name, file in wanted.items():
        most = MOST_CHECKPOINT_BYTES if name == CHECKPOINT else MOST_OTHER_BYTES
        if file.size > most:
            declared = f"{name} of {bytes_in_words(file.size)}"
            raise HubError(f"{reference} declares {declared}; more than {bytes_in_words(most)} is not fetched")
    return wanted


def _not_ours(
    reference: RepositoryReference, missing: Iterable[str], listed: Mapping[str, ListedFile], commit: str
) -> str:
    names = sorted(listed)
    there = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
    seems = what_it_seems(reference.id, names, _configuration(reference, listed, commit))
    return (
        f"{reference} is not a run that zoo published: it has no {' and no '.join(missing)} "
        f"(it has {there or 'nothing'}); {seems}"
    )


def _configuration(reference: RepositoryReference, listed: Mapping[str, ListedFile], commit: str) -> object:
    """What stands in ``config.json`` beside somebody's tensors; ``None`` where it is not worth fetching or no JSON."""
    file = listed.get(CONFIGURATION)
    if file is None or file.size > _MOST_CONFIGURATION_BYTES or not any(n.endswith(".safetensors") for n in listed):
        return None
    try:
        path = client().hf_hub_download(reference.id, CONFIGURATION, revision=commit)
        return json.loads(Path(path).read_bytes())
    except (OSError, ValueError, RecursionError):  # the Hub's errors are OSErrors: it is but a hint
        return None


def _check_room(folder: Path, size: int) -> None:
    there = next(place for place in (folder, *folder.absolute().parents) if place.is_dir())
    free = shutil.disk_usage(there).free
    if size + _SPARE_BYTES > free:
        need = f"{bytes_in_words(size)} are needed and {bytes_in_words(free)} are free"
        other = "set HF_HOME to" if folder == _cache_folder() else "give"
        raise HubError(f"no room in {folder}: {need}; make room, or {other} a folder on another disk")


def _verify(reference: RepositoryReference, path: Path, listed: ListedFile) -> None:
    if path.is_file() and listed.is_that_of(path):
        return
    # Not left in the cache, where the next call would take it for the real one.
    path.resolve().unlink(missing_ok=True)
    path.unlink(missing_ok=True)
    raise WeightsError(
        f"{reference}: {path.name} is not the file that the Hub lists ({_as_listed(listed)}); it was removed, try again"
    )


def _as_listed(listed: ListedFile) -> str:
    digest = f"SHA-256 {listed.sha256}" if listed.sha256 else f"git SHA-1 {listed.git_sha1}"
    return f"{listed.size:,} bytes, {digest}"


def _of_another_size(
    reference: RepositoryReference, wanted: Mapping[str, ListedFile], error: OSError
) -> WeightsError | None:
    """What to tell where the client itself finds that a file is shorter or longer than it should be."""
    if (told := _OTHER_SIZE.search(str(error))) is None:
        return None
    # It shows the end of the name alone.
    name = next((name for name in wanted if told[3].endswith(name) or name.endswith(told[3])), told[3])
    listed = _as_listed(wanted[name]) if name in wanted else f"{int(told[1]):,} bytes"
    return WeightsError(
        f"{reference}: {name:.100} is not the file that the Hub lists ({listed}): {int(told[2]):,} bytes came; nothing "
        "of it was kept, try again"
    )


def _copied(folder: Path, to: Path) -> Path:
    to = to.absolute()
    names = [path.name for path in folder.iterdir() if is_published(path.name)]
    to.parent.mkdir(parents=True, exist_ok=True)
    _check_room(to.parent, sum((folder / name).stat().st_size for name in names))
    temporary = to.with_name(f".{to.name}.{secrets.token_hex(4)}.tmp")
    try:
        temporary.mkdir()
        for name in names:
            shutil.copyfile(folder / name, temporary / name)  # the content of what the cache links to
        temporary.rename(to)  # takes the place of an empty folder too
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return to


def _cache_folder() -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def _cached_revisions(reference: RepositoryReference) -> str:
    """What the Hub's cache has of a repository, in words."""
    folder = _cache_folder() / f"models--{reference.owner}--{reference.name}"
    names = sorted(str(path.relative_to(folder / "refs")) for path in (folder / "refs").rglob("*") if path.is_file())
    commits = sorted(path.name[:12] for path in (folder / "snapshots").glob("*") if (path / RECORD).is_file())
    found = [*names, *commits]
    return f"of {reference.id}: {', '.join(found)}" if found else f"nothing of {reference.id}"
