"""Decode image files of any readable format to upright 8-bit images."""

from __future__ import annotations

from pathlib import PurePath
from typing import IO

import PIL.Image

from zoo.errors import DataError
from zoo.image_kinds import readable_endings, remedy
from zoo.image_reader import ImageReader


def decode_image(file: IO[bytes], where: str, reader: ImageReader) -> PIL.Image.Image:
    """Decode an open image file to mode ``L`` or ``RGB``, rotated by the EXIF orientation.

    ``reader`` is the dataset's image reader. Raises :class:`~zoo.errors.DataError` with the reason; ``where`` names the
    image in the error.
    """
    try:
        readable_endings()  # this call also registers the installed plugins of Pillow
        with PIL.Image.open(file) as image:
            return reader.upright(image, where)
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, struct.error and more
        reason, advice = f"{type(error).__name__}: {error}", "replace or remove it"
        if isinstance(error, PIL.UnidentifiedImageError):  # Pillow's own message would show the repr of the open file
            reason = "unknown format"
            advice = remedy(PurePath(where)) or advice
        raise DataError(
            f"{where} cannot be decoded as an image ({reason}); {advice}",
            code="image-undecodable",
            image=where,
        ) from error
