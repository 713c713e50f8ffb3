"""Convert the images of one dataset to upright 8-bit images, and note the images that needed special treatment."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import TYPE_CHECKING

from zoo.deep_pixels import DeepPixels, deep_pixels
from zoo.image_kinds import has_pages
from zoo.picture import upright_grey_or_colour
from zoo.value_range import FULL_16_BITS, DeepValues, ValueRange, common_range

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass
class ImageNotes:
    """The images of a dataset that need special treatment, by name.

    The images in ``deep`` have more than 8 bits per channel; the files in ``paged`` have several pages or frames.
    """

    deep: dict[str, DeepValues] = field(default_factory=dict)
    paged: dict[str, None] = field(default_factory=dict)  # a dictionary, because a set has no order


class ImageReader:
    """Converts the images of one dataset to upright 8-bit images; several threads may share a reader.

    ``value_range`` is the range from which images of more than 8 bits per channel are scaled. If ``value_range`` is
    ``None`` and ``gather`` is true, each image is scaled by its own range until :meth:`settle` chooses one range for
    the dataset. If ``gather`` is false, an image is scaled by the range in its tags, or else by the range of 16 bits.
    In this case an image without tags raises an error if its pixels are not 16-bit integers.

    >>> import PIL.Image
    >>> ImageReader().upright(PIL.Image.new("RGBA", (4, 2)), "a.png").mode
    'RGB'
    """

    def __init__(self, value_range: ValueRange | None = None, *, gather: bool = True) -> None:
        self.value_range = value_range
        self.notes = ImageNotes()
        self._gather = gather

    def upright(self, image: Image, name: str) -> Image:
        """Return a copy of an image in mode ``L`` or ``RGB``, rotated by its EXIF orientation, without alpha.

        The reader notes an image that needs special treatment under ``name``. Only the first page or frame is read.
        Raises :class:`ValueError` if the range of the pixel values is unknown.
        """
        if has_pages(image):
            self.notes.paged[name] = None
        deep = deep_pixels(image)
        if deep is None:
            return upright_grey_or_colour(image)
        self.notes.deep[name] = values = deep.values
        return deep.to_8_bits(self.value_range or self._range_of(deep, values))

    def _range_of(self, deep: DeepPixels, values: DeepValues) -> ValueRange:
        if self._gather:
            return values.own_range
        if values.believed is None and deep.pixels.dtype.name != "uint16":
            raise ValueError(
                f"pixels of type {deep.pixels.dtype} have no fixed range; expected 8 or 16 bits per channel"
            )
        return values.believed or FULL_16_BITS

    def settle(self) -> bool:
        """Choose one value range for all images, and return whether images that were already read must be read again.

        The range is chosen from the images of more than 8 bits that were read so far. Raises
        :class:`~zoo.errors.DataError` if the ranges of the images cannot be combined.
        """
        if self.value_range is not None or not self.notes.deep:
            return False
        self.value_range = common_range(self.notes.deep)
        return any(values.own_range != self.value_range for values in self.notes.deep.values())

    def copy_of_notes(self) -> ImageNotes:
        """Return a copy of the notes, so that the caller can restore the notes after a trial reading of images."""
        return copy.deepcopy(self.notes)

    def lines(self) -> tuple[str, ...]:
        """Return lines that count the images that needed special treatment; the lines name no file."""
        lines = []
        if self.notes.deep and self.value_range:
            stated = sum(values.believed is not None for values in self.notes.deep.values())
            highest = max(values.high for values in self.notes.deep.values())
            by = f"range stated by {stated:,} of them; " if stated else ""
            lines.append(
                f"{len(self.notes.deep):,} image(s) of more than 8 bits: values {self.value_range} are read as 0 to "
                f"255 ({by}largest value {highest:,g})"
            )
        if self.notes.paged:
            lines.append(f"{len(self.notes.paged):,} file(s) have several pages or frames; only the first is read")
        return tuple(lines)

    def warnings(self) -> tuple[str, ...]:
        """Return warnings about files with several pages or frames, and about pixel values outside the range."""
        lines = []
        if self.notes.paged:
            lines.append(pages_warning(self.notes.paged))
        limit = self.value_range
        beyond = [
            name
            for name, values in self.notes.deep.items()
            if limit and not (limit.low <= values.low and values.high <= limit.high)
        ]
        if beyond:
            lines.append(
                f"{len(beyond):,} image(s) have values outside of {limit}, the range of the training split "
                f"(such as {short_name(beyond[0])}); these values become black or white"
            )
        return tuple(lines)


def pages_warning(names: Iterable[str]) -> str:
    """Return the warning that zoo uses only the first page or frame of the files ``names``.

    >>> pages_warning(["photos/a.tif"])
    '1 file(s) have several pages or frames (such as a.tif); only the first of each is used'
    """
    found = list(names)
    return (
        f"{len(found):,} file(s) have several pages or frames (such as {short_name(found[0])}); "
        "only the first of each is used"
    )


def short_name(name: str) -> str:
    """Return the last component of a path."""
    return PurePath(name).name
