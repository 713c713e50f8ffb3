"""Read images of more than 8 bits per channel without loss, and scale their pixels to 8 bits.

Pillow alone keeps only the upper 8 bits of 16-bit colour images. Pillow also ignores the TIFF tag that marks zero as
white in 16-bit images.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from zoo.value_range import DeepValues, ValueRange

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

_BITS_PER_SAMPLE, _PHOTOMETRIC, _MAX, _PLANES, _SAMPLE_MIN, _SAMPLE_MAX = 258, 262, 281, 284, 340, 341  # tags of TIFF
_LOWER_BYTES = {"16B": "16L", "16L": "16B", "16N": "16B"}  # with a swapped byte order, Pillow keeps the lower byte
_USUAL_MAXIMA = tuple(2**bits - 1 for bits in (10, 12, 14, 16))


@dataclass(frozen=True)
class DeepPixels:
    """The unscaled pixels of an upright image; if ``white_is_zero`` is true, pixel value 0 means white."""

    pixels: np.ndarray[Any, Any]
    stated: ValueRange | None
    white_is_zero: bool

    @property
    def values(self) -> DeepValues:
        """The smallest and the largest pixel value, and the value range that the file states."""
        lowest, highest = float(self.pixels.min()), float(self.pixels.max())
        return DeepValues(lowest, highest, self.values_are_whole, self.stated)

    @property
    def values_are_whole(self) -> bool:
        """Whether the pixel values are integers."""
        return self.pixels.dtype.kind in "iu"

    def to_8_bits(self, value_range: ValueRange) -> Image:
        """Scale the pixels to mode ``L`` or ``RGB``; values outside ``value_range`` become 0 or 255.

        For integers, the range is cut into 256 equal parts. Floating-point values are rounded to
        the nearest of 256 levels.
        """
        import numpy as np
        import PIL.Image

        width = value_range.high - value_range.low
        above = self.pixels.astype(np.float64) - value_range.low
        found = np.floor(above * 256 / (width + 1)) if self.values_are_whole else np.round(above * 255 / width)
        levels = np.clip(np.nan_to_num(found), 0, 255).astype(np.uint8)
        return PIL.Image.fromarray(255 - levels if self.white_is_zero else levels)


def deep_pixels(image: Image) -> DeepPixels | None:
    """Return the pixels ``(H, W)`` or ``(H, W, 3)`` of an open image of more than 8 bits, or ``None`` for 8-bit images.

    Raises :class:`ValueError` for a TIFF whose colours Pillow cannot decode.
    """
    import numpy as np
    import PIL.ImageOps

    grey = image.mode.startswith("I;16") or image.mode in ("I", "F")
    if not grey and _colour_order(image) is None:
        return None
    stated, white_is_zero = _stated_range(image), _white_is_zero(image)  # before decoding, which closes the file
    if not grey:
        return DeepPixels(_wide_colours(image), stated, white_is_zero)
    if image.mode in ("I", "F"):
        _expect_native_order(image)
    return DeepPixels(np.asarray(PIL.ImageOps.exif_transpose(image)), stated, white_is_zero)


def _colour_order(image: Image) -> str | None:
    """Return the byte order in which Pillow unpacks an image of 16 bits per colour; ``None`` for other images."""
    if _has_separate_planes(image):  # Pillow 13 decodes garbage
        raise ValueError("TIFF of 16 bits with one plane per colour is not supported; save it with contiguous colours")
    mode, _semicolon, order = _raw_mode(image).partition(";")
    return order if mode in ("LA", "RGB", "RGBA", "RGBX") and order in _LOWER_BYTES else None


def _wide_colours(image: Image) -> np.ndarray[Any, Any]:
    """Return all 16 bits of each colour of a PNG or TIFF file, without alpha.

    Pillow unpacks only the upper byte of each value. If the byte order is swapped, Pillow unpacks the lower byte.
    """
    import numpy as np

    raw_mode = _raw_mode(image)
    mode, _semicolon, order = raw_mode.partition(";")
    if mode == "LA":  # a pixel has four bytes: two of grey and two of alpha, the upper byte first
        grey = _unpacked(image, raw_mode, "RGBA").astype(np.uint16)
        return np.repeat((grey[..., :1] << 8) + grey[..., 1:2], 3, axis=2)
    upper = _unpacked(image, raw_mode, raw_mode)[..., :3].astype(np.uint16)
    lower = _unpacked(image, raw_mode, f"{mode};{_LOWER_BYTES[order]}")[..., :3]
    colours: np.ndarray[Any, Any] = (upper << 8) + lower
    return colours


def _expect_native_order(image: Image) -> None:
    """Work around Pillow 13, which swaps the bytes of compressed big-endian TIFFs; libtiff has already swapped them."""
    tiles = getattr(image, "tile", None) or []
    if image.format == "TIFF" and tiles and tiles[0][0] == "libtiff":
        raw_mode = tiles[0][3][0]
        native = [tile._replace(args=_replaced(tile.args, raw_mode, raw_mode.replace("B", "N"))) for tile in tiles]
        cast("Any", image).tile = native


def _has_separate_planes(image: Image) -> bool:
    tags = getattr(image, "tag_v2", None)
    return tags is not None and tags.get(_PLANES) == 2 and max(_numbers(tags.get(_BITS_PER_SAMPLE)), default=1) > 8


def _raw_mode(image: Image) -> str:
    """Return Pillow's raw mode of an open PNG or TIFF file; ``""`` for a decoded image or another format."""
    tiles = getattr(image, "tile", None)
    if image.format not in ("PNG", "TIFF") or not tiles or getattr(image, "fp", None) is None:
        return ""
    arguments = tiles[0][3]
    return str(arguments if isinstance(arguments, str) else arguments[0])


