"""List, clear and evict the entries of the cache folder.

Each entry is a folder named by the digest of its key. A process that uses an entry holds its lock ``use`` together with
others, and a process that clears it must hold that lock alone, so nothing is deleted under a run.
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

from zoo_harness.frozen.cache.chunk_files import RECORD, USE_LOCK, stored_chunks
from zoo_harness.frozen.cache.key import FORMAT, CacheKey, EntryRecord, installed_software
from zoo_harness.util.byte_sizes import bytes_in_words, parse_bytes
from zoo_harness.util.file_lock import FileLock

LIMIT = 100 * 2**30
_RESERVE = (0.02, 2**30)  # keep this share of the disk free, at most this number of bytes
State = Literal["complete", "partial", "other version", "unreadable"]


def cache_folder() -> Path:
    """Return ``$ZOO_CACHE_DIR`` or, if that is not set, ``blockzoo/features`` in the user's cache."""
    named = os.environ.get("ZOO_CACHE_DIR")
    if named:
        return Path(named).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "blockzoo" / "features"


def cache_limit() -> int:
    """Return how many bytes all entries together may take: ``$ZOO_CACHE_LIMIT`` or 100 GiB.

    Raises :class:`~zoo.errors.UsageError` if the variable is not a size.
    """
    given = os.environ.get("ZOO_CACHE_LIMIT")
    return parse_bytes("ZOO_CACHE_LIMIT", given) if given else LIMIT


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
        """The digest of its key, which is its folder's name."""
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
    try:
        found = [path for path in folder.iterdir() if re.fullmatch(r"[0-9a-f]{32}", path.name) and path.is_dir()]
    except FileNotFoundError:
        return []
    read = []
    for path in found:
        with contextlib.suppress(FileNotFoundError):  # another process clears or writes it now
            read.append(_entry(path))
    return sorted(read, key=lambda entry: entry.last_used, reverse=True)


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


def disk_shortage_reason(folder: Path, key: CacheKey, limit: int) -> str | None:
    """Return why the outputs of a key cannot be kept in a cache folder, or ``None`` if they can."""
    found = _entries_to_clear(folder, key, limit)
    return found if isinstance(found, str) else None


def make_room(folder: Path, key: CacheKey, limit: int) -> Iterator[Entry]:
    """Clear entries until the outputs of a key fit, and yield them. Raises :class:`OSError` if they cannot fit."""
    remove_leftovers(folder)
    while found := _entries_to_clear(folder, key, limit):
        if isinstance(found, str):
            raise OSError(found)
        yield from filter(clear, found)  # a process may have opened one since, so look again


def _entries_to_clear(folder: Path, key: CacheKey, limit: int) -> list[Entry] | str:
    """Return the least recently used entries that must go for the outputs of a key, or why these cannot fit."""
    found, digest = entries(folder), key.digest
    needed = key.bytes - sum(entry.bytes for entry in found if entry.key == digest)
    others = [entry for entry in found if entry.key != digest]
    used = [entry for entry in others if entry.in_use]
    idle = [entry for entry in others if entry not in used]
    # Processes that write take as much as their outputs need in the end.
    promised = sum(max(entry.bytes, entry.record.key.bytes if entry.record else 0) for entry in used)
    free = _free_bytes(folder) - promised + sum(entry.bytes for entry in used)
    allowed = limit - promised - sum(entry.bytes for entry in idle)
    chosen = []
    while needed > 0 and (needed > free or key.bytes > allowed):
        if not idle or key.bytes > limit:
            if needed > free:
                return f"{bytes_in_words(max(0, free))} free"
            use = f", and running processes use {bytes_in_words(promised)}" if key.bytes <= limit else ""
            return f"the cache may hold {bytes_in_words(limit)} (ZOO_CACHE_LIMIT){use}"
        chosen.append(idle.pop())
        free, allowed = free + chosen[-1].bytes, allowed + chosen[-1].bytes
    return chosen


def _free_bytes(folder: Path) -> int:
    """Return the bytes of the folder's disk that may be used; the folder itself need not exist yet."""
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    disk = shutil.disk_usage(existing)
    return disk.free - min(int(_RESERVE[0] * disk.total), _RESERVE[1])


def _entry(folder: Path) -> Entry:
    size = 0
    for path in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):  # a writer has renamed it
            size += path.stat().st_blocks * 512
    record, state = _read(folder / RECORD)
    done = 0
    if record is not None:
        done = sum(len(record.key.chunk(number)) for number in stored_chunks(folder, record.key))
        if state == "complete" and done < record.key.images:
            state = "partial"
    path = folder / RECORD
    return Entry(folder, state, record, size, done, (path if path.exists() else folder).stat().st_mtime)


def _read(path: Path) -> tuple[EntryRecord | None, State]:
    try:
        content = path.read_bytes()
        record = EntryRecord.model_validate_json(content)
    except FileNotFoundError:
        return None, "unreadable"
    except ValidationError:
        other = b'"blockzoo features ' in content and FORMAT.encode() not in content
        return None, "other version" if other else "unreadable"
    same = record.key.software == installed_software() and record.key.digest == path.parent.name
    return record, "complete" if same else "other version"
