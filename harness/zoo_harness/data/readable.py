"""Decode the images of a split, and either skip unreadable images or raise one error that lists them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np
from numpy.typing import NDArray

from zoo.dataset import ImageSplit
from zoo.errors import DataError
from zoo.image_reader import ImageReader
from zoo_harness.data.decoding import ImageData, decode_split
from zoo_harness.data.transform import BatchTransform
from zoo_harness.records.run import SplitRecord

UNREADABLE = "unreadable images"
"""The key under which ``DatasetRecord.skipped`` counts the skipped images."""
_SHOWN = 10
_LOOKED_AT = 64
_LEAST_CONTRAST = 16  # grey levels; 12-bit values that are read as 16-bit values span only 16 levels


def decode_readable(
    split: ImageSplit,
    indices: NDArray[np.int64],
    classes: tuple[str, ...],
    name: str,
    transform: BatchTransform,
    reader: ImageReader,
    *,
    skip: bool,
    count_values: bool = False,
) -> tuple[ImageData, SplitRecord, int]:
    """Decode images of a split; return the decoded images, their record and the number of skipped images.

    Images of more than 8 bits per channel are decoded twice if ``reader`` must first determine the value range. If
    ``count_values`` is true, the decoded images also have a histogram of the pixel values.

    If ``skip`` is true, the result equals the result for a dataset that lacks the unreadable images. If ``skip`` is
    false, unreadable images raise a single :class:`~zoo.errors.DataError`, whose message names the first of these
    images. A class without readable images is always an error.
    """
    unreadable: dict[int, DataError] = {}
    decode = partial(decode_split, split, classes=classes, name=name, transform=transform, count_values=count_values)
    data, record = decode(indices, unreadable=unreadable)
    if reader.settle():
        data, record = decode(indices, unreadable=unreadable)
    if not unreadable:
        return data, record, 0
    kept = readable_indices(unreadable, split, indices, classes, name, skip=skip)
    data, record = decode(kept)  # decode again, because the digest of the split starts with the labels
    return data, record, len(unreadable)


def readable_indices(
    unreadable: Mapping[int, DataError],
    split: ImageSplit,
    indices: NDArray[np.int64],
    classes: tuple[str, ...],
    name: str,
    *,
    skip: bool,
) -> NDArray[np.int64]:
    """Return the indices of the readable images; ``unreadable`` has the error at each position of an unreadable image.

    Raises the same errors as :func:`decode_readable`.
    """
    if unreadable and not skip:
        raise _listed(unreadable, len(indices))
    kept = np.delete(indices, sorted(unreadable))
    labels = np.asarray(split.labels)
    lost = sorted(set(labels[indices].tolist()) - set(labels[kept].tolist()))
    if lost:
        raise DataError(
            f"--skip-unreadable leaves class {classes[lost[0]]!r} without an image in split {name!r} "
            f"({len(lost)} such class(es)); first unreadable image: {next(iter(unreadable.values()))}",
            code="class-unreadable",
            name=classes[lost[0]],
            split=name,
        )
    return kept


def _listed(unreadable: Mapping[int, DataError], images: int) -> DataError:
    errors = [unreadable[index] for index in sorted(unreadable)]
    if len(errors) == 1:
        # Images that changed in memory are readable after a new call of in_memory, so do not suggest skipping them.
        advice = "" if errors[0].code == "images-changed" else "; try --skip-unreadable"
        return DataError(f"{errors[0]}{advice}", code=errors[0].code, **{**errors[0].facts, "count": 1})
    shown = "; ".join(_without_advice(error) for error in errors[:_SHOWN])
    rest = "" if len(errors) <= _SHOWN else f"; and {len(errors) - _SHOWN:,} more"
    return DataError(
        f"{len(errors):,} of {images:,} images cannot be read: {shown}{rest}; replace or remove them, "
        "or try --skip-unreadable",
        code="images-unreadable",
        count=len(errors),
        examples=[str(error) for error in errors[:_SHOWN]],
    )


def _without_advice(error: DataError) -> str:
    return str(error).removesuffix("; replace or remove it").removesuffix("; remove or crop the image")


def skipped_warning(skipped: int) -> tuple[str, ...]:
    """Return a warning about skipped unreadable images, or an empty tuple if none were skipped."""
    line = f"skipped {skipped:,} images that cannot be read (--skip-unreadable); the run record has the count"
    return (line,) if skipped else ()


def contrast_warning(name: str, images: NDArray[np.uint8]) -> tuple[str, ...]:
    """Return a warning if 99.9 % of the pixel values of a split lie within 16 levels; sample at most 64 images.

    >>> contrast_warning("test", np.full((3, 4, 4), 7, np.uint8))[0].partition(";")[0]
    "images of split 'test' are nearly constant: 99.9 % of the values lie from 7 to 7, of 0 to 255"
    """
    chosen = np.unique(np.linspace(0, len(images) - 1, _LOOKED_AT).astype(int))
    counts = sum(np.bincount(images[index].ravel(), minlength=256) for index in chosen)
    shares = np.cumsum(counts) / np.sum(counts)
    low, high = (int(np.searchsorted(shares, share)) for share in (0.0005, 0.9995))
    if high - low >= _LEAST_CONTRAST:
        return ()
    return (
        f"images of split {name!r} are nearly constant: 99.9 % of the values lie from {low} to {high}, of 0 to 255; "
        "check the files and the value range",
    )
