"""Keeps what the frozen part of a network puts out, so that every epoch, and every later run, trains the rest alone.

The outputs are computed in one pass over the images and kept on the device, in host memory or in files
(:mod:`zoo_harness.cache_policy` chooses). Whichever it is, they are also written to files in the cache folder, while
training goes on where they are in memory; a later run with the same key (:mod:`zoo_harness.cache_key`) reads them
instead of computing them. A pass that was cut short is taken up where it stopped, and what is damaged is computed again
(:mod:`zoo_harness.store_file`). Of two processes that need the same outputs one computes and the other waits.

    with open_store(key, title, CachePolicy(), device) as store:
        for start, stop in store.missing(batch_size):
            store.write(start, prefix(images[start:stop]))
        store.finish()
        if store.place != "off":
            rows = store.read(indices)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zoo.errors import ZooError
from zoo_harness.compute.free_memory import free_device_memory, free_host_memory
from zoo_harness.frozen.cache.background_writer import Saver
from zoo_harness.frozen.cache.folder import lack_of_disk, make_room
from zoo_harness.frozen.cache.key import StoreKey, StoreRecord, StoreTitle
from zoo_harness.frozen.cache.placement import CachePolicy, Place, choose_place, no_room
from zoo_harness.frozen.cache.row_files import WAIT_SECONDS, Keep, RowsOf, StoreFile
from zoo_harness.frozen.cache.rows import as_rows, bytes_of, from_rows, relative_difference
from zoo_harness.util.byte_sizes import bytes_in_words

if TYPE_CHECKING:
    from zoo_harness.util.progress import Progress


Indices = Tensor | NDArray[np.int64] | Sequence[int]
Say = Callable[[str], None]
_WRITTEN_HERE: set[str] = set()  # keys that a store of this very process is computing


@contextmanager
def open_store(
    key: StoreKey,
    title: StoreTitle,
    policy: CachePolicy,
    device: torch.device,
    say: Say = lambda _line: None,
    progress: Progress | None = None,
) -> Iterator[FeatureStore]:
    """The store of a key while the body runs: what is kept of it already is there, the rest is missing.

    ``say`` gets one line for each thing that a user should know. When the body ends, what is not on the disk yet is
    written; when it raises, only what is needed to take the pass up again is kept. Raises
    :class:`~zoo.errors.ZooError` where the policy names a place that has no room.
    """
    store = FeatureStore(key, title, policy, device, say, progress)
    done = False
    try:
        store._open()
        yield store
        done = True
    finally:
        store._close(write_all=done)


class FeatureStore:
    """Kept outputs of one split; :func:`open_store` makes it.

    ``place`` says where they are kept: ``"device"``, ``"host"``, ``"disk"`` or ``"off"``, in which case nothing is
    missing, nothing can be read and the whole network has to run. It can become ``"off"`` during the pass.
    """

    def __init__(
        self,
        key: StoreKey,
        title: StoreTitle,
        policy: CachePolicy,
        device: torch.device,
        say: Say,
        progress: Progress | None,
    ) -> None:
        self.key, self.title, self.policy, self.device = key, title, policy, device
        self.place: Place = "off"
        self._say, self._progress = say, progress
        self._file: StoreFile | None = None
        self._saver: Saver | None = None
        self._rows: list[Tensor] = []  # (N, ...) of each kept tensor, as stored
        self._done = np.zeros(key.images, dtype=bool)
        self._finished = False
        self._announced = False  # in _WRITTEN_HERE

    def __len__(self) -> int:
        return self.key.images

    @property
    def missing_images(self) -> int:
        """How many images have to be computed; none where nothing is kept."""
        return 0 if self.place == "off" else int((~self._done).sum())

    @property
    def memory_bytes(self) -> int:
        """How much of the memory budget the outputs take."""
        return self.key.bytes if self.place in ("device", "host") else 0

    @property
    def in_files(self) -> bool:
        """Whether the outputs are in files, or will be when the store closes, for later runs."""
        return self._file is not None

    def missing(self, batch_size: int) -> Iterator[tuple[int, int]]:
        """First image and end of each batch that has to be computed and written, in order.

        Batches are smaller than ``batch_size`` where a chunk ends.
        """
        step = self.key.chunk_images
        for begin in range(0, self.key.images, step):
            end = min(begin + step, self.key.images)
            if self._done[begin:end].all():
                continue
            for start in range(begin, end, batch_size):
                if self.place == "off":
                    return
                yield start, min(start + batch_size, end)

    def write(self, start: int, tensors: Sequence[Tensor]) -> None:
        """Keep the outputs of images from ``start`` on; batches are those of :meth:`missing`, in that order.

        Raises :class:`ValueError` for tensors that are not those of the key, and :class:`~zoo.errors.ZooError` where
        values do not fit into the dtype they are stored in or the disk that the user named is full.
        """
        if self.place == "off":
            return
        if len(tensors) != len(self.key.kept):
            raise ValueError(f"{len(tensors)} tensors given, {len(self.key.kept)} are kept of each image")
        rows = [as_rows(*pair) for pair in zip(self.key.kept, tensors, strict=True)]
        stop = start + len(rows[0])
        if any(len(part) != len(rows[0]) for part in rows) or not 0 <= start < stop <= len(self):
            raise ValueError(f"rows {start} to {stop} of {len(self)} images, given {[len(part) for part in rows]}")
        if start // self.key.chunk_images != (stop - 1) // self.key.chunk_images:
            raise ValueError(f"images {start} to {stop - 1} lie in several chunks of {self.key.chunk_images}")
        self._put(start, rows)
        self._done[start:stop] = True
        begin = start // self.key.chunk_images * self.key.chunk_images
        if self._saver is not None and stop == min(begin + self.key.chunk_images, len(self)):
            self._saver.save(range(begin, stop))

    def finish(self) -> None:
        """End the pass; from now on the outputs can be read. Raises :class:`RuntimeError` where some are missing."""
        if self.missing_images:
            raise RuntimeError(f"{self.missing_images} of {len(self)} images are not written")
        if self.place == "disk" and self._file is not None:
            self._file.put_pen_down()
            self._file.open_rows()
        if self._saver is not None:
            self._saver.no_more()
        self._announce(writing=False)
        self._finished = self.place != "off"

    def read(self, indices: Indices) -> tuple[Tensor, ...]:
        """The outputs for these images, in their order: fresh tensors ``(B, ...)`` on the device.

        ``indices`` are whole numbers from 0 on, in any order, repeated or not; others raise :class:`IndexError`.
        """
        return self._on_device(self._gathered(indices))

    def batches(self, indices: Iterable[Indices]) -> Iterator[tuple[Tensor, ...]]:
        """What :meth:`read` gives for each; the next is fetched while a GPU works on the one before."""
        if self.device.type == "cpu" or self.place == "device":
            yield from map(self.read, indices)
            return
        yield from map(self._on_device, _ahead(self._gathered, indices))

    def largest_difference(self, start: int, tensors: Sequence[Tensor]) -> float:
        """How far outputs computed now are from those kept, relative to the largest magnitude of each tensor.

        Far more than rounding means that the code of the network has changed since: :meth:`forget` then.
        """
        kept = self.read(list(range(start, start + len(tensors[0]))))
        return max(relative_difference(*pair) for pair in zip(kept, tensors, strict=True))

    def forget(self) -> None:
        """Count every image as missing, so that the next pass computes all anew."""
        if self._saver is not None:
            self._saver.end(write_all=False)
            self._saver = None
        self._finished, self._done[:] = False, False
        if self._file is None:
            return
        try:
            self._prepare_to_write(self._file, anew=True)
        except OSError as error:
            self._do_without_file(_told(error))

    def _open(self) -> None:
        needed, policy = self.key.bytes, self.policy
        lacks: dict[Literal["device", "host", "disk"], Callable[[], str | None]] = {}
        if self.device.type == "cuda":
            lacks["device"] = lambda: policy.lack_of_memory("device", needed, free_device_memory(self.device))
        lacks |= {"host": lambda: policy.lack_of_memory("host", needed, free_host_memory()), "disk": self._lack_of_disk}
        self.place, reason = choose_place(policy, needed, lacks)
        if self.place == "off":
            self._tell_off(reason)
            return
        self._open_file(None if self.place == "disk" else self._lack_of_disk())
        if self.place in ("device", "host"):
            self._take_memory()
        if self._file is None:
            return
        try:
            self._wait_for_writer(self._file)
            self._load(self._file)
            if self.missing_images:
                self._prepare_to_write(self._file)
        except OSError as error:
            self._do_without_file(_told(error))

    def _lack_of_disk(self) -> str | None:
        try:
            return lack_of_disk(self.policy.folder, self.key.digest, self.key.bytes, self.policy.limit)
        except OSError as error:
            return _told(error)

    def _close(self, *, write_all: bool) -> None:
        try:
            if self._saver is not None:
                error = self._saver.end(write_all=write_all)
                if error is not None:
                    self._say(f"outputs of the frozen part are not all kept for later runs: {_told(error)}")
        finally:
            self._rows, self._finished = [], False
            self._close_file()

    def _open_file(self, reason: str | None) -> None:
        if reason is None:
            try:
                self._file = StoreFile(
                    self.policy.folder / self.key.digest, StoreRecord(title=self.title, key=self.key)
                )
            except OSError as error:
                reason = _told(error)
        if reason is not None:
            self._do_without_file(reason)

    def _do_without_file(self, reason: str) -> None:
        """Go on in memory alone, or where the files were to be the store itself, keep nothing."""
        self._close_file()
        if self.place != "disk":
            needed = f"{bytes_in_words(self.key.bytes)} of the {self.title.split} split"
            self._say(
                f"outputs of the frozen part, {needed}, are not kept for later runs: {self.policy.folder}: {reason}"
            )
        elif self.policy.cache == "auto":
            self.place = "off"
            self._tell_off(f"{self.policy.folder}: {reason}")
        else:
            raise ZooError(no_room("disk", self.key.bytes, f"{self.policy.folder}: {reason}"))

    def _close_file(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
        self._announce(writing=False)

    def _announce(self, *, writing: bool) -> None:
        """Note that this process is computing these outputs, or no longer."""
        if writing:
            _WRITTEN_HERE.add(self.key.digest)
        elif self._announced:
            _WRITTEN_HERE.discard(self.key.digest)
        self._announced = writing

    def _take_memory(self) -> None:
        device = self.device if self.place == "device" else torch.device("cpu")
        try:
            self._rows = [
                torch.empty((len(self), *kept.row_shape), dtype=getattr(torch, kept.stored_dtype), device=device)
                for kept in self.key.kept
            ]
        except (RuntimeError, MemoryError) as error:  # torch raises RuntimeError on the host too
            reason = str(error).partition("\n")[0]
            if self.policy.cache != "auto":
                raise ZooError(no_room(self.place, self.key.bytes, reason)) from error
            self._rows, self.place = [], "disk" if self._file is not None else "off"
            if self.place == "off":
                self._tell_off(reason)

    def _tell_off(self, reason: str) -> None:
        if reason:
            needed = bytes_in_words(self.key.bytes)
            self._say(
                f"outputs of the frozen part ({needed}) are not kept, so every epoch runs the whole network: {reason}"
            )

    def _wait_for_writer(self, file: StoreFile) -> None:
        """Wait until the files are whole, or nobody writes them: then this process may."""
        if len(file.journal()) < file.chunks:
            self._take_pen(file)
            if len(file.journal()) == file.chunks:  # the one before has written all of it
                file.put_pen_down()

    def _take_pen(self, file: StoreFile) -> None:
        if file.writing or file.take_pen():
            return
        if self.key.digest in _WRITTEN_HERE:
            raise RuntimeError("this process is computing these very outputs already; finish that first")
        self._say(f"another process computes outputs of the same frozen part of {self.title.backbone}: waiting for it")
        seen = 0
        self._stage("waiting for another process", len(self))
        while not file.take_pen():
            done = min(len(self), len(file.journal()) * self.key.chunk_images)
            self._advance(done - seen)
            seen = done
            time.sleep(WAIT_SECONDS)

    def _load(self, file: StoreFile) -> None:
        """Take over what the files hold and what is what its checksum says; all else stays missing."""
        listed = len(file.journal())
        if not listed:
            return
        self._stage("reading kept outputs", len(self))
        sound = 0
        for images in file.sound_chunks(*self._targets()):
            self._done[images.start : images.stop] = True
            self._advance(len(images))
            sound += 1
        if sound < listed:
            parts = f"{listed - sound} of {listed} parts"
            self._say(f"kept outputs are damaged, {parts} in {file.folder}: computed again")
        elif self.missing_images:
            self._say(f"outputs of {len(self) - self.missing_images:,} of {len(self):,} images are kept already")

    def _targets(self) -> tuple[RowsOf | None, Keep | None]:
        """Where chunks are read to, and what is done with those that are sound."""
        if self.place == "disk":
            return None, None
        if self.place == "host":
            return lambda images: [bytes_of(rows[images.start : images.stop]) for rows in self._rows], None

        pinned = self.device.type == "cuda"

        def staged(images: range) -> list[memoryview]:
            return [
                bytes_of(torch.empty((len(images), *rows.shape[1:]), dtype=rows.dtype, pin_memory=pinned))
                for rows in self._rows
            ]

        def keep(images: range, data: list[memoryview]) -> None:
            for rows, part in zip(self._rows, data, strict=True):
                target = rows[images.start : images.stop]
                target.copy_(torch.frombuffer(part, dtype=rows.dtype).view(target.shape))

        return staged, keep

    def _prepare_to_write(self, file: StoreFile, *, anew: bool = False) -> None:
        self._take_pen(file)
        for gone in make_room(self.policy.folder, self.key.digest, self.key.bytes, self.policy.limit):
            self._say(f"cleared kept outputs of {gone.name} ({bytes_in_words(gone.bytes)}) to make room")
        file.reserve(anew=anew)
        self._announce(writing=True)
        if self.place != "disk":
            self._saver = Saver(file, self._rows)

    def _put(self, start: int, rows: Sequence[Tensor]) -> None:
        if self.place != "disk":
            for kept, part in zip(self._rows, rows, strict=True):
                kept[start : start + len(part)].copy_(part)
            return
        assert self._file is not None  # noqa: S101 - the place is the file
        try:
            self._file.write(start, [bytes_of(part.cpu()) for part in rows])
        except OSError as error:
            self._do_without_file(_told(error))

    def _gathered(self, indices: Indices) -> list[Tensor]:
        """Rows as stored: on the device where they are kept there, else on the host."""
        if not self._finished:
            raise RuntimeError("outputs can be read after finish(), where they are kept at all")
        wanted = _checked(indices, len(self))
        if self.place == "device":
            wanted = wanted.to(self.device)
            return [rows.index_select(0, wanted) for rows in self._rows]
        # Pinned, so that the copy to a GPU is asynchronous; torch reuses such memory only after the copy.
        pinned = self.device.type == "cuda"
        gathered = [
            torch.empty((len(wanted), *kept.row_shape), dtype=getattr(torch, kept.stored_dtype), pin_memory=pinned)
            for kept in self.key.kept
        ]
        wanted = wanted.cpu()
        if self.place == "disk":
            self._read_from_disk(wanted, gathered)
        else:
            for rows, part in zip(self._rows, gathered, strict=True):
                torch.index_select(rows, 0, wanted, out=part)
        return gathered

    def _read_from_disk(self, wanted: Tensor, rows: Sequence[Tensor]) -> None:
        assert self._file is not None  # noqa: S101 - the place is the file
        try:
            self._file.gather(wanted.numpy(), [bytes_of(part) for part in rows])
        except (OSError, EOFError) as error:
            raise ZooError(
                f"kept outputs in {self._file.folder} cannot be read any more ({error}); start again, and what is "
                "damaged is computed again"
            ) from error

    def _on_device(self, rows: Sequence[Tensor]) -> tuple[Tensor, ...]:
        return tuple(
            from_rows(kept, part.to(self.device, non_blocking=True))
            for kept, part in zip(self.key.kept, rows, strict=True)
        )

    def _stage(self, name: str, images: int) -> None:
        if self._progress is not None:
            self._progress.stage(name, images)

    def _advance(self, images: int) -> None:
        if self._progress is not None and images > 0:
            self._progress.advance(images)


def _ahead(fetch: Callable[[Indices], list[Tensor]], indices: Iterable[Indices]) -> Iterator[list[Tensor]]:
    """What ``fetch`` gives for each, always one ahead of who asks."""
    with ThreadPoolExecutor(1) as executor:
        coming: Future[list[Tensor]] | None = None
        for wanted in indices:
            current, coming = coming, executor.submit(fetch, wanted)
            if current is not None:
                yield current.result()
        if coming is not None:
            yield coming.result()


def _checked(indices: Indices, images: int) -> Tensor:
    wanted = torch.as_tensor(indices)
    if wanted.ndim != 1 or wanted.dtype in (torch.bool, torch.uint8) or wanted.is_floating_point():
        raise IndexError(f"expected a list of whole numbers, given {wanted.dtype} {tuple(wanted.shape)}")
    if wanted.device.type == "cpu" and len(wanted) and not 0 <= int(wanted.min()) <= int(wanted.max()) < images:
        raise IndexError(f"indices {int(wanted.min())} to {int(wanted.max())} of {images} images")
    return wanted.to(torch.int64)


def _told(error: OSError) -> str:
    return error.strerror or str(error)
