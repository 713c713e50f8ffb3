"""Tell which file name endings belong to images, and which image files Pillow can read on this machine.

Importing this module does not import Pillow.
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
"""Packages that add image formats to Pillow; zoo uses each package that is installed."""


@cache
def readable_endings() -> tuple[str, ...]:
    """Return the endings, in lower case, of image files that Pillow and its installed plugins can read.

    >>> readable_endings()[:3]
    ('.jpg', '.jpeg', '.png')
    """
    import PIL.Image

    PIL.Image.preinit()  # Pillow tries the formats registered first; a small JPEG then opens 3 times as fast
    for name in _PLUGINS:
        with contextlib.suppress(ImportError):
            plugin = importlib.import_module(name)
            if name == "pillow_heif":  # pillow_jxl and pillow_avif register themselves
                plugin.register_heif_opener()
    PIL.Image.init()
    _accept_more_tiffs()
    known = PIL.Image.registered_extensions()
    return tuple(ending for ending in (*_USUAL, *_OTHERS) if known.get(ending) in PIL.Image.OPEN)


def _accept_more_tiffs() -> None:
    """Register grey TIFF formats that Pillow rejects but can decode: the swapped byte orders, and 64-bit floats."""
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
    """Whether an open image has several pages or frames; this check does not read the whole file.

    An MPO file counts as one image, because phones store a photo and its preview as MPO.
    """
    return image.format != "MPO" and bool(getattr(image, "is_animated", False))


def is_readable_image(path: PurePath) -> bool:
    """Whether a file's name has an ending of an image format that Pillow can read; the case of letters is ignored."""
    return path.suffix.lower() in readable_endings()


def remedy(path: PurePath) -> str | None:
    """Return advice for an image file that cannot be read here; ``None`` if the file is readable or not an image.

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
    """Return advice for several unreadable image files; each piece of advice appears once, after its file name endings.

    >>> remedies([PurePath("a.nef"), PurePath("b.ARW"), PurePath("c.jpg")])
    '.arw, .nef: camera raw: convert it to PNG or JPEG'
    """
    endings: dict[str, set[str]] = {}
    for path in paths:
        if advice := remedy(path):
            endings.setdefault(advice, set()).add(path.suffix.lower())
    return "; ".join(f"{', '.join(sorted(found))}: {advice}" for advice, found in endings.items())
