"""Find and read the image files that a user names; nothing here imports torch."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.errors import DataError, UsageError
from zoo.image_kinds import is_readable_image, readable_endings, remedy
from zoo.image_reader import ImageReader

if TYPE_CHECKING:
    from PIL.Image import Image


LONGEST_ASPECT = 200
"""Largest ratio of an image's sides; a longer strip would need gigabytes when its shorter side is resized."""


def image_paths(named: Iterable[str | Path]) -> list[Path]:
    """Return the named files, and the image files in named folders, sorted, without hidden files and subfolders.

    A file that is named itself may have any ending and may be missing; reading it raises the error. Raises
    :class:`~zoo.errors.UsageError` for a folder without image files.
    """
    paths: list[Path] = []
    for name in named:
        try:
            path = Path(name).expanduser()
        except RuntimeError as error:
            raise UsageError(f"{str(name)!r}: {error}", code="home-unknown", path=str(name)) from error
        paths += _images_in(path) if os.path.isdir(path) else [path]  # noqa: PTH112 - Path.is_dir raises on long names
    return paths


def _images_in(folder: Path) -> list[Path]:
    visible = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    # Images of a kind that cannot be read here are tried too: the error says what to install.
    found = [path for path in visible if (is_readable_image(path) or remedy(path)) and not path.is_dir()]
    if not found:
        deeper = "; it has folders, which are not looked into" if any(path.is_dir() for path in visible) else ""
        raise UsageError(
            f"folder {str(folder)!r} has no image file ({', '.join(readable_endings())}){deeper}",
            code="no-image-file",
            path=str(folder),
        )
    return found


def read_image(path: Path, reader: ImageReader) -> Image:
    """Read the image of a file, upright, in mode ``L`` or ``RGB``.

    Raises :class:`~zoo.errors.DataError`, which names the file, if it cannot be read, is no image or a long strip.
    """
    import PIL.Image

    readable_endings()  # registers the installed plugins of Pillow
    try:
        if path.exists() and not path.is_file():
            raise DataError(f"{path} is not a regular file", code="not-a-file", path=str(path))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of metadata and size
            # Opened here: Pillow 13 maps a TIFF that it opens itself, and then turns it wrongly.
            with path.open("rb") as file, PIL.Image.open(file) as image:
                width, height = image.size
                if min(image.size) == 0 or max(image.size) > LONGEST_ASPECT * min(image.size):
                    raise DataError(
                        f"{path} is a strip of {width:,} x {height:,} pixels; expected sides that differ by a factor "
                        f"of at most {LONGEST_ASPECT}",
                        code="image-strip",
                        path=str(path),
                    )
                return reader.upright(image, str(path))
    except DataError:
        raise
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file", code="missing-file", path=str(path)) from error
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, struct.error and more
        fault = f"cannot be read as an image ({getattr(error, 'strerror', None) or f'{type(error).__name__}: {error}'})"
        if isinstance(error, PIL.UnidentifiedImageError):
            fault = "; ".join(filter(None, ("is not an image of a known format", remedy(path))))
        raise DataError(f"{path} {fault}", code="image-undecodable", path=str(path)) from error
