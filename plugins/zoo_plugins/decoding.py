"""Decodes image files of any kind to upright 8-bit images."""

from __future__ import annotations

from typing import IO

import PIL.Image

from zoo.errors import DataError
from zoo.picture import upright_grey_or_colour


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