def _unpacked(image: Image, usual: str, raw_mode: str) -> np.ndarray[Any, Any]:
    """Decode the file of an open image a second time, upright, in ``raw_mode`` instead of the raw mode ``usual``."""
    import numpy as np
    import PIL.Image
    import PIL.ImageOps

    file = cast("Any", image).fp
    place = file.tell()
    file.seek(0)
    copy = PIL.Image.open(io.BytesIO(file.read()))
    file.seek(place)
    tiles = cast("Any", copy).tile
    cast("Any", copy).tile = [tile._replace(args=_replaced(tile.args, usual, raw_mode)) for tile in tiles]
    return np.asarray(PIL.ImageOps.exif_transpose(copy))


def _replaced(arguments: Any, usual: str, raw_mode: str) -> Any:
    if isinstance(arguments, str):
        return raw_mode if arguments == usual else arguments
    return tuple(raw_mode if each == usual else each for each in arguments)


def _white_is_zero(image: Image) -> bool:
    tags = getattr(image, "tag_v2", None)
    return tags is not None and tags.get(_PHOTOMETRIC) == 0


def _stated_range(image: Image) -> ValueRange | None:
    """Return the value range that a file states in its TIFF tags, in the PNG chunk sBIT or in the PGM header."""
    if image.format == "PNG":
        bits = _significant_bits(image)
        return ValueRange(0, 2**bits - 1) if bits else None
    if image.format == "PPM" and image.mode == "I":  # Pillow has already scaled the values by the header's maximum
        return ValueRange(0, 65535)
    tags = getattr(image, "tag_v2", None)
    if tags is None:
        return None
    lowest, highest = min(_numbers(tags.get(_SAMPLE_MIN)), default=0), max(_numbers(tags.get(_SAMPLE_MAX)), default=0)
    if lowest < highest:
        return ValueRange(lowest, highest)
    bits = int(max(_numbers(tags.get(_BITS_PER_SAMPLE)), default=0))
    if bits in range(9, 16):
        return ValueRange(0, 2**bits - 1)
    largest = max(_numbers(tags.get(_MAX)), default=0)  # often the image's largest pixel value, not the range's end
    return ValueRange(0, largest) if largest in _USUAL_MAXIMA else None


def _numbers(value: Any) -> list[float]:
    """Return the numbers of a TIFF tag, which may hold no number, one number or several numbers."""
    values = value if isinstance(value, tuple | list) else (value,)
    return [float(each) for each in values if isinstance(each, int | float)]


def _significant_bits(image: Image) -> int | None:
    """Return the largest number of significant bits of any channel, from the chunk sBIT of a PNG file."""
    file = getattr(image, "fp", None)
    if file is None:
        return None
    place, found = file.tell(), None
    file.seek(8)
    while len(head := file.read(8)) == 8 and head[4:] not in (b"IDAT", b"IEND"):
        size = int.from_bytes(head[:4], "big")
        if head[4:] == b"sBIT":
            found = max(file.read(min(size, 4)), default=None)
            break
        file.seek(size + 4, io.SEEK_CUR)
    file.seek(place)
    return found if found in range(1, 17) else None
