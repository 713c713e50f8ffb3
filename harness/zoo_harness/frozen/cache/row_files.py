"""Kept outputs on the disk: one file of rows for each tensor, and a journal of the chunks that are whole.

A pass writes rows image by image into files whose room is reserved beforehand. When the rows of a chunk are written,
a line with its number and the CRC-32 of its part of each file is added to the journal. So a pass that is cut short is
taken up where it stopped, and on opening every chunk is read and compared with its line: what a crash, a full disk or a
failing one left wrong is as good as not written. That is also why nothing waits for the disk (no fsync).

Rows are read with ``pread`` and not mapped into memory: the page faults of a map can cost more than the copy, and a
file that is cut short while it is read is an error, not the end of the process.

Two locks order the processes. All that have the store open share ``use``; the one that writes has ``write`` alone.
"""

from __future__ import annotations

import os
import re
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from zoo_harness.frozen.cache.key import StoreRecord
from zoo_harness.util.atomic_files import write_text
from zoo_harness.util.file_lock import FileLock

RECORD = "store.json"
JOURNAL = "journal"
USE_LOCK = "use"
WRITE_LOCK = "write"
WAIT_SECONDS = 0.2
_MOST_READERS = 4
_PIECE = 2**20  # bytes: what is read is still in the processor's cache when it is summed
Sums = tuple[int, ...]
RowsOf = Callable[[range], list[memoryview]]
Keep = Callable[[range, list[memoryview]], None]


def read_journal(folder: Path, tensors: int) -> dict[int, Sums]:
    """The checksums of each whole chunk, one for each tensor; lines that are damaged or cut short do not count."""
    try:
        text = (folder / JOURNAL).read_bytes().decode("ascii", errors="replace")
    except FileNotFoundError:
        return {}
    line = re.compile(r"^(\d{1,9})" + r" ([0-9a-f]{8})" * tensors + r"\n", re.MULTILINE)
    return {int(found[1]): tuple(int(part, 16) for part in found.groups()[1:]) for found in line.finditer(text)}


