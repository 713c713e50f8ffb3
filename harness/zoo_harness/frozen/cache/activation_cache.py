"""Cache what the frozen part of a network puts out, so that every epoch, and every later run, trains the rest alone.

The outputs are computed in one pass over the images and kept on the device, in host memory or in files
(:mod:`zoo_harness.frozen.cache.placement` chooses). If they are in memory, a thread also writes them to files while
training goes on. A later run with the same key (:mod:`zoo_harness.frozen.cache.key`) reads the files instead of
computing. An interrupted pass resumes, and damaged chunks are recomputed (:mod:`zoo_harness.frozen.cache.chunk_files`).
If two processes need the same outputs, one computes and the other waits.

    with open_activation_cache(key, title, CachePolicy(), device) as cache:
        for start, stop in cache.missing(batch_size):
            cache.write(start, prefix(images[start:stop]))
        cache.finish()
        if cache.place != "off":
            rows = cache.read(indices)
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zoo.errors import ZooError
from zoo_harness.compute.free_memory import free_device_memory, free_host_memory
from zoo_harness.frozen.cache.chunk_files import RETRY_SECONDS, ChunkFiles, stored_chunks
from zoo_harness.frozen.cache.entries import disk_shortage_reason, make_room
from zoo_harness.frozen.cache.key import CacheKey, EntryRecord, EntryTitle
from zoo_harness.frozen.cache.placement import ADVICE, NAMES, CachePolicy, Place
from zoo_harness.frozen.cache.rows import as_rows, bytes_of, from_rows, torch_dtype
from zoo_harness.util.byte_sizes import bytes_in_words
from zoo_harness.util.progress import Progress, Silence

Indices = Tensor | NDArray[np.int64] | Sequence[int]
Say = Callable[[str], None]
_MOST_READERS = 4
_PASSES: set[ActivationCache] = set()  # those that this very process computes


@contextmanager
def open_activation_cache(
    key: CacheKey,
    title: EntryTitle,
    policy: CachePolicy,
    device: torch.device,
    say: Say = lambda _line: None,
    progress: Progress | None = None,
) -> Iterator[ActivationCache]:
    """Open the cache of a key while the body runs, with all outputs that earlier runs have left.

    ``say`` gets a line for each event that a user should know. When the body ends, outputs that are not on the disk yet
    are written; when it raises, only the current chunk is. Raises :class:`~zoo.errors.ZooError` if the policy names a
    place that has no room.
    """
    cache = ActivationCache(key, title, policy, device, say, progress or Silence())
    done = False
    try:
        cache._open()
        yield cache
        done = True
    finally:
        cache._close(finish=done)


class ActivationCache:
    """Hold cached outputs of one data split; :func:`open_activation_cache` makes it.

    ``place`` says where they are: ``"device"``, ``"host"``, ``"disk"`` or ``"off"``. If it is ``"off"``, nothing is
    missing, nothing can be read and the whole network has to run. It can become ``"off"`` during the pass.
    """

    def __init__(
        self, key: CacheKey, title: EntryTitle, policy: CachePolicy, device: torch.device, say: Say, progress: Progress
    ) -> None:
        self.key, self.title, self.policy, self.device = key, title, policy, device
        self.place: Place = "off"
        self._say, self._progress = say, progress
        self._size = bytes_in_words(key.bytes)
        self._files: ChunkFiles | None = None
        self._rows: list[Tensor] = []  # (N, ...) of each tensor in memory, as stored
        self._done = np.zeros(key.images, dtype=bool)
        self._finished = False
        self._executor: ThreadPoolExecutor | None = None  # a thread that writes, while this process does
        self._error: BaseException | None = None  # why it writes no more

    def __len__(self) -> int:
        return self.key.images

    @property
    def missing_images(self) -> int:
        """The number of images to compute; 0 if nothing is cached."""
        return 0 if self.place == "off" else int((~self._done).sum())

    @property
    def memory_bytes(self) -> int:
        """The number of bytes of the memory budget that the outputs take."""
        return self.key.bytes if self.place in ("device", "host") else 0

    @property
    def in_files(self) -> bool:
        """Whether the outputs are in files for later runs, or will be when the cache closes."""
        return self._files is not None

    def missing(self, batch_size: int) -> Iterator[tuple[int, int]]:
        """Yield the first image and the end of each batch to compute and write, in order.

        The last batch of a chunk may be smaller than ``batch_size``.
        """
        for chunk in map(self.key.chunk, range(self.key.chunks)):
            if self._done[chunk.start : chunk.stop].all():
                continue
            for start in range(chunk.start, chunk.stop, batch_size):
                if self.place == "off":
                    return
                yield start, min(start + batch_size, chunk.stop)

    def write(self, start: int, tensors: Sequence[Tensor]) -> None:
        """Cache the outputs of images from ``start`` on, all of one chunk; on the disk chunk after chunk.

        Raises :class:`ValueError` for tensors that do not fit the key, and :class:`~zoo.errors.ZooError` if values do
        not fit into the stored dtype or the disk that the user named is full.
        """
        if self.place == "off":
            return
        rows = self._validated_rows(start, tensors)
        stop = start + len(rows[0])
        if self.place == "disk" and self._files is not None:
            try:
                self._files.write(start, [bytes_of(part.cpu()) for part in rows])
            except OSError as error:
                self._continue_without_files(error)
                return
        for cached, part in zip(self._rows, rows, strict=False):  # none on the disk
            cached[start:stop].copy_(part)
        self._done[start:stop] = True
        chunk = self.key.chunk(start // self.key.chunk_images)
        if self._rows and self._done[chunk.start : chunk.stop].all():
            self._in_background(self._save, chunk)

    def finish(self) -> None:
        """End the pass, so that the outputs can be read. Raises :class:`RuntimeError` if some are missing."""
        if self.missing_images:
            raise RuntimeError(f"{self.missing_images} of {len(self)} images are not written")
        if self._files is not None:
            self._in_background(self._files.end_writing)
        _PASSES.discard(self)
        self._finished = self.place != "off"

    def read(self, indices: Indices) -> tuple[Tensor, ...]:
        """Return the outputs of these images, in their order: fresh tensors ``(B, ...)`` on the device.

        ``indices`` are whole numbers from 0 on, in any order, repeated or not; others raise :class:`IndexError`.
        """
        return self._on_device(self._gathered(indices))

    def batches(self, indices: Iterable[Indices]) -> Iterator[tuple[Tensor, ...]]:
        """Yield what :meth:`read` returns for each; the next is fetched while a GPU works on the one before."""
        if self.device.type == "cpu" or self.place == "device":
            yield from map(self.read, indices)
        else:
            yield from map(self._on_device, _ahead(self._gathered, indices))

    def largest_difference(self, start: int, tensors: Sequence[Tensor]) -> float:
        """Compare outputs computed now with the cached ones, relative to the largest magnitude of each tensor.

        A difference far beyond rounding means that the network's code has changed: call :meth:`forget` then.
        """
        differences = []
        for cached, computed in zip(self.read(range(start, start + len(tensors[0]))), tensors, strict=True):
            scale = float(computed.double().abs().max())
            differences.append(float((cached.double() - computed.double()).abs().max()) / (scale or 1.0))
        return max(differences)

    def forget(self) -> None:
        """Count every image as missing, so that the next pass computes all of them again."""
        self._end_background(finish=False)
        self._finished, self._done[:] = False, False
        if self._files is not None:
            try:
                self._prepare_to_write(self._files, anew=True)
            except OSError as error:
                self._continue_without_files(error)

    def _open(self) -> None:
        reasons: dict[Place, str] = {}
        for place in self.policy.places(self.device.type):
            reason = self._shortage_reason(place) or self._allocate(place)
            if reason is None:
                self.place = place
                break
            reasons[place] = reason
        else:
            self._disable(reasons)
            return
        try:
            if reason := self._shortage_reason("disk"):
                raise OSError(reason)
            self._files = ChunkFiles(self.policy.folder / self.key.digest, EntryRecord(title=self.title, key=self.key))
            if len(stored_chunks(self._files.folder, self.key)) < self.key.chunks:
                self._acquire_write_lock(self._files)  # after a process that writes now, or to write
            self._load(self._files)
            if self.missing_images:
                self._prepare_to_write(self._files)
            else:
                self._files.release_write_lock()
        except OSError as error:
            self._continue_without_files(error)

    def _close(self, *, finish: bool) -> None:
        try:
            error = self._end_background(finish=finish)
            if error is not None:
                self._say(f"outputs of the frozen part are not all saved for later runs: {_reason(error)}")
        finally:
            self._rows, self._finished = [], False
            self._close_files()

    def _shortage_reason(self, place: Place) -> str | None:
        if place == "disk":
            try:
                return disk_shortage_reason(self.policy.folder, self.key, self.policy.limit)
            except OSError as error:
                return _reason(error)
        free = free_device_memory(self.device) if place == "device" else free_host_memory()
        return self.policy.memory_shortage_reason(place, self.key.bytes, free)

    def _allocate(self, place: Place) -> str | None:
        """Allocate the memory of a place, or return why there is none."""
        try:
            if place != "disk":
                self._rows = self._empty_rows(len(self), self.device if place == "device" else torch.device("cpu"))
        except (RuntimeError, MemoryError) as error:  # torch raises RuntimeError on the host too
            return str(error).partition("\n")[0]
        return None

    def _empty_rows(self, images: int, device: torch.device | None = None) -> list[Tensor]:
        """Return uninitialised rows of each tensor; without a device those to copy to or from a device."""
        # Pinned, so that the copy to a GPU is asynchronous; torch reuses such memory only after the copy.
        pinned = device is None and self.device.type == "cuda"
        return [
            torch.empty((images, *spec.row_shape), dtype=torch_dtype(spec), device=device, pin_memory=pinned)
            for spec in self.key.kept
        ]

    def _disable(self, reasons: Mapping[Place, str]) -> None:
        """Cache nothing. Raises :class:`~zoo.errors.ZooError` if the user named the place."""
        self.place = "off"
        reason = "; ".join(f"{NAMES[place]}: {reason}" for place, reason in reasons.items())
        if self.policy.cache == "auto":
            effect = "are not cached, so every epoch runs the whole network"
            self._say(f"outputs of the frozen part ({self._size}) {effect}: {reason}")
        elif reasons:
            advice = ADVICE[next(iter(reasons))]
            raise ZooError(f"cannot keep outputs of the frozen part ({self._size}) in {reason}; try {advice}")

    def _continue_without_files(self, error: OSError) -> None:
        """Go on in memory alone or, if the files were the cache itself, without a cache."""
        self._close_files()
        reason = f"{self.policy.folder}: {_reason(error)}"
        if self.place == "disk":
            self._disable({"disk": reason})
        else:
            outputs = f"outputs of the frozen part ({self._size} of the {self.title.split} split)"
            self._say(f"{outputs} are cached in memory only, not for later runs: {reason}")

    def _close_files(self) -> None:
        _PASSES.discard(self)
        if self._files is not None:
            self._files.close()
            self._files = None

    def _acquire_write_lock(self, files: ChunkFiles) -> None:
        if files.acquire_write_lock():
            return
        if any(other.key.digest == self.key.digest for other in _PASSES):
            raise RuntimeError("this process computes these outputs already; finish that pass first")
        self._say(f"waiting for another process that computes outputs of the same frozen part of {self.title.backbone}")
        self._progress.stage("waiting for another process", len(self))
        seen = 0
        while not files.acquire_write_lock():
            done = min(len(self), len(stored_chunks(files.folder, self.key)) * self.key.chunk_images)
            self._progress.advance(max(0, done - seen))
            seen = max(seen, done)
            time.sleep(RETRY_SECONDS)

    def _load(self, files: ChunkFiles) -> None:
        """Load the chunks that match their checksums; all others stay missing."""
        stored = stored_chunks(files.folder, self.key)
        if not stored:
            return
        self._progress.stage("reading cached outputs", len(self))
        executor = ThreadPoolExecutor(min(_MOST_READERS, os.cpu_count() or 1))
        try:
            sound = executor.map(partial(self._load_chunk, files), stored)
            for chunk in (self.key.chunk(number) for number, good in zip(stored, sound, strict=True) if good):
                self._done[chunk.start : chunk.stop] = True
                self._progress.advance(len(chunk))
        finally:
            executor.shutdown(cancel_futures=True)
        damaged = sum(not self._done[self.key.chunk(number).start] for number in stored)
        if damaged:
            self._say(f"{damaged} of {len(stored)} chunks of cached outputs in {files.folder} are damaged: recomputing")
        elif self.missing_images:
            self._say(f"outputs of {self._done.sum():,} of {len(self):,} images are cached already")

    def _load_chunk(self, files: ChunkFiles, number: int) -> bool:
        """Load a chunk, or on the disk check it; return whether it matches its checksums. Several threads call it."""
        chunk = self.key.chunk(number)
        targets = [rows[chunk.start : chunk.stop] for rows in self._rows]
        staged = self._empty_rows(len(chunk)) if self.place == "device" else targets
        sound = files.read_chunk(number, [bytes_of(part) for part in staged])
        if sound and self.place == "device":
            for target, part in zip(targets, staged, strict=True):
                target.copy_(part)
        return sound

    def _prepare_to_write(self, files: ChunkFiles, *, anew: bool = False) -> None:
        self._acquire_write_lock(files)
        if anew:
            files.remove_chunks()
        for gone in make_room(self.policy.folder, self.key, self.policy.limit):
            self._say(f"cleared cached outputs of {gone.name} ({bytes_in_words(gone.bytes)}) to make room")
        _PASSES.add(self)
        self._executor, self._error = ThreadPoolExecutor(1, "activation-cache"), None

    def _save(self, chunk: range) -> None:
        if self._files is not None:
            self._files.write(chunk.start, [bytes_of(rows[chunk.start : chunk.stop].cpu()) for rows in self._rows])

    def _in_background(self, task: Callable[..., None], *arguments: object) -> None:
        """Have the thread run a task, if this process writes, unless an earlier one fails."""

        def run() -> None:
            try:
                if self._error is None:
                    task(*arguments)
            except BaseException as error:
                self._error = error
                if self._files is not None:
                    self._files.release_write_lock()

        if self._executor is not None:
            self._executor.submit(run)

    def _end_background(self, *, finish: bool) -> OSError | None:
        """Wait for the thread, without ``finish`` for its current task alone; return what prevented the rest."""
        executor, self._executor = self._executor, None
        if executor is not None:
            try:
                executor.shutdown(cancel_futures=not finish)
            except BaseException:
                executor.shutdown(cancel_futures=True)  # the files must not be closed under the thread
                raise
        if self._error is not None and not isinstance(self._error, OSError):
            raise self._error
        return self._error

    def _validated_rows(self, start: int, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Return the tensors as stored."""
        if len(tensors) != len(self.key.kept):
            raise ValueError(f"{len(tensors)} tensors given; expected {len(self.key.kept)} for each image")
        rows = [as_rows(*pair) for pair in zip(self.key.kept, tensors, strict=True)]
        stop = start + len(rows[0])
        if any(len(part) != len(rows[0]) for part in rows) or not 0 <= start < stop <= len(self):
            raise ValueError(f"rows {start} to {stop} of {len(self)} images, given {[len(part) for part in rows]}")
        if stop > self.key.chunk(start // self.key.chunk_images).stop:
            raise ValueError(f"images {start} to {stop - 1} lie in several chunks of {self.key.chunk_images}")
        return rows

    def _gathered(self, indices: Indices) -> list[Tensor]:
        """Return rows as stored: on the device if they are cached there, else on the host."""
        if not self._finished:
            raise RuntimeError("outputs can be read after finish(), if they are cached at all")
        wanted = _validated_indices(indices, len(self))
        if self.place == "device":
            wanted = wanted.to(self.device)
            return [rows.index_select(0, wanted) for rows in self._rows]
        wanted = wanted.cpu()
        gathered = self._empty_rows(len(wanted))
        if self.place == "host":
            for rows, part in zip(self._rows, gathered, strict=True):
                torch.index_select(rows, 0, wanted, out=part)
        elif self._files is not None:
            try:
                self._files.gather(wanted.numpy(), [bytes_of(part) for part in gathered])
            except (OSError, EOFError) as error:
                where = f"cannot read cached outputs in {self._files.folder} any more: {error}"
                raise ZooError(f"{where}; start again, and damaged chunks are recomputed") from error
        return gathered

    def _on_device(self, rows: Sequence[Tensor]) -> tuple[Tensor, ...]:
        pairs = zip(self.key.kept, rows, strict=True)
        return tuple(from_rows(spec, part.to(self.device, non_blocking=True)) for spec, part in pairs)


def _ahead(fetch: Callable[[Indices], list[Tensor]], indices: Iterable[Indices]) -> Iterator[list[Tensor]]:
    """Yield what ``fetch`` returns for each, always one ahead of the caller."""
    with ThreadPoolExecutor(1) as executor:
        coming: Future[list[Tensor]] | None = None
        for wanted in indices:
            current, coming = coming, executor.submit(fetch, wanted)
            if current is not None:
                yield current.result()
        if coming is not None:
            yield coming.result()


def _validated_indices(indices: Indices, images: int) -> Tensor:
    wanted = torch.as_tensor(indices)
    if wanted.ndim != 1 or wanted.dtype in (torch.bool, torch.uint8) or wanted.is_floating_point():
        raise IndexError(f"expected a list of whole numbers, given {wanted.dtype} {tuple(wanted.shape)}")
    if wanted.device.type == "cpu" and len(wanted) and not 0 <= int(wanted.min()) <= int(wanted.max()) < images:
        raise IndexError(f"indices {int(wanted.min())} to {int(wanted.max())} of {images} images")
    return wanted.to(torch.int64)


def _reason(error: OSError) -> str:
    return error.strerror or str(error)
