"""Downloads published runs from the Hub.

The file list of a commit is checked before any download: only the files of a published run are fetched, their number
and sizes must be plausible, and they must fit on the disk. Size and digest of each download must be those that the Hub
lists. Downloads go to the Hub's own cache; a requested folder is copied from there.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.errors import HubError, UnreachableError, UsageError, WeightsError
from zoo.reachability import why_unreachable
from zoo_harness.checkpoints.foreign import what_it_seems
from zoo_harness.hub.errors import NotAHubError, first_line, translate_hub_errors
from zoo_harness.hub.names import RepositoryReference
from zoo_harness.hub.retry import is_transient, retry_budget, status_of, with_retries
from zoo_harness.records.file_names import CHECKPOINT, CONFIGURATION, RECORD, is_published
from zoo_harness.util.atomic_files import create_folder, write_text
from zoo_harness.util.byte_sizes import bytes_in_words
from zoo_harness.util.digests import sha256_of

if TYPE_CHECKING:
    from huggingface_hub import HfApi


Say = Callable[[str], None]
MOST_FILES = 1_000  # that a repository may list
MOST_CHECKPOINT_BYTES = 32 * 2**30  # the largest checkpoint of a built-in backbone has under 2
MOST_OTHER_BYTES = 64 * 2**20  # of any other file: records, histories and plots have kilobytes
_MOST_CONFIGURATION_BYTES = 2**20
_SPARE_BYTES = 2**26
_REQUEST_SECONDS = 15.0


@dataclass(frozen=True)
class ListedFile:
    """A file as the Hub lists it: size in bytes, and SHA-256 of a large file or git's SHA-1 of a small one."""

    size: int
    sha256: str | None
    git_sha1: str | None

    def matches(self, path: Path) -> bool:
        """Whether the file at ``path`` has this size and digest."""
        from huggingface_hub.utils.sha import git_hash

        if path.stat().st_size != self.size:
            return False
        return sha256_of(path) == self.sha256 if self.sha256 else git_hash(path.read_bytes()) == self.git_sha1

    def __str__(self) -> str:
        digest = f"SHA-256 {self.sha256}" if self.sha256 else f"git SHA-1 {self.git_sha1}"
        return f"{self.size:,} bytes, {digest}"


@dataclass(frozen=True)
class CommitListing:
    """A commit of a repository, as 40 hexadecimal digits, and its files by path."""

    commit: str
    files: dict[str, ListedFile]
    private: bool | None


@contextmanager
def hub_operation(action: str, reference: RepositoryReference, say: Say) -> Iterator[None]:
    """Context manager for requests to the Hub: bounded retries, progress bars on a terminal, plain errors."""
    with translate_hub_errors(action, reference), retry_budget(say), progress_bars_on_tty():
        yield


def client() -> HfApi:
    """Return the Hub's client; it finds the token itself (``HF_TOKEN`` or the Hub's login)."""
    from huggingface_hub import HfApi

    from zoo._version import __version__

    return HfApi(library_name="blockzoo", library_version=__version__)


def list_commit(reference: RepositoryReference, revision: str | None) -> CommitListing:
    """List the commit that a revision points to now, with one request.

    Raises :class:`~zoo.errors.HubError` for more than ``MOST_FILES`` files, and whatever the client raises.
    """
    info = with_retries(
        lambda: client().model_info(reference.id, revision=revision, files_metadata=True, timeout=_REQUEST_SECONDS)
    )
    if not isinstance(info.sha, str) or re.fullmatch("[0-9a-f]{40}", info.sha) is None:
        raise NotAHubError(f"it gives {info.sha!r:.60} for a commit")
    if info.siblings is None or not all(isinstance(file.size, int) for file in info.siblings):
        raise NotAHubError("it gives no file sizes")
    if len(info.siblings) > MOST_FILES:
        raise HubError(f"{reference} lists more than {MOST_FILES:,} files; a published run has about ten")
    files = {
        file.rfilename: ListedFile(file.size or 0, file.lfs.sha256 if file.lfs else None, file.blob_id)
        for file in info.siblings
    }
    return CommitListing(info.sha, files, info.private)


