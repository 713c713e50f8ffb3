"""Finds and reads the image files a user names; nothing here imports torch."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.errors import DataError, UsageError
from zoo.image_kinds import has_pages, is_readable_image, readable_endings, remedy
from zoo.picture import upright_grey_or_colour

if TYPE_CHECKING:
    from PIL.Image import Image


LONGEST_ASPECT = 200

"""Of an image's sides: resized by the shorter one, a longer strip would take gigabytes."""


def image_paths(named: Iterable[str | Path]) -> list[Path]:
    """The files that are named, and for a folder all image files in it by name, hidden ones and subfolders left out.

    A file that is named itself need neither have an image's ending nor be there: reading it tells. Raises
    :class:`~zoo.errors.UsageError` for a folder without image files.
    """
    paths: list[Path] = []
    for each in named:
        path = _expanded(each)
        paths += _images_in(path) if os.path.isdir(path) else [path]  # noqa: PTH112 - a name too long is no error here
    return paths


def _expanded(named: str | Path) -> Path:
    try:
        return Path(named).expanduser()
    except RuntimeError as error:
        raise UsageError(f"{str(named)!r}: {error}") from error


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


def read_image(path: Path, on_pages: Callable[[], object] | None = None) -> Image:
    """The image of a file, upright, in mode ``L`` or ``RGB``.

    ``on_pages`` is called for a file of several pages or frames, of which this is the first. Raises
    :class:`~zoo.errors.DataError` that names the file where it cannot be read, is no image or a long strip.
    """
    import PIL.Image

    readable_endings()  # registers the installed plugins of Pillow
    try:
        if path.exists() and not path.is_file():
            raise DataError(f"{path} is not a regular file")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, of metadata and of size: what cannot be used is an error
            with PIL.Image.open(path) as image:
                _refuse_strips(path, image.size)
                if on_pages is not None and has_pages(image):
                    on_pages()
                return upright_grey_or_colour(image)
    except DataError:
        raise
    except PIL.UnidentifiedImageError as error:
        advice = remedy(path)
        raise DataError(
            f"{path} is not an image of a known format" + (f"; {advice}" if advice else ""),
            code="image-undecodable",
            path=str(path),
        ) from error
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except Exception as error:  # Pillow's decoders let OSError, SyntaxError, struct.error and more through
        reason = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
        raise DataError(f"{path} cannot be read as an image ({reason})") from error


def _refuse_strips(path: Path, size: tuple[int, int]) -> None:
    width, height = size
    if min(size) == 0 or max(size) > LONGEST_ASPECT * min(size):
        raise DataError(
            f"{path} is a strip of {width:,} x {height:,} pixels; one side may have at most {LONGEST_ASPECT} times the "
            "other's"
        )
