"""List the entries in the folder of cached outputs, and delete entries to make room for new entries.

Each cache entry is a folder whose name is the digest of the entry's record. Several processes that use a cache entry
can share the entry's lock ``use``. A process that deletes a cache entry must hold the lock ``use`` exclusively, so that
no entry is deleted while a run uses it.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from zoo.errors import ZooError
from zoo_harness.frozen.cache.chunk_files import MOST_RECORD_BYTES, RECORD, USE_LOCK, stored_chunks
from zoo_harness.frozen.cache.key import FORMAT, EntryRecord, installed_software
from zoo_harness.util.byte_sizes import bytes_in_words, parse_bytes
from zoo_harness.util.file_lock import FileLock
from zoo_harness.util.safe_files import read_regular

State = Literal["complete", "partial", "other version", "unreadable"]


def cache_folder() -> Path:
    """Return the folder of cached outputs: ``$ZOO_CACHE_DIR``, or ``blockzoo/features`` in the user's cache folder.

    The user's cache folder is ``$XDG_CACHE_HOME`` or ``~/.cache``.
    """
    if named := os.environ.get("ZOO_CACHE_DIR"):
        return Path(named).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "blockzoo" / "features"


def cache_limit() -> int:
    """Return the largest number of bytes for all cache entries together: ``$ZOO_CACHE_LIMIT``, or by default 100 GiB.

    Raises :class:`~zoo.errors.UsageError` if the value of the environment variable is not a size.
    """
    return parse_bytes("ZOO_CACHE_LIMIT", os.environ.get("ZOO_CACHE_LIMIT") or "100GiB")


@dataclass(frozen=True)
class Entry:
    """A cache entry on disk: a folder with the cached outputs of one frozen part on one data split.

    ``bytes``: the size of the entry on disk. ``images_done``: the number of images with cached outputs. ``last_used``:
    the time of the last use in seconds since 1970. ``record``: the content of the entry's record file; ``None`` if the
    file cannot be read.
    """

    folder: Path
    state: State
    record: EntryRecord | None
    bytes: int
    images_done: int
    last_used: float

    @property
    def key(self) -> str:
        """The digest of the entry's record, which is also the name of the entry's folder."""
        return self.folder.name

    @property
    def name(self) -> str:
        """The backbone, the dataset and the split as text, or the digest if the entry's record cannot be read."""
        if self.record is None:
            return self.key
        return f"{self.record.title.backbone} on {self.record.title.dataset}, {self.record.title.split}"

    @property
    def in_use(self) -> bool:
        """Whether a process is using the cache entry at the moment."""
        lock = FileLock(self.folder / USE_LOCK)
        try:
            free = lock.acquire(exclusive=True)
        except FileNotFoundError:
            return False
        lock.release()
        return not free


def entries(folder: Path) -> list[Entry]:
    """Return all cache entries in a folder, the most recently used entry first; other files are ignored."""
    found = []
    for path in folder.iterdir() if folder.is_dir() else ():
        if re.fullmatch(r"[0-9a-f]{32}", path.name) and path.is_dir() and not path.is_symlink():
            with contextlib.suppress(FileNotFoundError):  # another process may be deleting or writing the entry
                found.append(_entry(path))
    return sorted(found, key=lambda entry: entry.last_used, reverse=True)


def clear(entry: Entry) -> bool:
    """Delete a cache entry unless a process is using the entry; return true if the entry no longer exists."""
    lock = FileLock(entry.folder / USE_LOCK)
    try:
        if not lock.acquire(exclusive=True):
            return False
        # Rename the folder first, so that an interrupted deletion does not leave a folder that looks like a cache
        # entry.
        doomed = entry.folder.with_name(f".cleared-{secrets.token_hex(8)}")
        entry.folder.rename(doomed)
        shutil.rmtree(doomed)
    except FileNotFoundError:  # another process has deleted the entry
        return True
    finally:
        lock.release()
    return True


def remove_leftovers(folder: Path) -> None:
    """Remove the renamed folders of cache entries whose deletion was interrupted."""
    for doomed in folder.glob(".cleared-*"):
        shutil.rmtree(doomed, ignore_errors=True)


def make_room(folder: Path, record: EntryRecord, limit: int) -> Iterator[Entry]:
    """Delete the least recently used cache entries until a new entry has enough space, and yield the deleted entries.

    Raises :class:`OSError`, without deleting any entry, if deleting entries cannot free enough space.
    """
    remove_leftovers(folder)
    while doomed := _entries_to_clear(folder, record, limit):
        yield from filter(clear, doomed)  # clear() keeps entries in use, so the loop checks the space again


def _entries_to_clear(folder: Path, record: EntryRecord, limit: int) -> list[Entry]:
    found, size = entries(folder), record.key.bytes
    needed = size - sum(entry.bytes for entry in found if entry.key == record.digest)
    others = [entry for entry in found if entry.key != record.digest]
    used = [entry for entry in others if entry.in_use]
    idle = [entry for entry in others if entry not in used]
    # A cache entry in use counts with its final size, because a process may still be writing its chunks.
    promised = sum(max(entry.bytes, entry.record.key.bytes if entry.record else 0) for entry in used)
    free = _free_bytes(folder) - promised + sum(entry.bytes for entry in used)
    allowed = limit - promised - sum(entry.bytes for entry in idle)
    doomed = []
    while needed > 0 and (needed > free or size > allowed):
        if size > limit or not idle:
            if needed > free:
                raise OSError(f"{bytes_in_words(max(0, free))} free")
            use = f", and running processes use {bytes_in_words(promised)}" if size <= limit else ""
            raise OSError(f"ZOO_CACHE_LIMIT limits the cache to {bytes_in_words(limit)}{use}")
        doomed.append(idle.pop())
        free, allowed = free + doomed[-1].bytes, allowed + doomed[-1].bytes
    return doomed


def _free_bytes(folder: Path) -> int:
    """Return the number of bytes that the cache may use on the disk of a folder; the folder need not exist."""
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    disk = shutil.disk_usage(existing)
    return disk.free - min(disk.total // 50, 2**30)  # leave 2 % of the disk free, but at most 1 GiB


def _entry(folder: Path) -> Entry:
    size, done = 0, 0
    for path in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):  # another process may have renamed the file
            size += path.lstat().st_blocks * 512
    path = folder / RECORD
    record, state = _read(path)
    if record is not None:
        done = sum(len(record.key.chunk(number)) for number in stored_chunks(folder, record.key))
        if state == "complete" and done < record.key.images:
            state = "partial"
    return Entry(folder, state, record, size, done, (path if os.path.lexists(path) else folder).lstat().st_mtime)


def _read(path: Path) -> tuple[EntryRecord | None, State]:
    try:
        content = read_regular(path, MOST_RECORD_BYTES)
    except (FileNotFoundError, ZooError):
        return None, "unreadable"
    try:
        record = EntryRecord.model_validate_json(content)
    except ValidationError:
        other = b'"blockzoo features ' in content and FORMAT.encode() not in content
        return None, "other version" if other else "unreadable"
    same = record.key.software == installed_software() and record.digest == path.parent.name
    return record, "complete" if same else "other version"
