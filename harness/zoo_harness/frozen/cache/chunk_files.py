"""Read and write the files of a cache entry: for each chunk of images, a file of cached outputs with a checksum.

A chunk file holds a row of bytes for each image, followed by a CRC-32 checksum of all rows. Each file is written under
a temporary name and renamed when it is complete, so that a killed process leaves only complete chunk files. Files are
not flushed to the disk explicitly. A reader verifies the checksum of every chunk before using a cache entry, so that a
chunk damaged by a power failure counts as missing.

Files are read with ``pread`` instead of being mapped into memory. Page faults can make a mapped file slower than a copy
of its bytes. If a mapped file is truncated, the process dies with SIGBUS.

Every process that uses a cache entry holds the entry's lock ``use``, which several processes can hold at the same time.
A process that writes chunks also holds the lock ``write``, which only one process can hold.

Symbolic links are not followed. A folder that another user owns or can write to is rejected, because that user could
have placed arbitrary rows in the folder.
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
_PIECE = 2**20  # bytes written or read at a time; few enough to stay in the processor's cache for the checksum


def stored_chunks(folder: Path, key: CacheKey) -> list[int]:
    """Return the numbers of the chunks for which the folder of a cache entry has a file, damaged or not."""
    return [number for number in range(key.chunks) if _chunk_path(folder, number).exists()]


class ChunkFiles:
    """Read and write the chunk files of one cache entry, and lock the entry against deletion until :meth:`close`.

    Raises :class:`OSError` if the folder cannot be created, written or locked, or if another user owns the folder.
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
        """Acquire the exclusive right to write chunks; return false if another process holds this right."""
        if not self._write.held:
            if not self._write.acquire(exclusive=True):
                return False
            self._remove_leftovers()
        return True

    def release_write_lock(self) -> None:
        """Release the exclusive right to write chunks."""
        self._write.release()

    def close(self) -> None:
        """Release both locks of the cache entry, so that other processes can write or delete the entry."""
        self._write.release()
        self._use.release()

    def remove_chunks(self) -> None:
        """Delete all chunk files. The calling process must hold the write lock."""
        for path in self.folder.glob("*.chunk"):
            path.unlink()

    def write(self, number: int, rows: memoryview) -> None:
        """Write the rows of a chunk to a file.

        The file appears only when all rows are written. The calling process must hold the write lock.
        """
        path, checksum = _chunk_path(self.folder, number), 0
        temporary = path.with_suffix(".tmp")
        try:
            with temporary.open("xb") as file:
                # Reserving the space reports a full disk before any write, and makes the writes faster.
                os.posix_fallocate(file.fileno(), 0, len(rows) + 4)
                for piece in _pieces(rows):
                    file.write(piece)
                    checksum = zlib.crc32(piece, checksum)
                file.write(checksum.to_bytes(4, "little"))
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)

    def read(self, number: int, rows: memoryview | None = None) -> bool:
        """Read a chunk file into ``rows``, and return whether its checksum matches.

        If ``rows`` is ``None``, only the checksum is verified.
        """
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
        """Read the rows of the given images without verifying checksums.

        ``columns``: for each cached tensor, the memory that receives the bytes of all given images. Raises
        :class:`~zoo.errors.ZooError` if a file is missing or too short.
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
            advice = "try to run the command again, because a new run recomputes damaged chunks"
            message = f"cannot read the cached outputs in {self.folder}: {error}; {advice}"
            raise ZooError(message, code="cache-unreadable", path=self.folder) from error

    def _remove_leftovers(self) -> None:
        """Remove temporary files of killed processes.

        A temporary file of the record is removed only if it is older than a minute, because another process may be
        writing it.
        """
        for path in self.folder.glob("*.tmp"):
            with suppress(OSError):
                if not path.name.startswith(".") or time.time() - path.lstat().st_mtime > _SECONDS_TO_WRITE_A_RECORD:
                    path.unlink()

    def _acquire_use_lock(self) -> None:
        while True:
            self.folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _check_private(self.folder.parent, follow_links=True)  # ZOO_CACHE_DIR may be a symbolic link
            self.folder.mkdir(mode=0o700, exist_ok=True)
            with suppress(FileNotFoundError):
                _check_private(self.folder, follow_links=False)
            with suppress(FileNotFoundError):  # another process may delete the entry at this moment
                if self._use.acquire(exclusive=False):
                    return
            time.sleep(RETRY_SECONDS)

    def _write_record(self, record: EntryRecord) -> None:
        """Write the record of the cache entry.

        If the file already has this record, only update the file's modification time, which states when the entry was
        last used.
        """
        path = self.folder / RECORD
        with suppress(FileNotFoundError, ValueError, ZooError):
            if EntryRecord.model_validate_json(read_regular(path, MOST_RECORD_BYTES)).key == record.key:
                with suppress(OSError):  # the disk may be read-only
                    os.utime(path)
                return
        write_text(path, record.model_dump_json(indent=2) + "\n")


def _chunk_path(folder: Path, number: int) -> Path:
    return folder / f"{number:06d}.chunk"


def _opened(path: Path) -> FileIO:
    """Open a file for reading, without following symbolic links, and without blocking on a pipe."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    return FileIO(os.open(path, flags))


def _is_own_file(status: os.stat_result) -> bool:
    return stat.S_ISREG(status.st_mode) and status.st_uid in (os.geteuid(), 0)


def _check_private(folder: Path, *, follow_links: bool) -> None:
    """Raise :class:`OSError` if a user other than root and the current user owns a folder or can write to it."""
    status, elsewhere = folder.stat(follow_symlinks=follow_links), "export ZOO_CACHE_DIR=FOLDER, with your own folder"
    if not stat.S_ISDIR(status.st_mode):
        raise NotADirectoryError(
            errno.ENOTDIR, f"{folder} is not a folder, or is a symbolic link; try to remove it", str(folder)
        )
    if status.st_uid not in (os.geteuid(), 0):
        fault, remedy = "another user owns", elsewhere
    elif status.st_mode & 0o022:
        is_own = status.st_uid == os.geteuid()
        fault, remedy = "other users may write", f"chmod go-w {shlex.quote(str(folder))}" if is_own else elsewhere
    else:
        return
    raise PermissionError(errno.EPERM, f"{fault} {folder} and could forge outputs; try: {remedy}", str(folder))


def _pieces(rows: memoryview) -> Iterator[memoryview]:
    return (rows[start : start + _PIECE] for start in range(0, len(rows), _PIECE))


def _read(descriptor: int, data: memoryview, position: int) -> int:
    """Fill ``data`` with the bytes of a file from ``position`` on, and return the position after the last byte read."""
    while data:
        count = os.preadv(descriptor, [data], position)
        if not count:
            raise EOFError("the file is too short")
        data, position = data[count:], position + count
    return position
