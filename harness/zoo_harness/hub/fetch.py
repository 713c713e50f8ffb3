"""Download published runs from the Hugging Face Hub into the local Hub cache.

The file list of a commit is checked before any download: the number and the sizes of the files must be plausible. Only
the files of a published run are downloaded. The size and digest of each download must match the Hub's file list.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from zoo.errors import HubError, UnreachableError, WeightsError
from zoo.reachability import why_unreachable
from zoo_harness.checkpoints.foreign import LARGEST_CONFIGURATION, describe_foreign
from zoo_harness.hub.client import Retries, Say, client, hub_operation
from zoo_harness.hub.errors import NotAHubError, first_line, is_transient
from zoo_harness.hub.names import RepositoryReference
from zoo_harness.records.file_names import CHECKPOINT, CONFIGURATION, RECORD, is_published
from zoo_harness.util.atomic_files import write_text
from zoo_harness.util.byte_sizes import bytes_in_words
from zoo_harness.util.digests import sha256_of

MOST_FILES = 1_000  # limit for the number of files in a repository
MOST_CHECKPOINT_BYTES = 32 * 2**30  # limit for model.safetensors; built-in backbones need less than 2 GiB
MOST_OTHER_BYTES = 64 * 2**20  # limit for other files; records, histories and plots have kilobytes
REQUEST_SECONDS = 15.0
_COMMIT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,199}")  # 40 digits of git, 64 of some Hubs, or a folder name


@dataclass(frozen=True)
class ListedFile:
    """Hold the size in bytes and the digest that the Hub lists for a file: SHA-256, or git's SHA-1 for small files."""

    size: int
    sha256: str | None
    git_sha1: str | None = None

    def matches(self, path: Path, sha256: str) -> bool:
        """Whether a local file has the listed size and digest; ``sha256`` is the SHA-256 of the file."""
        from huggingface_hub.utils.sha import git_hash

        if path.stat().st_size != self.size:
            return False
        return sha256 == self.sha256 if self.sha256 else git_hash(path.read_bytes()) == self.git_sha1


@dataclass(frozen=True)
class CommitListing:
    """Hold the id of a repository's commit, its files by path, and the text of its card if the card was read."""

    commit: str
    files: dict[str, ListedFile]
    private: bool | None
    card: str | None = None


def list_commit(reference: RepositoryReference, revision: str | None = None) -> CommitListing:
    """List the files of a revision's current commit; raise the errors of the Hub's client."""
    try:
        info = client().model_info(reference.id, revision=revision, files_metadata=True, timeout=REQUEST_SECONDS)
        files = {
            file.rfilename: ListedFile(int(file.size), file.lfs.sha256 if file.lfs else None, file.blob_id)  # type: ignore[arg-type]
            for file in info.siblings  # type: ignore[union-attr]
        }
    except (KeyError, TypeError, AttributeError) as error:  # the client does not check the fields of a response
        raise NotAHubError(f"the response lacks fields: {error}") from None
    if _COMMIT.fullmatch(str(info.sha or "")) is None:  # the id becomes the name of a folder
        raise NotAHubError(f"the response has an invalid commit id: {info.sha!r:.60}")
    return CommitListing(str(info.sha), files, info.private)


def fetch_snapshot(reference: RepositoryReference, say: Say, only: Collection[str] | None = None) -> Path:
    """Download the files of a published run into the Hub cache, and return their folder.

    ``only`` names the files to download, and must include the record; ``None`` downloads all published files. The
    folder is named after the commit, and must not be changed. Without network, or with ``HF_HUB_OFFLINE``, the
    cached files are used. ``say`` receives the commit and the download size as text.

    Raises :class:`~zoo.errors.HubError` if the Hub refuses the request, if the repository is not a published run, or if
    a file is too large. Raises :class:`~zoo.errors.UnreachableError` if the repository is neither cached nor reachable.
    Raises :class:`~zoo.errors.WeightsError` if a downloaded file differs from the listed file.
    """
    from huggingface_hub import constants

    if obstacle := why_unreachable(constants.ENDPOINT):
        return _find_in_cache(reference, obstacle, say, only)
    with hub_operation("fetch", reference, say) as retried:
        try:
            listing = retried(lambda: list_commit(reference, reference.revision))
        except Exception as error:
            # Use the cache only after temporary errors, not for a repository that is missing or forbidden now.
            if not is_transient(error):
                raise
            return _find_in_cache(reference, first_line(error), say, only)
        return _fetch(reference, listing, retried, say, only)


def _find_in_cache(reference: RepositoryReference, reason: str, say: Say, only: Collection[str] | None) -> Path:
    from huggingface_hub import constants, try_to_load_from_cache

    needed = [name for name in (RECORD, CHECKPOINT) if only is None or name in only]
    found = [try_to_load_from_cache(reference.id, name, revision=reference.revision) for name in needed]
    paths = [Path(path) for path in found if isinstance(path, str)]
    if len(paths) < len(needed):
        tried = [("Hub", reason), (f"Hub cache {constants.HF_HUB_CACHE}", "not there")]
        advice = "connect to the network, and unset HF_HUB_OFFLINE, or try again later"
        raise UnreachableError(str(reference), tried, advice)
    folder = paths[0].parent
    say(f"{reference}: commit {folder.name}, from the Hub cache ({reason})")
    return folder


