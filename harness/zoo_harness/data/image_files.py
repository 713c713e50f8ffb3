"""Find and read the image files whose paths the user gives, without importing torch."""

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
"""Largest allowed aspect ratio; resizing a more elongated image would need gigabytes of memory."""


def image_paths(named: Iterable[str | Path]) -> list[Path]:
    """Return the paths of image files: each given file, and the sorted image files of each given folder.

    Hidden files and subfolders are ignored. A given file is not checked here, because :func:`read_image` raises an
    error for a missing or unreadable file. Raises :class:`~zoo.errors.UsageError` for a folder without image files.
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
    # Include formats without an installed decoder, because reading such a file names the package to install.
    found = [path for path in visible if (is_readable_image(path) or remedy(path)) and not path.is_dir()]
    if not found:
        deeper = "; its subfolders are not searched" if any(path.is_dir() for path in visible) else ""
        raise UsageError(
            f"folder {str(folder)!r} has no image file ({', '.join(readable_endings())}){deeper}",
            code="no-image-file",
            path=str(folder),
        )
    return found


def read_image(path: Path, reader: ImageReader) -> Image:
    """Read an image file, rotate the image as its metadata require, and return mode ``L`` or ``RGB``.

    Raises :class:`~zoo.errors.DataError` with the path if the file is unreadable or not an image, or if the aspect
    ratio exceeds :data:`LONGEST_ASPECT`.
    """
    import PIL.Image

    readable_endings()  # side effect: registers the installed Pillow plugins
    try:
        if path.exists() and not path.is_file():
            raise DataError(f"{path} is not a regular file", code="not-a-file", path=str(path))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns about broken metadata and large images
            # Pass an open file: given a path, Pillow 13 memory-maps TIFF files and then rotates them wrongly.
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
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, struct.error and others
        fault = f"cannot be read as an image ({getattr(error, 'strerror', None) or f'{type(error).__name__}: {error}'})"
        if isinstance(error, PIL.UnidentifiedImageError):
            fault = "; ".join(filter(None, ("is not an image of a known format", remedy(path))))
        raise DataError(f"{path} {fault}", code="image-undecodable", path=str(path)) from error
