"""Decodes image files of any kind to upright 8-bit images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import PurePath
from typing import IO

import PIL.Image

from zoo.errors import DataError
from zoo.image_kinds import has_pages, readable_endings, remedy
from zoo.picture import upright_grey_or_colour


def decode_image(file: IO[bytes], where: str, on_pages: Callable[[], object] | None = None) -> PIL.Image.Image:
    """The image, turned as its EXIF orientation says, in mode ``L`` or ``RGB``.

    ``on_pages`` is called for a file of several pages or frames, of which this is the first. Raises
    :class:`~zoo.errors.DataError` that names ``where`` and the reason.
    """
    try:
        readable_endings()  # registers the installed plugins of Pillow
        with PIL.Image.open(file) as image:
            if on_pages is not None and has_pages(image):
                on_pages()
            return upright_grey_or_colour(image)
    except PIL.UnidentifiedImageError as error:  # its own words show the open file as an object
        advice = remedy(PurePath(where)) or "replace or remove it"
        raise DataError(
            f"{where} cannot be decoded as an image (of no known format); {advice}", code="image-undecodable"
        ) from error
    except Exception as error:  # Pillow's decoders let OSError, SyntaxError, struct.error and more through
        reason = f"{type(error).__name__}: {error}"
        raise DataError(f"{where} cannot be decoded as an image ({reason}); replace or remove it") from error