class StoreFile:
    """The files of one store, open and locked against deletion until :meth:`close`.

    Raises :class:`OSError` where the folder cannot be made, written or locked.
    """

    def __init__(self, folder: Path, record: StoreRecord) -> None:
        self.folder, self.record = folder, record
        self.images, self.chunk_images = record.key.images, record.key.chunk_images
        self.row_bytes = [kept.row_bytes for kept in record.key.kept]
        self._use, self._write = FileLock(folder / USE_LOCK), FileLock(folder / WRITE_LOCK)
        self._files: list[int] = []
        self._next, self._sums = 0, [0] * len(self.row_bytes)
        self._share()
        try:
            self._introduce()
        except BaseException:
            self.close()
            raise

    @property
    def chunks(self) -> int:
        """Into how many chunks the images are divided."""
        return -(-self.images // self.chunk_images)

    @property
    def paths(self) -> list[Path]:
        """The file of each tensor."""
        return [self.folder / f"{place}.rows" for place in range(len(self.row_bytes))]

    @property
    def writing(self) -> bool:
        """Whether this process is the one that may write."""
        return self._write.held

    def journal(self) -> dict[int, Sums]:
        """The checksums of each whole chunk."""
        return {
            chunk: sums for chunk, sums in read_journal(self.folder, len(self.row_bytes)).items() if chunk < self.chunks
        }

    def take_pen(self) -> bool:
        """Become the one that writes; false while another process is."""
        return self._write.take(alone=True)

    def reserve(self, *, anew: bool = False) -> None:
        """Reserve room for all rows, so that a disk that is too small is told now; only for the one that writes.

        With ``anew`` nothing written before counts any more. Raises :class:`OSError` where there is no room; files
        that were begun for it are gone then.
        """
        self._close_rows()
        begun = [path for path in self.paths if not path.exists()]
        try:
            if anew:
                (self.folder / JOURNAL).unlink(missing_ok=True)
            for path, size in zip(self.paths, self.row_bytes, strict=True):
                self._files.append(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666))
                os.posix_fallocate(self._files[-1], 0, size * self.images)
            self._end_last_line()
        except OSError:
            self.put_pen_down()
            for path in begun:
                path.unlink(missing_ok=True)
            raise

    def write(self, start: int, rows: Sequence[memoryview]) -> bool:
        """Write the rows of images from ``start`` on, of one chunk; return whether that completes the chunk.

        The rows of a chunk come in order and without gaps.
        """
        chunk, offset = divmod(start, self.chunk_images)
        if offset == 0:
            self._sums = [0] * len(rows)
        elif start != self._next:
            raise ValueError(f"image {start} comes out of turn; image {self._next} is next in its chunk")
        for place, data in enumerate(rows):
            _write_all(self._files[place], data, start * self.row_bytes[place])
            self._sums[place] = zlib.crc32(data, self._sums[place])
        self._next = start + len(rows[0]) // self.row_bytes[0]
        if self._next < self._span(chunk).stop:
            return False
        line = f"{chunk}" + "".join(f" {value:08x}" for value in self._sums) + "\n"
        with (self.folder / JOURNAL).open("ab", buffering=0) as journal:
            journal.write(line.encode())
        return True

    def put_pen_down(self) -> None:
        """Close the files and let others write."""
        self._close_rows()
        self._write.release()

    def open_rows(self) -> None:
        """Open the files for :meth:`gather`."""
        for path in self.paths:
            self._files.append(os.open(path, os.O_RDONLY | os.O_CLOEXEC))

    def gather(self, indices: NDArray[np.int64], rows: Sequence[memoryview]) -> None:
        """Read the rows of these images, of each tensor, to memory of that size.

        Raises :class:`OSError` where they cannot be read, :class:`EOFError` where a file ends before.
        """
        starts = np.flatnonzero(np.diff(indices, prepend=-2) != 1)  # of runs of images that follow each other
        ends = np.append(starts[1:], len(indices))
        for descriptor, width, data in zip(self._files, self.row_bytes, rows, strict=True):
            for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
                _read_all(descriptor, data[start * width : end * width], int(indices[start]) * width)

    def sound_chunks(self, rows_of: RowsOf | None, keep: Keep | None) -> Iterator[range]:
        """Read every chunk of the journal and yield the images of each that is what its checksums say.

        ``rows_of`` gives memory to read the rows of these images to, ``None`` reads them piece by piece and keeps
        nothing; ``keep`` takes what is sound. Both are called in several threads.
        """
        with _readers() as executor, self._open() as files:

            def check(item: tuple[int, Sums]) -> range | None:
                images = self._span(item[0])
                rows = None if rows_of is None else rows_of(images)
                if self._sums_of(files, images, rows) != item[1]:
                    return None
                if keep is not None and rows is not None:
                    keep(images, rows)
                return images

            yield from filter(None, executor.map(check, sorted(self.journal().items())))

    def close(self) -> None:
        """Close the files and give back all locks."""
        self.put_pen_down()
        self._use.release()

    def _close_rows(self) -> None:
        while self._files:
            os.close(self._files.pop())

    def _share(self) -> None:
        while True:
            self.folder.mkdir(parents=True, exist_ok=True)
            with suppress(FileNotFoundError):  # cleared between the two
                if self._use.take(alone=False):
                    return
            time.sleep(WAIT_SECONDS)

    def _introduce(self) -> None:
        """Write the record, or note in its time stamp that it is used."""
        path = self.folder / RECORD
        try:
            current = StoreRecord.model_validate_json(path.read_bytes()).key == self.record.key
        except (FileNotFoundError, ValueError):
            current = False
        if current:
            os.utime(path)
        else:
            write_text(path, self.record.model_dump_json(indent=2) + "\n")

    def _end_last_line(self) -> None:
        """A line that was cut short must not swallow the next one."""
        with (self.folder / JOURNAL).open("a+b", buffering=0) as journal:
            size = journal.seek(0, os.SEEK_END)
            journal.seek(max(0, size - 1))
            if journal.read(1) not in (b"", b"\n"):
                journal.write(b"\n")

    def _span(self, chunk: int) -> range:
        return range(chunk * self.chunk_images, min((chunk + 1) * self.chunk_images, self.images))

    def _sums_of(self, files: Sequence[int], images: range, rows: Sequence[memoryview] | None) -> Sums | None:
        """The checksums of what the files hold for these images, ``None`` where they end before."""
        sums = []
        for place, (descriptor, width) in enumerate(zip(files, self.row_bytes, strict=True)):
            whole = None if rows is None else rows[place]
            found = _sum(descriptor, images.start * width, len(images) * width, whole)
            if found is None:
                return None
            sums.append(found)
        return tuple(sums)

    @contextmanager
    def _open(self) -> Iterator[list[int]]:
        files: list[int] = []
        try:
            for path in self.paths:
                with suppress(FileNotFoundError):
                    files.append(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
                    continue
                files.append(os.open(os.devnull, os.O_RDONLY))  # a file that is gone holds no rows
            yield files
        finally:
            for descriptor in files:
                os.close(descriptor)


@contextmanager
def _readers() -> Iterator[Executor]:
    executor = ThreadPoolExecutor(min(_MOST_READERS, os.cpu_count() or 1))
    try:
        yield executor
    finally:
        executor.shutdown(cancel_futures=True)


def _write_all(descriptor: int, data: memoryview, offset: int) -> None:
    while data:
        written = os.pwrite(descriptor, data, offset)
        data, offset = data[written:], offset + written


def _read_all(descriptor: int, data: memoryview, offset: int) -> None:
    while data:
        count = os.preadv(descriptor, [data], offset)
        if not count:
            raise EOFError("the file ends before")
        data, offset = data[count:], offset + count


def _sum(descriptor: int, offset: int, size: int, whole: memoryview | None) -> int | None:
    """The checksum of a part of a file, which is read to ``whole`` or thrown away; ``None`` where it cannot be read."""
    found, done = 0, 0
    scratch = memoryview(bytearray(min(size, _PIECE)))
    while done < size:
        piece = scratch[: size - done] if whole is None else whole[done : done + _PIECE]
        try:
            _read_all(descriptor, piece, offset + done)
        except (OSError, EOFError):
            return None
        found = zlib.crc32(piece, found)
        done += len(piece)
    return found
