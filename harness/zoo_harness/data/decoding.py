"""Decode one split to uint8 images, once, before a run starts."""

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

_IN_MEMORY = 2**30  # bytes; more decoded images are stored in a memory-mapped file


@dataclass(frozen=True)
class ImageData:
    """One decoded split: uint8 images ``(N, H, W)`` or ``(N, H, W, 3)`` and int64 labels ``(N,)``.

    ``sized``: whether the images already have the network's input size. ``indices`` (N,): their places in the split
    that they were chosen from. ``digests`` (N,): those of the decoded images, before they were resized. ``counts``:
    the values of their pixels, before they were resized; ``None`` if they were not counted.
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
        """The images as rows ``(N, H W)`` or ``(N, H W 3)``; a view if the array is contiguous."""
        return self.images.reshape(len(self), -1)

    def batch(self, indices: NDArray[np.int64], device: torch.device) -> tuple[Tensor, Tensor]:
        """Return the network input and labels of these images, on the device."""
        planes, labels = self.planes(indices, device)
        return self.transform.normalise(planes), labels

    def planes(self, indices: NDArray[np.int64], device: torch.device) -> tuple[Tensor, Tensor]:
        """Return these images at the input size, uint8 (B, 3, h, w), and their labels, on the device."""
        raw = torch.from_numpy(np.ascontiguousarray(self.images[indices])).to(device)
        labels = self.labels[torch.from_numpy(indices)].to(device)
        return raw.permute(0, 3, 1, 2) if self.sized else self.transform.resize_and_crop(raw), labels

    def in_order(self, batch_size: int, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield all batches in order."""
        return (self.batch(indices, device) for indices in index_batches(range(len(self)), batch_size))


def index_batches(images: range, batch_size: int) -> list[NDArray[np.int64]]:
    """Divide image indices into batches, in order.

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
    """Decode the images of a split at these indices; return them with their record.

    ``unreadable`` collects the error of each image that cannot be read, by its position; without it, the first error is
    raised. ``count_values``: count the values of the pixels in the same pass.
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
    """Return the images of a split if they are uint8 of a valid shape; raise :class:`~zoo.errors.DataError` if not."""
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[3] != 3):
        raise DataError(
            f"images of split {name!r} are wrong: {images.dtype} {images.shape}; "
            "expected uint8 (N, H, W) or (N, H, W, 3)",
            code="image-array",
            split=name,
        )
    return images


def image_digest(pixels: NDArray[np.uint8]) -> int:
    """Return a 64-bit digest of the size and values of one image ``(H, W)`` or ``(H, W, 3)``.

    Among a million different images, two have the same digest with a probability of 3e-8. A grey image is digested
    as the colour image of the same values.

    >>> grey = np.arange(6, dtype=np.uint8).reshape(2, 3)
    >>> image_digest(grey) == image_digest(np.stack([grey] * 3, axis=-1)), image_digest(grey) == image_digest(grey.T)
    (True, False)
    """
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[..., None], 3, axis=2)
    # The height and the number of bytes give the width.
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
        digests[index] = image_digest(pixels)  # at once, while the processor's cache has them
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
    """Decode images to uint8 ``(H, W, 3)``, and yield in order what ``use`` returns for each index and image.

    Several threads call ``use`` if the images allow it. ``unreadable`` collects the error of each image that cannot be
    read, for which nothing is yielded; without it, the first error is raised.
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
    """Yield the results for all images in order, a few of them ahead; Pillow lets other threads run meanwhile."""
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
            for future in coming:  # after an image that cannot be decoded
                future.cancel()


def _allocate(shape: tuple[int, ...]) -> NDArray[np.uint8]:
    size = math.prod(shape)
    if size <= _IN_MEMORY:
        return np.empty(shape, np.uint8)
    try:
        # The file has no name, so it disappears with the process, however that ends.
        with tempfile.TemporaryFile() as file:
            os.posix_fallocate(file.fileno(), 0, size)  # if the disk filled up later, the process would be killed
            return np.memmap(file, np.uint8, "w+", shape=shape)
    except OSError as error:
        raise ZooError(
            f"no room for the decoded images: {size / 2**30:.1f} GiB in {tempfile.gettempdir()} "
            f"({error.strerror or error}); free disk space, set TMPDIR to another folder, or use fewer images with "
            "--per-class or --limit",
            code="disk-full",
            path=tempfile.gettempdir(),
        ) from error
