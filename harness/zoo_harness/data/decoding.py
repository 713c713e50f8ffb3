"""Decode the images of one data split to uint8 arrays before training starts."""

from __future__ import annotations

import hashlib
import math
import os
import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
import xxhash
from numpy.typing import NDArray
from torch import Tensor

from zoo.dataset import ImageFiles, ImageSplit
from zoo.errors import DataError, ZooError
from zoo_harness.data.pixel_statistics import PixelCounts
from zoo_harness.data.subset import select_images
from zoo_harness.data.transform import BatchTransform
from zoo_harness.records.run import SplitRecord

Result = TypeVar("Result")

_IN_MEMORY = 2**30  # bytes; larger arrays of decoded images are stored in a memory-mapped file


@dataclass(frozen=True)
class ImageData:
    """Hold one decoded split: uint8 images ``(N, H, W)`` or ``(N, H, W, 3)`` and int64 labels ``(N,)``.

    ``sized`` says whether the images already have the network's input size. ``indices`` (N,) has the position of each
    image in the split before the subset was chosen. ``digests`` (N,): the digest of each decoded image before resizing.
    ``counts``: a histogram of the pixel values before resizing; ``None`` if the values were not counted.
    """

    images: NDArray[np.uint8]
    labels: Tensor
    sized: bool
    transform: BatchTransform
    indices: NDArray[np.int64]
    digests: NDArray[np.uint64]
    counts: PixelCounts | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def raw_pixels(self) -> NDArray[np.uint8]:
        """The pixels of each image as one row, ``(N, H W)`` or ``(N, H W 3)``; a view if the array is contiguous."""
        return self.images.reshape(len(self), -1)

    def batch(self, indices: NDArray[np.int64], device: torch.device) -> tuple[Tensor, Tensor]:
        """Return the normalised network input and the labels of the images at these indices, on the device."""
        planes, labels = self.planes(indices, device)
        return self.transform.normalise(planes), labels

    def planes(self, indices: NDArray[np.int64], device: torch.device) -> tuple[Tensor, Tensor]:
        """Return the images at these indices, resized to uint8 (B, 3, h, w), and their labels, on the device."""
        raw = torch.from_numpy(np.ascontiguousarray(self.images[indices])).to(device)
        labels = self.labels[torch.from_numpy(indices)].to(device)
        return raw.permute(0, 3, 1, 2) if self.sized else self.transform.resize_and_crop(raw), labels

    def in_order(self, batch_size: int, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the normalised network input and the labels of all images, batch by batch in order."""
        return (self.batch(indices, device) for indices in index_batches(range(len(self)), batch_size))


def index_batches(images: range, batch_size: int) -> list[NDArray[np.int64]]:
    """Divide a range of image indices into batches of consecutive indices.

    >>> [len(batch) for batch in index_batches(range(70), 32)]
    [32, 32, 6]
    """
    starts = range(images.start, images.stop, batch_size)
    return [np.arange(start, min(start + batch_size, images.stop)) for start in starts]


def decode_split(
    split: ImageSplit,
    indices: NDArray[np.int64],
    classes: tuple[str, ...],
    name: str,
    transform: BatchTransform,
    unreadable: dict[int, DataError] | None = None,
    *,
    count_values: bool = False,
) -> tuple[ImageData, SplitRecord]:
    """Decode the images of a split that ``indices`` selects; return the decoded images and the split's record.

    ``unreadable`` maps each unreadable image's position in ``indices`` to the error, and is filled by this function. If
    ``unreadable`` is ``None``, the first error is raised. If ``count_values`` is true, the decoded images also have a
    histogram of the pixel values.
    """
    selected = select_images(split, indices)
    labels = np.asarray(selected.labels, dtype=np.int64)
    digest = hashlib.sha256(labels.tobytes())
    counts = PixelCounts() if count_values else None
    if isinstance(selected.images, np.ndarray):
        images, sized = checked_array(selected.images, name), False
        digest.update(f"{images.shape}".encode())
        digest.update(np.ascontiguousarray(images).data)
        digests = np.fromiter(map(image_digest, images), np.uint64, len(images))
        if counts is not None:
            counts += PixelCounts.of_array(images)
    else:
        digests = np.empty(len(labels), np.uint64)
        images, sized = _decode_files(selected.images, transform, digest, digests, unreadable, counts), True
    record = SplitRecord(
        split=name,
        images=len(labels),
        per_class=tuple(int(count) for count in np.bincount(labels, minlength=len(classes))),
        pixels=images.shape[1:],
        resized=sized,
        fingerprint=digest.hexdigest(),
    )
    return ImageData(images, torch.from_numpy(labels), sized, transform, indices, digests, counts), record


def checked_array(images: NDArray[Any], name: str) -> NDArray[np.uint8]:
    """Return the images unchanged; raise :class:`~zoo.errors.DataError` if their type or shape is wrong."""
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[3] != 3):
        raise DataError(
            f"images of split {name!r} are wrong: {images.dtype} {images.shape}; "
            "expected uint8 (N, H, W) or (N, H, W, 3)",
            code="image-array",
            split=name,
        )
    return images


def image_digest(pixels: NDArray[np.uint8]) -> int:
    """Return a 64-bit hash of the size and the pixel values of one image ``(H, W)`` or ``(H, W, 3)``.

    The probability that any two of a million different images have the same digest is 3e-8. A grey image has the same
    digest as the RGB image whose three channels all equal the grey image.

    >>> grey = np.arange(6, dtype=np.uint8).reshape(2, 3)
    >>> image_digest(grey) == image_digest(np.stack([grey] * 3, axis=-1)), image_digest(grey) == image_digest(grey.T)
    (True, False)
    """
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[..., None], 3, axis=2)
    # The digest also depends on the width, because the height and the number of bytes determine the width.
    return xxhash.xxh3_64_intdigest(np.ascontiguousarray(pixels).data, seed=len(pixels))


def _decode_files(
    files: ImageFiles,
    transform: BatchTransform,
    digest: Any,
    digests: NDArray[np.uint64],
    unreadable: dict[int, DataError] | None,
    counts: PixelCounts | None,
) -> NDArray[np.uint8]:
    images = _allocate((len(files), *transform.preprocessing.input_size, 3))
    paths = getattr(files, "paths", None)

    def keep(index: int, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        digests[index] = image_digest(pixels)  # hash the pixels now, while they are in the processor's cache
        planes = transform.resize_and_crop(
            torch.from_numpy(pixels)[None], str(paths[index]) if paths else f"image {index}"
        )
        images[index] = planes[0].permute(1, 2, 0).numpy()
        return pixels

    for pixels in read_pixels(files, keep, unreadable):
        digest.update(f"{pixels.shape}".encode())
        digest.update(pixels.data)
        if counts is not None:
            counts += PixelCounts.of_image(pixels)
    return images


def read_pixels(
    files: ImageFiles, use: Callable[[int, NDArray[np.uint8]], Result], unreadable: dict[int, DataError] | None
) -> Iterator[Result]:
    """Decode each image to uint8 ``(H, W, 3)``, call ``use(index, pixels)``, and yield the returned values in order.

    Several threads call ``use`` if ``files.concurrent`` is true. ``unreadable`` is filled with the index and the error
    of each unreadable image; such an image yields nothing. If ``unreadable`` is ``None``, the first error is raised.
    """

    def read(index: int) -> list[Result]:
        try:
            return [use(index, np.array(files[index].convert("RGB")))]
        except DataError as error:
            if unreadable is None:
                raise
            unreadable[index] = error
            return []

    concurrent = getattr(files, "concurrent", False)
    for results in _in_threads(read, len(files)) if concurrent else map(read, range(len(files))):
        yield from results


def _in_threads(decode: Callable[[int], Result], images: int) -> Iterator[Result]:
    """Yield ``decode(index)`` for all images in order, while threads already decode the next images."""
    threads = os.cpu_count() or 1
    coming: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(threads) as executor:
        try:
            for index in range(images):
                coming.append(executor.submit(decode, index))
                if len(coming) > 2 * threads:
                    yield coming.popleft().result()
            while coming:
                yield coming.popleft().result()
        finally:
            for future in coming:  # some remain if an image raised an error or the caller stopped early
                future.cancel()


def _allocate(shape: tuple[int, ...]) -> NDArray[np.uint8]:
    size = math.prod(shape)
    if size <= _IN_MEMORY:
        return np.empty(shape, np.uint8)
    try:
        # The temporary file has no name, so the system deletes it even if the process is killed.
        with tempfile.TemporaryFile() as file:
            os.posix_fallocate(file.fileno(), 0, size)  # reserve disk space; a full disk would later kill the process
            return np.memmap(file, np.uint8, "w+", shape=shape)
    except OSError as error:
        raise ZooError(
            f"no room for the decoded images: {size / 2**30:.1f} GiB in {tempfile.gettempdir()} "
            f"({error.strerror or error}); free disk space, set TMPDIR to another folder, or use fewer images with "
            "--per-class or --limit",
            code="disk-full",
            path=tempfile.gettempdir(),
        ) from error
