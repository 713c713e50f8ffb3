"""Decode image files of any kind to upright 8-bit images."""

from __future__ import annotations

from pathlib import PurePath
from typing import IO

import PIL.Image

from zoo.errors import DataError
from zoo.image_kinds import readable_endings, remedy
from zoo.image_reader import ImageReader


def decode_image(file: IO[bytes], where: str, reader: ImageReader) -> PIL.Image.Image:
    """Decode the image, rotated by its EXIF orientation, to mode ``L`` or ``RGB``.

    ``reader`` is that of the dataset. Raises :class:`~zoo.errors.DataError`, which names ``where`` and the reason.
    """
    try:
        readable_endings()  # registers the installed plugins of Pillow
        with PIL.Image.open(file) as image:
            return reader.upright(image, where)
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, struct.error and more
        reason, advice = f"{type(error).__name__}: {error}", "replace or remove it"
        if isinstance(error, PIL.UnidentifiedImageError):  # whose message shows the open file as an object
            reason = "unknown format"
            advice = remedy(PurePath(where)) or advice
        raise DataError(
            f"{where} cannot be decoded as an image ({reason}); {advice}",
            code="image-undecodable",
            image=where,
        ) from error
