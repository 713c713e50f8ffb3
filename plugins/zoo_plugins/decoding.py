"""Decodes image files of any kind to upright 8-bit images."""

from __future__ import annotations

from typing import IO, Any, Protocol

import numpy as np
import PIL.Image

from zoo.errors import DataError
from zoo.picture import upright_grey_or_colour

ARRAY_BYTES = 2**30
"""Image files that would fill more memory than this stay files."""


class DecodableImages(Protocol):
    """Image files that :func:`as_one_array` can read."""

    def __len__(self) -> int:
        """How many there are."""

    def decode(self, index: int) -> PIL.Image.Image:
        """Decode one as :func:`decode_image` does."""


def decode_image(file: IO[bytes], where: str) -> PIL.Image.Image:
    """The image, turned as its EXIF orientation says, in mode ``L`` or ``RGB``.

    Raises :class:`~zoo.errors.DataError` that names ``where`` and the reason.
    """
    try:
        with PIL.Image.open(file) as image:
            return upright_grey_or_colour(image)
    except PIL.UnidentifiedImageError as error:  # its own words show the open file as an object
        raise DataError(f"{where} cannot be decoded as an image (of no known format); replace or remove it") from error
    except Exception as error:  # Pillow's decoders let OSError, SyntaxError, struct.error and more through
        reason = f"{type(error).__name__}: {error}"
        raise DataError(f"{where} cannot be decoded as an image ({reason}); replace or remove it") from error


def as_one_array(images: DecodableImages) -> np.ndarray[Any, Any] | None:
    """All images as one uint8 array ``(N, H, W)`` or ``(N, H, W, 3)``.

    ``None`` where sizes or modes differ, or where it would fill more than :data:`ARRAY_BYTES`.
    """
    first = images.decode(0)
    shape = np.asarray(first).shape
    if len(images) * int(np.prod(shape)) > ARRAY_BYTES:
        return None
    array = np.empty((len(images), *shape), dtype=np.uint8)
    for index in range(len(images)):
        pixels = np.asarray(images.decode(index))
        if pixels.shape != shape:
            return None
        array[index] = pixels
    return array