def _fetch(
    reference: RepositoryReference, listing: CommitListing, retried: Retries, say: Say, only: Collection[str] | None
) -> Path:
    from huggingface_hub import try_to_load_from_cache

    commit, listed = listing.commit, _published_files(reference, listing)
    wanted = {name: file for name, file in listed.items() if only is None or name in only}
    new = [name for name in wanted if not isinstance(try_to_load_from_cache(reference.id, name, revision=commit), str)]
    size = bytes_in_words(sum(wanted[name].size for name in new))
    download = f"fetching {len(new)} files, {size}" if new else "already in the Hub cache"
    say(f"{reference}: commit {commit}, {download}")
    try:
        folder = Path(
            retried(lambda: client().snapshot_download(reference.id, revision=commit, allow_patterns=list(wanted)))
        )
    except BaseException:
        _remove_wrong(reference, commit, {name: wanted[name] for name in new})
        raise
    # Check all small files. The digest of a cached checkpoint is compared with the record when zoo loads it.
    checked = {name: file for name, file in wanted.items() if name in new or name != CHECKPOINT}
    if wrong := _remove_wrong(reference, commit, checked):
        raise _not_the_listed(reference, wrong[0], wanted[wrong[0]], len(wrong))
    if reference.revision != commit:  # offline use needs the branch or tag; the client does not store it for a commit
        with suppress(OSError):  # the cache may be read-only
            pointer = folder.parents[1] / "refs" / (reference.revision or "main")
            pointer.parent.mkdir(parents=True, exist_ok=True)
            write_text(pointer, commit)
    return folder


def _published_files(reference: RepositoryReference, listing: CommitListing) -> dict[str, ListedFile]:
    if len(listing.files) > MOST_FILES:
        message = f"{reference} lists {len(listing.files):,} files; expected at most {MOST_FILES:,}"
        raise HubError(message, repository=reference.id, code="too-many-files")
    wanted = {name: file for name, file in listing.files.items() if is_published(name)}
    if missing := [name for name in (RECORD, CHECKPOINT) if name not in wanted]:
        raise HubError(_not_published(reference, missing, listing), repository=reference.id, code="not-published")
    for name, file in wanted.items():
        check_size(reference, name, file)
    return wanted


def check_size(reference: RepositoryReference, name: str, file: ListedFile) -> None:
    """Raise :class:`~zoo.errors.HubError` for a file that is too large to belong to a published run."""
    most = MOST_CHECKPOINT_BYTES if name == CHECKPOINT else MOST_OTHER_BYTES
    if file.size > most:
        size, limit = bytes_in_words(file.size), bytes_in_words(most)
        message = f"{reference} lists {name} with {size}; expected at most {limit}"
        raise HubError(message, repository=reference.id, code="file-too-large")


def _not_published(reference: RepositoryReference, missing: list[str], listing: CommitListing) -> str:
    configuration, file = None, listing.files.get(CONFIGURATION)
    if file and file.size <= LARGEST_CONFIGURATION and any(name.endswith(".safetensors") for name in listing.files):
        with suppress(OSError, ValueError):  # config.json only improves a hint, so ignore errors
            configuration = Path(client().hf_hub_download(reference.id, CONFIGURATION, revision=listing.commit))
    return (
        f"{reference} is not a run that zoo published: it has no {' and no '.join(missing)} "
        f"{describe_foreign(reference.id, listing.files, configuration)}"
    )


def _remove_wrong(reference: RepositoryReference, commit: str, listed: Mapping[str, ListedFile]) -> list[str]:
    """Delete cached files that differ from the Hub's file list, and return their names.

    A wrong file in the cache would otherwise be used by the next call.
    """
    from huggingface_hub import try_to_load_from_cache

    wrong = []
    for name, file in listed.items():
        cached = try_to_load_from_cache(reference.id, name, revision=commit)
        path = Path(cached) if isinstance(cached, str) else None
        if path is None or (path.is_file() and file.matches(path, sha256_of(path))):
            continue
        wrong.append(name)
        blob = path.resolve()
        for each in (path, *([blob] if blob.parent == path.parents[2] / "blobs" else [])):
            with suppress(OSError):  # the cache may be read-only
                each.unlink(missing_ok=True)
    return wrong


def _not_the_listed(reference: RepositoryReference, name: str, listed: ListedFile, count: int) -> WeightsError:
    digest = f"SHA-256 {listed.sha256}" if listed.sha256 else f"git SHA-1 {listed.git_sha1}"
    others = f", nor are {count - 1} other files" if count > 1 else ""
    return WeightsError(
        f"{reference}: {name} is not the file that the Hub lists ({listed.size:,} bytes, {digest}){others}; zoo "
        "removed the wrong files from the cache, try again",
        code="not-the-listed-file",
        path=name,
    )
