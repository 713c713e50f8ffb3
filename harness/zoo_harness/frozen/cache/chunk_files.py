"""Reads and writes the files of one cache entry: one checksummed file for each chunk of images.

A chunk file holds the rows of its images and then the CRC-32 of them all. It is written under a
temporary name and renamed when it is complete, so a pass that is killed leaves whole chunks only. Nothing is flushed:
a reader checks every chunk when it opens the entry, and a chunk that a power failure has damaged counts as missing.

Rows are read, not mapped into memory: a page fault of a map can cost more than the copy, and a file that is truncated
under a map ends the process with SIGBUS.

Every process that uses an entry shares its lock ``use``. The process that writes holds its lock ``write`` alone.

No link is followed, and a folder that another user owns or may write is refused: its rows could be anything.
"""

from __future__ import annotations

import errno
import os
import shlex
import stat
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from io import FileIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from zoo.errors import ZooError
from zoo_harness.frozen.cache.key import CacheKey, EntryRecord
from zoo_harness.util.atomic_files import write_text
from zoo_harness.util.file_lock import FileLock
from zoo_harness.util.safe_files import read_regular

RECORD = "store.json"
USE_LOCK = "use"
RETRY_SECONDS = 0.2
MOST_RECORD_BYTES = 2**20
_SECONDS_TO_WRITE_A_RECORD = 60.0
_PIECE = 2**20  # bytes that are still in the processor's cache when their checksum is computed


def stored_chunks(folder: Path, key: CacheKey) -> list[int]:
    """Return the numbers of the chunks that have a file in an entry's folder; the file may be damaged."""
    return [number for number in range(key.chunks) if _chunk_path(folder, number).exists()]


class ChunkFiles:
    """Read and write the chunks of one entry, which stays locked against deletion until :meth:`close`.

    Raises :class:`OSError` if the folder cannot be created, written or locked, or belongs to others.
    """

    def __init__(self, folder: Path, record: EntryRecord) -> None:
        self.folder, self.key = folder, record.key
        self._use, self._write = FileLock(folder / USE_LOCK), FileLock(folder / "write")
        self._acquire_use_lock()
        try:
            self._write_record(record)
        except BaseException:
            self.close()
            raise

    def acquire_write_lock(self) -> bool:
        """Become the one process that writes; return false while another process is."""
        if not self._write.held:
            if not self._write.acquire(exclusive=True):
                return False
            self._remove_leftovers()
        return True

    def release_write_lock(self) -> None:
        """Let other processes write."""
        self._write.release()

    def close(self) -> None:
        """Release the locks."""
        self._write.release()
        self._use.release()

    def remove_chunks(self) -> None:
        """Delete all chunks; only for the process that holds the write lock."""
        for path in self.folder.glob("*.chunk"):
            path.unlink()

    def write(self, number: int, rows: memoryview) -> None:
        """Write the rows of a chunk, all or nothing; only for the process that holds the write lock."""
        path, checksum = _chunk_path(self.folder, number), 0
        temporary = path.with_suffix(".tmp")
        try:
            with temporary.open("xb") as file:
                # A full disk fails here, and writes are faster.
                os.posix_fallocate(file.fileno(), 0, len(rows) + 4)
                for piece in _pieces(rows):
                    file.write(piece)
                    checksum = zlib.crc32(piece, checksum)
                file.write(checksum.to_bytes(4, "little"))
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)

    def read(self, number: int, rows: memoryview | None = None) -> bool:
        """Read a whole chunk to ``rows``, or only check it, and return whether it matches its checksum."""
        size, checksum = len(self.key.chunk(number)) * self.key.row_bytes, 0
        scratch = memoryview(bytearray(_PIECE))
        pieces = _pieces(rows) if rows is not None else (scratch[: size - start] for start in range(0, size, _PIECE))
        try:
            with _opened(_chunk_path(self.folder, number)) as file:
                if not _is_own_file(os.fstat(file.fileno())):
                    return False
                position = 0
                for piece in pieces:
                    position = _read(file.fileno(), piece, position)
                    checksum = zlib.crc32(piece, checksum)
                return os.pread(file.fileno(), 5, size) == checksum.to_bytes(4, "little")
        except (OSError, EOFError):
            return False

    def gather(self, indices: NDArray[np.int64], columns: Sequence[memoryview]) -> None:
        """Read the rows of these images, column by column, to memory of that size, without checks.

        Raises :class:`~zoo.errors.ZooError` if a file is gone or too short.
        """
        numbers, offsets = np.divmod(indices, self.key.chunk_images)
        begins = offsets * self.key.row_bytes
        try:
            for number in np.unique(numbers).tolist():
                places = np.flatnonzero(numbers == number).tolist()
                with _opened(_chunk_path(self.folder, number)) as file:
                    for column, data in zip(self.key.columns, columns, strict=True):
                        width = column.stop - column.start
                        for place, begin in zip(places, begins[places].tolist(), strict=True):
                            _read(file.fileno(), data[place * width : (place + 1) * width], begin + column.start)
        except (OSError, EOFError) as error:
            advice = "start again, and damaged chunks are recomputed"
            message = f"cannot read cached outputs in {self.folder} any more: {error}; {advice}"
            raise ZooError(message, code="cache-unreadable", path=self.folder) from error

    def _remove_leftovers(self) -> None:
        """Remove what killed processes left; a record that is new may be that of a process which opens the entry."""
        for path in self.folder.glob("*.tmp"):
            with suppress(OSError):
                if not path.name.startswith(".") or time.time() - path.lstat().st_mtime > _SECONDS_TO_WRITE_A_RECORD:
                    path.unlink()

    def _acquire_use_lock(self) -> None:
        while True:
            self.folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _check_private(self.folder.parent, follow_links=True)  # the user named it
            self.folder.mkdir(mode=0o700, exist_ok=True)
            with suppress(FileNotFoundError):
                _check_private(self.folder, follow_links=False)
            with suppress(FileNotFoundError):  # another process cleared the entry in between
                if self._use.acquire(exclusive=False):
                    return
            time.sleep(RETRY_SECONDS)

    def _write_record(self, record: EntryRecord) -> None:
        """Write the record, or note the time of use in its time stamp."""
        path = self.folder / RECORD
        with suppress(FileNotFoundError, ValueError, ZooError):
            if EntryRecord.model_validate_json(read_regular(path, MOST_RECORD_BYTES)).key == record.key:
                with suppress(OSError):  # a read-only disk
                    os.utime(path)
                return
        write_text(path, record.model_dump_json(indent=2) + "\n")


