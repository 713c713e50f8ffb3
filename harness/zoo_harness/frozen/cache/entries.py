"""Lists, clears and evicts the entries of the cache folder.

Each entry is a folder named by the digest of its record. A process that uses an entry holds its lock ``use`` together
with others, and a process that clears it must hold that lock alone, so nothing is deleted under a run.
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
    """Return ``$ZOO_CACHE_DIR`` or, if that is not set, ``blockzoo/features`` in the user's cache."""
    if named := os.environ.get("ZOO_CACHE_DIR"):
        return Path(named).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "blockzoo" / "features"


def cache_limit() -> int:
    """Return how many bytes all entries together may take: ``$ZOO_CACHE_LIMIT`` or 100 GiB.

    Raises :class:`~zoo.errors.UsageError` if the variable is not a size.
    """
    return parse_bytes("ZOO_CACHE_LIMIT", os.environ.get("ZOO_CACHE_LIMIT") or "100GiB")


@dataclass(frozen=True)
class Entry:
    """Describe an entry on the disk: the bytes it takes, the images it has, and its last use in seconds since 1970.

    ``record`` is ``None`` if it cannot be read.
    """

    folder: Path
    state: State
    record: EntryRecord | None
    bytes: int
    images_done: int
    last_used: float

    @property
    def key(self) -> str:
        """The digest of its record, which is its folder's name."""
        return self.folder.name

    @property
    def name(self) -> str:
        """A name for people, or the digest if the record cannot be read."""
        if self.record is None:
            return self.key
        return f"{self.record.title.backbone} on {self.record.title.dataset}, {self.record.title.split}"

    @property
    def in_use(self) -> bool:
        """Whether a process has it open."""
        lock = FileLock(self.folder / USE_LOCK)
        try:
            free = lock.acquire(exclusive=True)
        except FileNotFoundError:
            return False
        lock.release()
        return not free


def entries(folder: Path) -> list[Entry]:
    """Return all entries of a cache folder, most recently used first; other files in it are ignored."""
    found = []
    for path in folder.iterdir() if folder.is_dir() else ():
        if re.fullmatch(r"[0-9a-f]{32}", path.name) and path.is_dir() and not path.is_symlink():
            with contextlib.suppress(FileNotFoundError):  # another process clears or writes it now
                found.append(_entry(path))
    return sorted(found, key=lambda entry: entry.last_used, reverse=True)


def clear(entry: Entry) -> bool:
    """Delete an entry unless a process has it open; return whether it is gone."""
    lock = FileLock(entry.folder / USE_LOCK)
    try:
        if not lock.acquire(exclusive=True):
            return False
        # Rename it first, so that an interrupted deletion leaves nothing that looks like an entry.
        doomed = entry.folder.with_name(f".cleared-{secrets.token_hex(8)}")
        entry.folder.rename(doomed)
        shutil.rmtree(doomed)
    except FileNotFoundError:  # another process was faster
        return True
    finally:
        lock.release()
    return True


def remove_leftovers(folder: Path) -> None:
    """Finish interrupted deletions."""
    for doomed in folder.glob(".cleared-*"):
        shutil.rmtree(doomed, ignore_errors=True)


def make_room(folder: Path, record: EntryRecord, limit: int) -> Iterator[Entry]:
    """Clear the least recently used entries until the outputs of a record fit; yield them.

    Raises :class:`OSError`, before it clears anything, if the outputs cannot fit.
    """
    remove_leftovers(folder)
    while doomed := _entries_to_clear(folder, record, limit):
        yield from filter(clear, doomed)  # a process may have opened one since, so look again


def _entries_to_clear(folder: Path, record: EntryRecord, limit: int) -> list[Entry]:
    found, size = entries(folder), record.key.bytes
    needed = size - sum(entry.bytes for entry in found if entry.key == record.digest)
    others = [entry for entry in found if entry.key != record.digest]
    used = [entry for entry in others if entry.in_use]
    idle = [entry for entry in others if entry not in used]
    # Processes that write take as much as their outputs need in the end.
    promised = sum(max(entry.bytes, entry.record.key.bytes if entry.record else 0) for entry in used)
    free = _free_bytes(folder) - promised + sum(entry.bytes for entry in used)
    allowed = limit - promised - sum(entry.bytes for entry in idle)
    doomed = []
    while needed > 0 and (needed > free or size > allowed):
        if size > limit or not idle:
            if needed > free:
                raise OSError(f"{bytes_in_words(max(0, free))} free")
            use = f", and running processes use {bytes_in_words(promised)}" if size <= limit else ""
            raise OSError(f"the cache may hold {bytes_in_words(limit)} (ZOO_CACHE_LIMIT){use}")
        doomed.append(idle.pop())
        free, allowed = free + doomed[-1].bytes, allowed + doomed[-1].bytes
    return doomed


def _free_bytes(folder: Path) -> int:
    """Return the bytes of the folder's disk that may be used; the folder itself need not exist yet."""
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    disk = shutil.disk_usage(existing)
    return disk.free - min(disk.total // 50, 2**30)  # some of the disk stays free


def _entry(folder: Path) -> Entry:
    size, done = 0, 0
    for path in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):  # a writer has renamed it
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
