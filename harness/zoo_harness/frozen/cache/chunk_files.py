"""Read and write the files of one cache entry: one checksummed file for each chunk of images.

A chunk file holds the rows of its images, tensor by tensor, and then the CRC-32 of each tensor's rows. It is written
under a temporary name and renamed when it is full, so a pass that is killed leaves whole chunks only. The pass does not
wait for the disk: its chunks are flushed at the end. A reader checks every chunk when it opens the entry, and a chunk
that a power failure or a failing disk has damaged counts as missing.

Rows are read, not mapped into memory: a page fault of a map can cost more than the copy, and a file that is truncated
under a map ends the process with SIGBUS.

Every process that uses an entry shares its lock ``use``. The process that writes holds its lock ``write`` alone.
"""

from __future__ import annotations

import os
import struct
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from zoo_harness.frozen.cache.key import CacheKey, EntryRecord
from zoo_harness.util.atomic_files import write_text
from zoo_harness.util.file_lock import FileLock

RECORD = "store.json"
USE_LOCK = "use"
WRITE_LOCK = "write"
RETRY_SECONDS = 0.2
_PIECE = 2**20  # bytes that are still in the processor's cache when their checksum is taken


def stored_chunks(folder: Path, key: CacheKey) -> list[int]:
    """Return the numbers of the chunks that have a file in an entry's folder; the file may be damaged."""
    names = {path.name for path in folder.iterdir()}
    return [number for number in range(key.chunks) if _name(number) in names]


