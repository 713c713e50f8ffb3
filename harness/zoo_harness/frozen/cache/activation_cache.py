"""Cache the outputs of the frozen part of a network, so that epochs and later runs compute only the trained part.

One pass over the images computes the outputs. The module :mod:`zoo_harness.frozen.cache.placement` decides whether the
outputs are kept in device memory, in host memory or only in files. A background thread writes outputs to files, even
while a network trains on outputs in memory. A later run with the same key (:mod:`zoo_harness.frozen.cache.key`) reads
the files instead of computing the outputs. After an interruption, the next run computes only the missing outputs. The
outputs in damaged files are computed again (:mod:`zoo_harness.frozen.cache.chunk_files`). If two processes need the
same outputs, one process computes the outputs while the other process waits.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zoo.errors import ZooError
from zoo_harness.compute.free_memory import free_device_memory, free_host_memory
from zoo_harness.frozen.cache.chunk_files import RETRY_SECONDS, ChunkFiles, stored_chunks
from zoo_harness.frozen.cache.entries import make_room
from zoo_harness.frozen.cache.key import CacheKey, EntryRecord, EntryTitle
from zoo_harness.frozen.cache.placement import ADVICE, NAMES, CachePolicy, Place
from zoo_harness.frozen.cache.rows import as_rows, bytes_of, from_rows
from zoo_harness.util.byte_sizes import bytes_in_words
from zoo_harness.util.progress import Progress, Silence

Indices = Tensor | NDArray[np.int64] | Sequence[int]
_READERS = 4
_CPU = torch.device("cpu")
_NO_ROWS = torch.empty(0, dtype=torch.uint8)


class ActivationCache:
    """Open the cached outputs of the frozen part for one data split, including outputs of earlier runs.

    ``place`` is the location of the outputs: ``"device"`` memory, ``"host"`` memory, ``"disk"`` or ``"off"``. The value
    ``"off"`` means that the cache stores nothing, and that every epoch has to run the whole network. ``place`` can
    change to ``"off"`` while outputs are being written. The cache calls ``say`` with messages for the user, and
    ``warn`` (by default ``say``) with warnings. At the end of the ``with`` block, the cache writes the remaining
    outputs to files. If an exception ends the ``with`` block, the cache only finishes the file that is being written.
    Entering the ``with`` block raises :class:`~zoo.errors.ZooError` if the policy requires a location that has too
    little space.

        with ActivationCache(key, title, CachePolicy(), device) as cache:
            for start, stop in cache.missing(batch_size):
                cache.write(start, prefix(images[start:stop]))
            if cache.place != "off":
                cache.finish()
                rows = cache.read(indices)
    """

    def __init__(
        self,
        key: CacheKey,
        title: EntryTitle,
        policy: CachePolicy,
        device: torch.device,
        say: Callable[[str], None] = lambda _line: None,
        progress: Progress | None = None,
        warn: Callable[[str], None] | None = None,
    ) -> None:
        self.key, self.title, self.policy, self.device = key, title, policy, device
        self.place: Place = "off"
        self._say, self._warn, self._progress = say, warn or say, progress or Silence()
        self._files: ChunkFiles | None = None
        self._rows = torch.empty(
            0, dtype=torch.uint8
        )  # (N, row_bytes); if place is "disk", only the rows of the chunk that is being computed
        self._other_rows = self._rows  # if place is "disk", the rows of the chunk that is being written to its file
        self._missing = set(range(key.chunks))
        self._next = 0  # the index of the next image to write in an unfinished chunk
        self._reasons: dict[Place, str] = {}  # for each location that was tried, why it cannot be used
        self._finished = False
        self._executor = ThreadPoolExecutor(1)  # writes chunks to files
        self._writing: list[Future[None]] = []

    def __len__(self) -> int:
        return self.key.images

    @property
    def missing_images(self) -> int:
        """The number of images in chunks that still have to be computed; 0 if the cache is off."""
        return 0 if self.place == "off" else sum(len(self.key.chunk(number)) for number in self._missing)

    @property
    def memory_bytes(self) -> int:
        """The number of bytes of cached outputs that count towards the memory budget."""
        return self.key.bytes if self.place in ("device", "host") else 0

    @property
    def in_files(self) -> bool:
        """Whether the outputs are stored in files for later runs, or will be stored when the cache closes."""
        return self._files is not None

    def missing(self, batch_size: int) -> Iterator[tuple[int, int]]:
        """Yield the start index and the end index of each batch of images whose outputs are missing.

        The last batch of a chunk may be smaller than ``batch_size``.
        """
        for chunk in map(self.key.chunk, sorted(self._missing)):
            for start in range(chunk.start, chunk.stop, batch_size):
                if self.place == "off":
                    return
                yield start, min(start + batch_size, chunk.stop)

    def write(self, start: int, tensors: Sequence[Tensor]) -> None:
        """Cache the outputs of consecutive images; ``start`` is the index of the first image.

        The images are a whole chunk, or they continue the chunk of the previous call. Raises :class:`ValueError` if
        shapes or dtypes of the tensors do not match the key. Raises :class:`~zoo.errors.ZooError` if a value is too
        large for the dtype of the cache. Raises the same exception if the disk is full and the user requires the
        location ``"disk"``.
        """
        if self.place == "off":
            return
        parts = [as_rows(spec, part) for spec, part in zip(self.key.kept, tensors, strict=True)]
        number, offset = divmod(start, self.key.chunk_images)
        chunk, stop = self.key.chunk(number), start + len(parts[0])
        equal = all(len(part) == len(parts[0]) for part in parts)
        if not equal or (offset and start != self._next) or stop > chunk.stop:
            raise ValueError(f"outputs of images {start} to {stop - 1} do not continue chunk {chunk}")
        rows = self._chunk_rows(number)[offset : offset + len(parts[0])]
        for column, part in zip(self.key.columns, parts, strict=True):
            rows[:, column.start : column.start + part.shape[1]].copy_(part)
        self._next = stop
        if stop == chunk.stop:
            self._missing.discard(number)
            self._save(number)

    def finish(self) -> None:
        """End writing and allow reading. Raises :class:`RuntimeError` if the outputs of some images are missing."""
        self._await_disk()
        if self.missing_images:
            raise RuntimeError(f"{self.missing_images} of {len(self)} images are not written")
        if self._files is not None:
            self._writing.append(self._executor.submit(self._files.release_write_lock))
        self._finished = self.place != "off"

    def read(self, indices: Indices) -> tuple[Tensor, ...]:
        """Return the cached outputs of the given images as new tensors ``(B, ...)`` on the device.

        ``indices``: image indices from 0, in any order, with or without repetitions. Raises :class:`IndexError` for
        indices out of range, and for indices that are not integers.
        """
        if not self._finished:
            raise RuntimeError("outputs cannot be read before finish(), or if the cache is off")
        wanted = torch.as_tensor(indices, device=_CPU)
        whole = wanted.ndim == 1 and wanted.dtype in (torch.int64, torch.int32)
        if not whole or (len(wanted) and not 0 <= int(wanted.min()) <= int(wanted.max()) < len(self)):
            raise IndexError(f"indices {wanted}: expected whole numbers from 0 to {len(self) - 1}")
        pairs = zip(self.key.kept, self._gathered(wanted), strict=True)
        return tuple(from_rows(spec, rows.to(self.device, non_blocking=True)) for spec, rows in pairs)

    def batches(self, indices: Iterable[Indices]) -> Iterator[tuple[Tensor, ...]]:
        """Call :meth:`read` for each element of ``indices``, and yield the results."""
        return map(self.read, indices)

    def sample_of_loaded(self, count: int) -> list[int]:
        """Choose at random up to ``count`` images whose outputs were loaded from files of earlier runs."""
        chunks = [self.key.chunk(number) for number in range(self.key.chunks) if number not in self._missing]
        images = np.concatenate([np.arange(chunk.start, chunk.stop) for chunk in chunks] or [np.arange(0)])
        # The seed is not fixed, so that each run checks other images than the runs before.
        drawn = np.random.default_rng().permutation(images)[:count]
        return sorted(drawn.tolist())

    def largest_difference(self, images: Sequence[int], tensors: Sequence[Tensor]) -> float:
        """Compare the cached outputs of the given images with new outputs, and return the largest difference.

        ``tensors``: the new outputs. Differences are relative to the largest magnitude in each tensor. A difference far
        above rounding errors means that the code of the network has changed since the outputs were cached. In that
        case, call :meth:`forget`.
        """
        differences = []
        for cached, computed in zip(self.read(images), tensors, strict=True):
            scale = float(computed.double().abs().max())
            differences.append(float((cached.double() - computed.double()).abs().max()) / (scale or 1.0))
        return max(differences)

    def forget(self) -> None:
        """Mark the outputs of all images as missing and delete their files, so that all outputs are computed again."""
        self._end_writing(finish=False)
        self._executor, self._writing = ThreadPoolExecutor(1), []
        self._finished, self._missing = False, set(range(self.key.chunks))
        if self._files is not None:
            try:
                self._acquire_write_lock(self._files)
                self._files.remove_chunks()
            except OSError as error:
                self._continue_without_files(error)

    def __enter__(self) -> ActivationCache:
        try:
            for place in self.policy.places(self.device.type):
                reason = self._allocate(place)
                if reason is None:
                    self.place = place
                    self._open_files()
                    return self
                self._reasons[place] = reason
            self._disable()
        except BaseException:
            self._close_files()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        try:
            self._end_writing(finish=kind is None)
            for task in self._writing:
                if not task.cancelled():
                    task.result()
        except OSError as error:
            self._warn(f"some outputs of the frozen part are not saved for later runs: {_reason(error)}")
        finally:
            self._rows, self._finished = _NO_ROWS, False
            self._close_files()

    def _allocate(self, place: Place) -> str | None:
        """Allocate the memory for a location. If the memory cannot be allocated, return the reason, else ``None``."""
        if place == "disk":
            self._rows, self._other_rows = (self._empty_rows(self.key.chunk_images, _CPU) for _ in range(2))
            return None
        free = free_device_memory(self.device) if place == "device" else free_host_memory()
        if reason := self.policy.memory_shortage_reason(place, self.key.bytes, free):
            return reason
        try:
            self._rows = self._empty_rows(len(self), self.device if place == "device" else _CPU)
        except (RuntimeError, MemoryError) as error:  # torch raises RuntimeError if memory is exhausted
            return str(error).partition("\n")[0]
        return None

    def _open_files(self) -> None:
        record = EntryRecord(title=self.title, key=self.key)
        try:
            folder = self.policy.folder / record.digest
            # A complete cache entry needs no further space. On a read-only disk, making room would fail.
            if len(stored_chunks(folder, self.key)) < self.key.chunks:
                for gone in make_room(self.policy.folder, record, self.policy.limit):
                    self._say(f"cleared cached outputs of {gone.name} ({bytes_in_words(gone.bytes)}) to make room")
            files = self._files = ChunkFiles(folder, record)
            if len(stored_chunks(files.folder, self.key)) < self.key.chunks:
                self._acquire_write_lock(files)  # waits for a process that is writing these chunks
            self._load(files)
            if self._missing:
                self._acquire_write_lock(files)
            else:
                files.release_write_lock()
        except OSError as error:
            self._continue_without_files(error)

    def _acquire_write_lock(self, files: ChunkFiles) -> None:
        if not files.acquire_write_lock():
            outputs = f"outputs of the same frozen part of {self.title.backbone}"
            self._say(f"waiting for another process that computes {outputs}")
            while not files.acquire_write_lock():
                time.sleep(RETRY_SECONDS)

    def _load(self, files: ChunkFiles) -> None:
        """Load all stored chunks. A chunk that does not match its checksum counts as missing."""
        stored = stored_chunks(files.folder, self.key)
        if not stored:
            return
        self._progress.stage("reading cached outputs", len(self))
        with ThreadPoolExecutor(_READERS) as executor:
            sound = executor.map(lambda number: self._load_chunk(files, number), stored)
            for number in (number for number, good in zip(stored, sound, strict=True) if good):
                self._missing.discard(number)
                self._progress.advance(len(self.key.chunk(number)))
        if damaged := len(self._missing.intersection(stored)):
            self._warn(
                f"{damaged} of {len(stored)} chunks of cached outputs in {files.folder} are damaged and recomputed"
            )
        elif self._missing:
            there = len(self) - self.missing_images
            self._say(f"outputs of {there:,} of {len(self):,} images are cached already")

    def _load_chunk(self, files: ChunkFiles, number: int) -> bool:
        """Load a chunk into memory, or only check it if ``place`` is ``"disk"``; return whether the checksum is right.

        Several threads call this method at the same time.
        """
        if self.place == "disk":
            return files.read(number)
        rows = self._chunk_rows(number)
        staged = self._empty_rows(len(rows), _CPU) if self.place == "device" else rows
        sound = files.read(number, bytes_of(staged))
        if sound and self.place == "device":
            rows.copy_(staged)
        return sound

    def _chunk_rows(self, number: int) -> Tensor:
        """Return the part of the cache's memory that holds the rows of a chunk."""
        chunk = self.key.chunk(number)
        return self._rows[: len(chunk)] if self.place == "disk" else self._rows[chunk.start : chunk.stop]

    def _empty_rows(self, images: int, device: torch.device) -> Tensor:
        return torch.empty((images, self.key.row_bytes), dtype=torch.uint8, device=device)

    def _gathered(self, wanted: Tensor) -> list[Tensor]:
        """Return the cached rows of the given images, as one byte tensor for each cached tensor.

        The byte tensors are in device memory if ``place`` is ``"device"``, and otherwise in host memory.
        """
        words = self._rows.view(torch.int64)  # torch copies 8-byte words faster than single bytes
        columns = [slice(column.start // 8, column.stop // 8) for column in self.key.columns]
        if self.place == "device":
            wanted = wanted.to(self.device)
            return [words[:, column].index_select(0, wanted).view(torch.uint8) for column in columns]
        # Copying pinned memory to a GPU is asynchronous. torch does not reuse pinned memory before the copy has ended.
        shapes, pinned = [(len(wanted), column.stop - column.start) for column in columns], self.device.type == "cuda"
        gathered = [torch.empty(shape, dtype=torch.int64, pin_memory=pinned) for shape in shapes]
        if self._files is not None and self.place == "disk":
            self._files.gather(wanted.numpy(), [bytes_of(part) for part in gathered])
        else:
            for column, part in zip(columns, gathered, strict=True):
                torch.index_select(words[:, column], 0, wanted, out=part)
        return [part.view(torch.uint8) for part in gathered]

    def _save(self, number: int) -> None:
        """Write a completed chunk to its file in a background thread."""
        self._await_disk()
        if self._files is not None:
            rows = self._chunk_rows(number)
            self._writing.append(self._executor.submit(self._write_chunk, self._files, number, rows))
        if self.place == "disk":
            self._rows, self._other_rows = self._other_rows, self._rows

    def _await_disk(self) -> None:
        """If outputs are kept only in files, wait until the current chunk is written, and its memory is free."""
        if self.place == "disk" and self._writing:
            try:
                self._writing.pop().result()
            except OSError as error:
                self._continue_without_files(error)

    def _write_chunk(self, files: ChunkFiles, number: int, rows: Tensor) -> None:
        files.write(number, bytes_of(rows.cpu()))

    def _end_writing(self, *, finish: bool) -> None:
        """Wait for the background thread to write all chunks, or only its current chunk if ``finish`` is false."""
        try:
            self._executor.shutdown(cancel_futures=not finish)
        finally:
            self._executor.shutdown(cancel_futures=True)  # a second Ctrl-C may have interrupted the first shutdown

    def _close_files(self) -> None:
        if self._files is not None:
            self._files.close()
            self._files = None

    def _continue_without_files(self, error: OSError) -> None:
        """Stop using files after an error: keep outputs only in memory, or turn the cache off if it used only files."""
        self._close_files()
        reason = f"{self.policy.folder}: {_reason(error)}"
        if self.place == "disk":
            self._reasons["disk"] = reason
            self._disable()
        else:
            outputs = f"outputs of the frozen part ({bytes_in_words(self.key.bytes)} of the {self.title.split} split)"
            self._warn(f"{outputs} are cached in memory only, not for later runs: {reason}")

    def _disable(self) -> None:
        """Turn the cache off. Raises :class:`~zoo.errors.ZooError` if the user requires a particular location."""
        self.place, self._rows = "off", _NO_ROWS
        outputs = f"outputs of the frozen part ({bytes_in_words(self.key.bytes)})"
        reason = "; ".join(f"{NAMES[place]}: {reason}" for place, reason in self._reasons.items())
        if self.policy.cache == "auto":
            self._warn(f"{outputs} are not cached, so every epoch runs the whole network: {reason}")
        elif self._reasons:
            (place,) = self._reasons
            facts = {"place": place, "needed": self.key.bytes, "reason": self._reasons[place]}
            raise ZooError(f"cannot keep {outputs} in {reason}; try {ADVICE[place]}", code="cache-no-room", **facts)


def _reason(error: OSError) -> str:
    return error.strerror or str(error)
