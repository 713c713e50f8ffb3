"""Decode image files of any kind to upright 8-bit images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import PurePath
from typing import IO

import PIL.Image

from zoo.errors import DataError
from zoo.image_kinds import has_pages, readable_endings, remedy
from zoo.picture import upright_grey_or_colour


def decode_image(file: IO[bytes], where: str, on_pages: Callable[[], object] | None = None) -> PIL.Image.Image:
    """Decode the image, rotated by its EXIF orientation, to mode ``L`` or ``RGB``.

    ``on_pages`` is called for a file of several pages or frames; the image is the first of them. Raises
    :class:`~zoo.errors.DataError`, which names ``where`` and the reason.
    """
    try:
        readable_endings()  # registers the installed plugins of Pillow
        with PIL.Image.open(file) as image:
            if on_pages is not None and has_pages(image):
                on_pages()
            return upright_grey_or_colour(image)
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