def fetch_snapshot(reference: RepositoryReference, to: Path | None, say: Say) -> Path:
    """Return a folder with the published files of a repository, and no other files of it.

    Without ``to`` it is in the Hub's cache, named by the commit, and must not be changed. ``to`` must not exist or be
    empty; it appears whole or not at all. Without network, or with ``HF_HUB_OFFLINE``, the cache is used. ``say``
    receives the commit and the amount to download.

    Raises :class:`~zoo.errors.HubError` if the Hub refuses, if the repository is not a published run or if it declares
    absurd sizes; :class:`~zoo.errors.UnreachableError` if it is neither cached nor reachable; and
    :class:`~zoo.errors.WeightsError` if a download is not the listed file.
    """
    if to is not None:
        check_target(to)
    with hub_operation("fetch", reference, say):
        folder = _fetch_or_find(reference, say)
        if to is not None:
            files = {path.name: path for path in folder.iterdir() if is_published(path.name)}
            _check_room(to.absolute().parent, sum(path.stat().st_size for path in files.values()))
            create_folder(to, files)
        return to or folder


def check_target(to: Path) -> None:
    """Raise :class:`~zoo.errors.UsageError` unless ``to`` can become a new folder."""
    if to.is_dir() and not any(to.iterdir()):
        return
    if to.exists() or to.is_symlink():
        kind = "is not empty" if to.is_dir() else "is a file"
        raise UsageError(f"--to {str(to)!r} {kind}; give a folder that does not exist yet")


def progress_bars_on_tty() -> AbstractContextManager[None]:
    """Context manager that shows the client's progress bars only if standard error is a terminal."""
    return nullcontext() if sys.stderr.isatty() else without_bars()


@contextmanager
def without_bars() -> Iterator[None]:
    """Context manager that hides the progress bars of the Hub's client."""
    from huggingface_hub import utils

    were_on = not utils.are_progress_bars_disabled()  # type: ignore[attr-defined]  # re-exported without "as"
    if were_on:
        utils.disable_progress_bars()  # type: ignore[attr-defined]
    try:
        yield
    finally:
        if were_on:
            utils.enable_progress_bars()  # type: ignore[attr-defined]


def _fetch_or_find(reference: RepositoryReference, say: Say) -> Path:
    from huggingface_hub import constants

    obstacle = why_unreachable(constants.ENDPOINT)
    if obstacle is not None:
        return _find_in_cache(reference, obstacle, say)
    try:
        listing = list_commit(reference, reference.revision)
    except Exception as error:
        # A missing or refused repository must not silently become an older copy of it.
        if not is_transient(error):
            raise
        return _find_in_cache(reference, first_line(error), say, "try again later" if status_of(error) else None)
    return _fetch(reference, listing, say)


def _find_in_cache(reference: RepositoryReference, reason: str, say: Say, advice: str | None = None) -> Path:
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = Path(
            client().snapshot_download(
                reference.id, revision=reference.revision, allow_patterns=[CHECKPOINT, RECORD], local_files_only=True
            )
        )
        missing = [name for name in (RECORD, CHECKPOINT) if not (folder / name).is_file()]
        lack = f"without {' and '.join(missing)}" if missing else ""
    except LocalEntryNotFoundError:
        lack = "no such revision" if reference.revision else "not there"
    if lack:
        cached = _cached_revisions(reference)
        tried = [("Hub", reason), (f"Hub cache {_cache_folder()}", f"{lack}; it has {cached}")]
        advice = advice or "connect to the network, and unset HF_HUB_OFFLINE, to fetch it"
        raise UnreachableError(str(reference), tried, advice)
    say(f"{reference}: commit {folder.name}, from the Hub's cache ({reason})")
    return folder