class ChunkFiles:
    """Read and write the chunks of one entry, which stays locked against deletion until :meth:`close`.

    Raises :class:`OSError` if the folder cannot be created, written or locked.
    """

    def __init__(self, folder: Path, record: EntryRecord) -> None:
        self.folder, self.key = folder, record.key
        self._widths = [tensor.row_bytes for tensor in self.key.kept]
        self._use, self._write = FileLock(folder / USE_LOCK), FileLock(folder / WRITE_LOCK)
        # Of the chunk that is written: the temporary file, its descriptor, the next image, and checksums so far.
        self._temporary, self._descriptor, self._next = folder, -1, 0
        self._checksums: list[int] = []
        self._written: list[int] = []  # chunks that are not flushed
        self._acquire_use_lock()
        try:
            self._write_record(record)
        except BaseException:
            self.close()
            raise

    def acquire_write_lock(self) -> bool:
        """Become the one process that writes; return false while another process is."""
        return self._write.held or self._write.acquire(exclusive=True)

    def write(self, start: int, rows: Sequence[memoryview]) -> None:
        """Write the rows of images from ``start`` on, of each tensor: whole chunks, or parts of a chunk in order.

        Only the process that holds the write lock may do so.
        """
        number, offset = divmod(start, self.key.chunk_images)
        if offset == 0:
            self._begin_chunk(number)
        elif start != self._next:
            raise ValueError(f"image {start} is out of order; image {self._next} is next in its chunk")
        images, position = len(self.key.chunk(number)), 0
        for tensor, (width, data) in enumerate(zip(self._widths, rows, strict=True)):
            _write(self._descriptor, data, position + offset * width)
            self._checksums[tensor] = zlib.crc32(data, self._checksums[tensor])
            position += width * images
        self._next = start + len(rows[0]) // self._widths[0]
        if self._next == self.key.chunk(number).stop:
            _write(self._descriptor, memoryview(self._packed(self._checksums)), position)
            self._temporary.replace(self.folder / _name(number))
            self._end_chunk()
            self._written.append(number)

    def end_writing(self) -> None:
        """Flush what is written to the disk and let other processes write."""
        for number in self._written:
            with self._opened(number) as descriptor:
                os.fsync(descriptor)
        self._written = []
        self._write.release()

    def release_write_lock(self) -> None:
        """Let other processes write."""
        self._write.release()

    def close(self) -> None:
        """Close the files and release the locks."""
        self._end_chunk()
        self._write.release()
        self._use.release()

    def remove_chunks(self) -> None:
        """Delete all chunks; only for the process that holds the write lock."""
        for path in self.folder.glob("*.chunk*"):
            path.unlink()

    def read_chunk(self, number: int, rows: Sequence[memoryview] = ()) -> bool:
        """Read a whole chunk to ``rows``, or only check it, and return whether it matches its checksums."""
        images, position = len(self.key.chunk(number)), 0
        checksums = [0] * len(self._widths)
        scratch = memoryview(bytearray(0 if rows else _PIECE))
        try:
            with self._opened(number) as descriptor:
                for tensor, width in enumerate(self._widths):
                    for start in range(0, width * images, _PIECE):
                        end = min(start + _PIECE, width * images)
                        piece = rows[tensor][start:end] if rows else scratch[: end - start]
                        _read(descriptor, piece, position + start)
                        checksums[tensor] = zlib.crc32(piece, checksums[tensor])
                    position += width * images
                stored = os.pread(descriptor, 4 * len(checksums) + 1, position)
        except (OSError, EOFError):
            return False
        return stored == self._packed(checksums)

    def gather(self, indices: NDArray[np.int64], rows: Sequence[memoryview]) -> None:
        """Read the rows of these images, of each tensor, to memory of that size, without checks.

        Raises :class:`OSError` if they cannot be read, and :class:`EOFError` if a file ends before.
        """
        chunks, offsets = np.divmod(indices, self.key.chunk_images)
        for number in np.unique(chunks).tolist():
            places = np.flatnonzero(chunks == number)
            images, position = len(self.key.chunk(number)), 0
            with self._opened(number) as descriptor:
                for width, data in zip(self._widths, rows, strict=True):
                    for place, offset, count in _runs(places, offsets[places]):
                        target = data[place * width : (place + count) * width]
                        _read(descriptor, target, position + offset * width)
                    position += width * images

    @contextmanager
    def _opened(self, number: int) -> Iterator[int]:
        descriptor = os.open(self.folder / _name(number), os.O_RDONLY)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def _begin_chunk(self, number: int) -> None:
        self._end_chunk()
        self._checksums = [0] * len(self._widths)
        # A killed process may have left a temporary file.
        self._temporary = self.folder / f"{_name(number)}.tmp"
        self._descriptor = os.open(self._temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        size = len(self.key.chunk(number)) * sum(self._widths) + 4 * len(self._widths)
        os.posix_fallocate(self._descriptor, 0, size)  # a full disk fails here, and writes are faster

    def _end_chunk(self) -> None:
        """Close the file of the chunk that is written, and delete it if it still has its temporary name."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
            self._temporary.unlink(missing_ok=True)

    def _packed(self, checksums: Sequence[int]) -> bytes:
        return struct.pack(f"<{len(checksums)}I", *checksums)

    def _acquire_use_lock(self) -> None:
        while True:
            self.folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.folder.mkdir(mode=0o700, exist_ok=True)
            with suppress(FileNotFoundError):  # another process cleared the entry in between
                if self._use.acquire(exclusive=False):
                    return
            time.sleep(RETRY_SECONDS)

    def _write_record(self, record: EntryRecord) -> None:
        """Write the record, or note the time of use in its time stamp."""
        path = self.folder / RECORD
        with suppress(FileNotFoundError, ValueError):
            if EntryRecord.model_validate_json(path.read_bytes()).key == record.key:
                os.utime(path)
                return
        write_text(path, record.model_dump_json(indent=2) + "\n")


def _name(number: int) -> str:
    return f"{number:06d}.chunk"


def _runs(places: NDArray[np.int64], offsets: NDArray[np.int64]) -> Iterator[tuple[int, int, int]]:
    """Yield the first place, the first offset and the length of each run in which both rise by one."""
    breaks = np.flatnonzero((np.diff(places) != 1) | (np.diff(offsets) != 1)) + 1
    starts = np.concatenate([[0], breaks])
    counts = np.diff(starts, append=len(places))
    yield from zip(places[starts].tolist(), offsets[starts].tolist(), counts.tolist(), strict=True)


def _write(descriptor: int, data: memoryview, position: int) -> None:
    while data:
        count = os.pwrite(descriptor, data, position)
        data, position = data[count:], position + count


def _read(descriptor: int, data: memoryview, position: int) -> None:
    while data:
        count = os.preadv(descriptor, [data], position)
        if not count:
            raise EOFError("the file ends before")
        data, position = data[count:], position + count