def _chunk_path(folder: Path, number: int) -> Path:
    return folder / f"{number:06d}.chunk"


def _opened(path: Path) -> FileIO:
    """Open a file for reading without following a link, and without waiting if it is a pipe."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    return FileIO(os.open(path, flags))


def _is_own_file(status: os.stat_result) -> bool:
    return stat.S_ISREG(status.st_mode) and status.st_uid in (os.geteuid(), 0)


def _check_private(folder: Path, *, follow_links: bool) -> None:
    """Raise :class:`OSError`, with a remedy, if another user than root owns or may write a folder."""
    status, elsewhere = folder.stat(follow_symlinks=follow_links), "export ZOO_CACHE_DIR=FOLDER, with one of your own"
    if not stat.S_ISDIR(status.st_mode):
        raise NotADirectoryError(
            errno.ENOTDIR, f"{folder} is not a folder, or is a link to one; remove it", str(folder)
        )
    if status.st_uid not in (os.geteuid(), 0):
        fault, remedy = "another user owns", elsewhere
    elif status.st_mode & 0o022:
        is_own = status.st_uid == os.geteuid()
        fault, remedy = "other users may write", f"chmod go-w {shlex.quote(str(folder))}" if is_own else elsewhere
    else:
        return
    raise PermissionError(errno.EPERM, f"{fault} {folder}, and could forge outputs; try: {remedy}", str(folder))


def _pieces(rows: memoryview) -> Iterator[memoryview]:
    return (rows[start : start + _PIECE] for start in range(0, len(rows), _PIECE))


def _read(descriptor: int, data: memoryview, position: int) -> int:
    """Fill ``data`` from a position of the file, and return the position behind it."""
    while data:
        count = os.preadv(descriptor, [data], position)
        if not count:
            raise EOFError("the file ends before")
        data, position = data[count:], position + count
    return position
