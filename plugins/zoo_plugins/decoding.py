"""Decode image files of any kind to upright 8-bit images."""

from __future__ import annotations

from typing import IO

import PIL.Image

from zoo.errors import DataError
from zoo.picture import upright_grey_or_colour


def decode_image(file: IO[bytes], where: str) -> PIL.Image.Image:
    """Decode the image, rotated by its EXIF orientation, to mode ``L`` or ``RGB``.

    Raises :class:`~zoo.errors.DataError`, which names ``where`` and the reason.
    """
    try:
        with PIL.Image.open(file) as image:
            return upright_grey_or_colour(image)
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, struct.error and more
        reason = f"{type(error).__name__}: {error}"
        if isinstance(error, PIL.UnidentifiedImageError):  # whose message shows the open file as an object
            reason = "unknown format"
        raise DataError(
            f"{where} cannot be decoded as an image ({reason}); replace or remove it",
            code="image-undecodable",
            image=where,
        ) from error
