"""Read images of equal size into one array, and skip unreadable images or name all of them in one error."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import PIL.Image

from zoo.dataset import ImageSplit
from zoo.errors import DataError
from zoo.image_reader import ImageReader
from zoo.picture import as_one_array


class DecodableRows(Protocol):
    """A sequence of images that are decoded when they are accessed; ``decode`` keeps grey images grey."""

    def __len__(self) -> int:
        """Return the number of images."""

    def __getitem__(self, index: int) -> PIL.Image.Image:
        """Decode one image to RGB."""

    def decode(self, index: int) -> PIL.Image.Image:
        """Decode one image to mode ``L`` or ``RGB``; raise :class:`~zoo.errors.DataError` if it is unreadable."""


class ChosenRows:
    """A selection of images, by index, from a longer sequence of images."""

    concurrent = True

    def __init__(self, images: DecodableRows, indices: np.ndarray[Any, Any]) -> None:
        self._images = images
        self._indices = indices

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> PIL.Image.Image:
        return self._images[int(self._indices[index])]

    def decode(self, index: int) -> PIL.Image.Image:
        """Decode one selected image to mode ``L`` or ``RGB``."""
        return self._images.decode(int(self._indices[index]))


def readable_array(
    images: DecodableRows, split: ImageSplit, reader: ImageReader, *, skip: bool
) -> tuple[ImageSplit, int]:
    """Return a split and its number of skipped images; images of equal size are in one array.

    If ``skip`` is true, unreadable images are skipped. Otherwise this function raises
    :class:`~zoo.errors.DataError`, which lists up to ten unreadable images.
    """
    try:
        return _in_one_array(images, split, reader), 0
    except DataError:
        faults = _faults(images)
    if not skip or len(faults) == len(images):
        errors = list(faults.values())
        if len(errors) == 1:
            facts = {**errors[0].facts, "count": 1}
            raise DataError(f"{errors[0]}; try --skip-unreadable", code=errors[0].code, **facts)
        shown = "; ".join(str(error) for error in errors[:10])
        rest = f"; and {len(errors) - 10:,} more" if len(errors) > 10 else ""
        raise DataError(
            f"{len(errors):,} of {len(images):,} images cannot be read: {shown}{rest}; try --skip-unreadable",
            code="images-unreadable",
            count=len(errors),
        )
    kept = np.setdiff1d(np.arange(len(images)), list(faults))
    chosen = ChosenRows(images, kept)
    return _in_one_array(chosen, ImageSplit(chosen, np.asarray(split.labels)[kept]), reader), len(faults)


def _in_one_array(images: DecodableRows, split: ImageSplit, reader: ImageReader) -> ImageSplit:
    notes = reader.copy_of_notes()
    array = as_one_array(images)
    if array is None:
        reader.notes = notes  # restore the old notes, because the run reads the images again
        return split
    again = as_one_array(images) if reader.settle() else None
    return ImageSplit(array if again is None else again, split.labels)


def _faults(images: DecodableRows) -> dict[int, DataError]:
    faults = {}
    for index in range(len(images)):
        try:
            images.decode(index)
        except DataError as error:
            faults[index] = error
    return faults
