"""Which endings name image files, and which of them Pillow can read here: one list for all commands.

Nothing here imports Pillow at module level.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterable
from functools import cache
from pathlib import PurePath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

_USUAL = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
_OTHERS = (
    *(".jpe", ".jfif", ".gif", ".avif", ".heic", ".heif", ".hif", ".jxl", ".jp2", ".j2k", ".jpx", ".jpf"),
    *(".apng", ".pbm", ".pnm", ".dib", ".tga", ".qoi", ".pcx", ".sgi"),
)  # fmt: skip
_CONVERT = "convert it to PNG or JPEG"
_REMEDIES = {
    **dict.fromkeys((".heic", ".heif", ".hif"), "install HEIC support: pip install pillow-heif"),
    ".jxl": "install JPEG XL support: pip install pillow-jxl-plugin",
    ".avif": "install a Pillow with AVIF support: pip install 'pillow>=11.3'",
    **dict.fromkeys((".jp2", ".j2k", ".jpx", ".jpf"), "install a Pillow with JPEG 2000 support (OpenJPEG)"),
    ".webp": "install a Pillow with WebP support (libwebp)",
    **dict.fromkeys((".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2"), f"camera raw: {_CONVERT}"),
    **dict.fromkeys((".dcm", ".dicom"), f"DICOM: {_CONVERT}"),
    **dict.fromkeys((".svg", ".svgz"), f"vector graphics: {_CONVERT}"),
    **dict.fromkeys((".exr", ".hdr"), f"high dynamic range: {_CONVERT}"),
    **dict.fromkeys((".psd", ".psb", ".xcf"), f"file of a picture editor: {_CONVERT}"),
}
_PLUGINS = ("pillow_heif", "pillow_jxl", "pillow_avif")
"""Packages that teach Pillow another format; each is used if it is installed."""


@cache
def readable_endings() -> tuple[str, ...]:
    """Return the endings of the image files that Pillow and its installed plugins can read here, in lower case.

    >>> readable_endings()[:3]
    ('.jpg', '.jpeg', '.png')
    """
    import PIL.Image

    PIL.Image.preinit()  # first, because Pillow tries formats in this order: a third of the time for a small JPEG
    for name in _PLUGINS:
        with contextlib.suppress(ImportError):
            plugin = importlib.import_module(name)
            if name == "pillow_heif":  # the others register themselves
                plugin.register_heif_opener()
    PIL.Image.init()
    _accept_more_tiffs()
    known = PIL.Image.registered_extensions()
    return tuple(ending for ending in (*_USUAL, *_OTHERS) if known.get(ending) in PIL.Image.OPEN)


def _accept_more_tiffs() -> None:
    """Let Pillow open grey TIFFs whose likes it opens in the other order of bytes, and 64-bit floating point."""
    from PIL.TiffImagePlugin import II, MM, OPEN_INFO

    for order, white in ((II, 0), (II, 1), (MM, 0), (MM, 1)):
        swapped = "B" if order == MM else ""
        for sample, bits, mode, raw_mode in (
            (1, 16, f"I;16{swapped}", f"I;16{swapped}"),
            (2, 16, "I", f"I;16{swapped}S"),
            (1, 32, "I", f"I;32{swapped}"),
            (2, 32, "I", f"I;32{swapped}S"),
            (3, 32, "F", f"F;32{swapped}F"),
            (3, 64, "F", f"F;64{swapped}F"),
        ):
            OPEN_INFO.setdefault((order, white, (sample,), 1, (bits,), ()), (mode, raw_mode))


def has_pages(image: Image) -> bool:
    """Whether an open image is the first of several pages or frames; its file is not read whole to find out.

    Phones write a photo and its preview as one MPO file; that is one picture.
    """
    return image.format != "MPO" and bool(getattr(image, "is_animated", False))


def is_readable_image(path: PurePath) -> bool:
    """Whether the ending of a file's name is one of :func:`readable_endings`, in any case."""
    return path.suffix.lower() in readable_endings()


def remedy(path: PurePath) -> str | None:
    """Say how to use an image file whose kind cannot be read here; ``None`` if it is readable or no image.

    >>> remedy(PurePath("photo.NEF"))
    'camera raw: convert it to PNG or JPEG'
    >>> remedy(PurePath("notes.txt")) is None
    True
    """
    ending = path.suffix.lower()
    if ending in readable_endings():
        return None
    return _REMEDIES.get(ending) or (_CONVERT if ending in (*_USUAL, *_OTHERS) else None)


def remedies(paths: Iterable[PurePath]) -> str:
    """Return the remedies of several files, each once, with the endings that they are for.

    >>> remedies([PurePath("a.nef"), PurePath("b.ARW"), PurePath("c.jpg")])
    '.arw, .nef: camera raw: convert it to PNG or JPEG'
    """
    endings: dict[str, set[str]] = {}
    for path in paths:
        if advice := remedy(path):
            endings.setdefault(advice, set()).add(path.suffix.lower())
    return "; ".join(f"{', '.join(sorted(found))}: {advice}" for advice, found in endings.items())