def _fetch(reference: RepositoryReference, listing: CommitListing, say: Say) -> Path:
    from huggingface_hub import try_to_load_from_cache

    commit, wanted = listing.commit, _published_files(reference, listing)
    new = [name for name in wanted if not isinstance(try_to_load_from_cache(reference.id, name, revision=commit), str)]
    size = sum(wanted[name].size for name in new)
    _check_room(_cache_folder(), size)
    todo = f"fetching {len(new)} files, {bytes_in_words(size)}" if new else "in the Hub's cache already"
    say(f"{reference}: commit {commit}, {todo}")
    folder = Path(
        with_retries(lambda: client().snapshot_download(reference.id, revision=commit, allow_patterns=list(wanted)))
    )
    for name in new:
        _verify(reference, folder / name, wanted[name])
    if reference.revision != commit:  # the client cannot know the branch or tag, which offline use needs
        with suppress(OSError):  # as in a cache that cannot be written to
            pointer = _repository_cache(reference) / "refs" / (reference.revision or "main")
            pointer.parent.mkdir(parents=True, exist_ok=True)
            write_text(pointer, commit)
    return folder


def _published_files(reference: RepositoryReference, listing: CommitListing) -> dict[str, ListedFile]:
    wanted = {name: file for name, file in listing.files.items() if is_published(name)}
    missing = [name for name in (RECORD, CHECKPOINT) if name not in wanted]
    if missing:
        raise HubError(_not_published(reference, missing, listing), repository=reference.id, code="not-published")
    for name, file in wanted.items():
        most = MOST_CHECKPOINT_BYTES if name == CHECKPOINT else MOST_OTHER_BYTES
        if file.size > most:
            declared = f"{name} of {bytes_in_words(file.size)}"
            raise HubError(f"{reference} declares {declared}; more than {bytes_in_words(most)} is not fetched")
    return wanted


def _not_published(reference: RepositoryReference, missing: list[str], listing: CommitListing) -> str:
    names = sorted(listing.files)
    there = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
    file, configuration = listing.files.get(CONFIGURATION), None
    if file and file.size <= _MOST_CONFIGURATION_BYTES and any(name.endswith(".safetensors") for name in names):
        with suppress(OSError, ValueError, RecursionError):  # it is but a hint
            path = client().hf_hub_download(reference.id, CONFIGURATION, revision=listing.commit)
            configuration = json.loads(Path(path).read_bytes())
    return (
        f"{reference} is not a run that zoo published: it has no {' and no '.join(missing)} "
        f"(it has {there or 'nothing'}); {what_it_seems(reference.id, names, configuration)}"
    )


def _check_room(folder: Path, size: int) -> None:
    existing = next(place for place in (folder, *folder.absolute().parents) if place.is_dir())
    free = shutil.disk_usage(existing).free
    if size + _SPARE_BYTES > free:
        need = f"{bytes_in_words(size)} are needed and {bytes_in_words(free)} are free"
        other = "set HF_HOME to" if folder == _cache_folder() else "give"
        raise HubError(f"no room in {folder}: {need}; make room, or {other} a folder on another disk", code="disk-full")


def _verify(reference: RepositoryReference, path: Path, listed: ListedFile) -> None:
    if path.is_file() and listed.matches(path):
        return
    # Removed from the cache, because the next call would take it for the real one.
    path.resolve().unlink(missing_ok=True)
    path.unlink(missing_ok=True)
    raise WeightsError(
        f"{reference}: {path.name} is not the file that the Hub lists ({listed}); it was removed, try again"
    )


def _cache_folder() -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def _repository_cache(reference: RepositoryReference) -> Path:
    return _cache_folder() / f"models--{reference.owner}--{reference.name}"


def _cached_revisions(reference: RepositoryReference) -> str:
    folder = _repository_cache(reference)
    names = sorted(str(path.relative_to(folder / "refs")) for path in (folder / "refs").rglob("*") if path.is_file())
    commits = sorted(path.name[:12] for path in (folder / "snapshots").glob("*") if (path / RECORD).is_file())
    found = [*names, *commits]
    return f"of {reference.id}: {', '.join(found)}" if found else f"nothing of {reference.id}"
