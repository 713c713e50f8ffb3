"""The folder that kept outputs lie in between runs: what is in it, how much it may hold, and clearing it.

Each store is a folder named by the digest of its key. Whoever uses one holds its lock ``use`` together with others;
what clears it must have that lock alone, so nothing is ever deleted under a run.
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

from zoo_harness.frozen.cache.key import FORMAT, StoreRecord, installed_software
from zoo_harness.frozen.cache.row_files import RECORD, USE_LOCK, read_journal
from zoo_harness.util.byte_sizes import bytes_in_words, parse_bytes
from zoo_harness.util.file_lock import FileLock

LIMIT = 100 * 2**30
_RESERVE = (0.02, 2**30)  # of the disk stays free: this share of it, at most so many bytes
State = Literal["complete", "partial", "other version", "unreadable"]


def cache_folder() -> Path:
    """Where kept outputs lie: ``$ZOO_CACHE_DIR``, else ``blockzoo/features`` in the user's cache."""
    named = os.environ.get("ZOO_CACHE_DIR")
    if named:
        return Path(named).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "blockzoo" / "features"


def cache_limit() -> int:
    """How many bytes all stores together may take: ``$ZOO_CACHE_LIMIT``, else 100 GiB.

    Raises :class:`~zoo.errors.UsageError` for a limit that is no size.
    """
    given = os.environ.get("ZOO_CACHE_LIMIT")
    return parse_bytes("ZOO_CACHE_LIMIT", given) if given else LIMIT


@dataclass(frozen=True)
class Entry:
    """One store as it lies on the disk: bytes it takes there, images that are complete in it, time of its last use.

    ``record`` is ``None`` where it cannot be read. ``last_used`` is in seconds since 1970.
    """

    folder: Path
    state: State
    record: StoreRecord | None
    bytes: int
    images_done: int
    last_used: float

    @property
    def key(self) -> str:
        """The digest of its key, which is its folder's name."""
        return self.folder.name

    @property
    def name(self) -> str:
        """What a person calls it, as far as that can be read."""
        if self.record is None:
            return self.key
        return f"{self.record.title.backbone} on {self.record.title.dataset}, {self.record.title.split}"

    @property
    def in_use(self) -> bool:
        """Whether a process has it open."""
        lock = FileLock(self.folder / USE_LOCK)
        try:
            free = lock.take(alone=True)
        except FileNotFoundError:
            return False
        lock.release()
        return not free


def entries(folder: Path) -> list[Entry]:
    """All stores in a cache folder, the one used last first; other files in it are none of ours."""
    try:
        found = [path for path in folder.iterdir() if re.fullmatch(r"[0-9a-f]{32}", path.name) and path.is_dir()]
    except FileNotFoundError:
        return []
    read = []
    for path in found:
        with contextlib.suppress(FileNotFoundError):  # cleared by another process meanwhile
            read.append(_entry(path))
    return sorted(read, key=lambda entry: entry.last_used, reverse=True)


def clear(entry: Entry) -> bool:
    """Delete a store unless a process has it open; return whether it is gone."""
    lock = FileLock(entry.folder / USE_LOCK)
    try:
        if not lock.take(alone=True):
            return False
        # Renamed first, so that a deletion that is cut short leaves nothing that looks like a store.
        doomed = entry.folder.with_name(f".cleared-{secrets.token_hex(8)}")
        entry.folder.rename(doomed)
        shutil.rmtree(doomed)
    except FileNotFoundError:  # another process was faster
        return True
    finally:
        lock.release()
    return True


def sweep(folder: Path) -> None:
    """Finish deletions that were cut short."""
    for doomed in folder.glob(".cleared-*"):
        shutil.rmtree(doomed, ignore_errors=True)


def lack_of_disk(folder: Path, key: str, needed: int, limit: int) -> str | None:
    """Why a store of so many bytes cannot be kept in this cache folder, or ``None`` where it can.

    Other stores that nobody uses may have to go for it; :func:`make_room` does that.
    """
    own, others = _split(folder, key)
    if own >= needed:
        return None
    if needed > limit:
        return f"the cache may hold {bytes_in_words(limit)} (ZOO_CACHE_LIMIT)"
    room = _room(folder)
    removable = sum(entry.bytes for entry in others if not entry.in_use)
    if needed - own > room + removable:
        return f"{bytes_in_words(max(0, room))} free for it"
    if needed > limit - sum(entry.bytes for entry in others) + removable:
        return f"the cache may hold {bytes_in_words(limit)} (ZOO_CACHE_LIMIT), and what is in use takes most of it"
    return None


def make_room(folder: Path, key: str, needed: int, limit: int) -> Iterator[Entry]:
    """Clear stores until one of so many bytes fits, those first whose last use is longest ago; yield what went."""
    sweep(folder)
    own, others = _split(folder, key)
    taken = sum(entry.bytes for entry in others)
    for entry in reversed(others):
        if needed - own <= _room(folder) and needed <= limit - taken:
            return
        if clear(entry):
            taken -= entry.bytes
            yield entry


def _split(folder: Path, key: str) -> tuple[int, list[Entry]]:
    """The bytes that one store takes already, and all other stores."""
    found = entries(folder)
    return sum(entry.bytes for entry in found if entry.key == key), [entry for entry in found if entry.key != key]


def _room(folder: Path) -> int:
    """Bytes of the folder's disk that may be used; the folder itself need not be there yet."""
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    disk = shutil.disk_usage(existing)
    return disk.free - min(int(_RESERVE[0] * disk.total), _RESERVE[1])


def _entry(folder: Path) -> Entry:
    size = sum(path.stat().st_blocks * 512 for path in folder.iterdir())
    record, state = _read(folder / RECORD)
    done = 0
    if record is not None:
        chunks, step, images = read_journal(folder, len(record.key.kept)), record.key.chunk_images, record.key.images
        done = sum(max(0, min(step, images - step * chunk)) for chunk in chunks)
        if state == "complete" and done < images:
            state = "partial"
    path = folder / RECORD
    return Entry(folder, state, record, size, done, (path if path.exists() else folder).stat().st_mtime)


def _read(path: Path) -> tuple[StoreRecord | None, State]:
    try:
        content = path.read_bytes()
        record = StoreRecord.model_validate_json(content)
    except FileNotFoundError:
        return None, "unreadable"
    except ValidationError:
        ours = b'"blockzoo features ' in content and FORMAT.encode() not in content
        return None, "other version" if ours else "unreadable"
    same = record.key.software == installed_software() and record.key.digest == path.parent.name
    return record, "complete" if same else "other version"
