"""Convert PIL images of any mode to 8-bit grey or colour images, for dataset loaders and for predictions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

ARRAY_BYTES = 2**30
"""The largest size, in bytes, of an array that :func:`as_one_array` creates."""


def upright_grey_or_colour(image: Image) -> Image:
    """Return a copy of an image in mode ``L`` or ``RGB``, rotated by its EXIF orientation and without alpha.

    An image of 16 bits loses its lower 8 bits. Raises :class:`ValueError` for modes ``I`` and ``F``, because their
    pixel values have no fixed range.

    >>> import PIL.Image
    >>> upright_grey_or_colour(PIL.Image.new("RGBA", (4, 2))).mode
    'RGB'
    """
    import PIL.ImageOps

    upright = PIL.ImageOps.exif_transpose(image)  # exif_transpose makes a copy even if it rotates nothing
    if upright.mode.startswith("I;16"):
        return _upper_bits(upright)
    if upright.mode in ("I", "F"):
        raise ValueError(f"pixels of mode {upright.mode} have no fixed range; expected 8 or 16 bits per channel")
    if upright.mode == "P" and "transparency" in upright.info:
        upright = upright.convert("RGBA")  # Pillow warns about a direct conversion to RGB
    return upright if upright.mode in ("L", "RGB") else upright.convert("RGB")


def _upper_bits(image: Image) -> Image:
    import numpy as np
    import PIL.Image

    # Pillow's own conversion saturates: values above 255 would become white.
    return PIL.Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))


class DecodableImages(Protocol):
    """A sequence of images that decodes an image when the caller requests the image."""

    def __len__(self) -> int:
        """Return the number of images."""

    def decode(self, index: int) -> Image | np.ndarray[Any, Any]:
        """Decode one image to 8-bit grey or colour."""


def as_one_array(images: DecodableImages) -> np.ndarray[Any, Any] | None:
    """Decode all images into one uint8 array ``(N, H, W)`` or ``(N, H, W, 3)``.

    Returns ``None`` if the images differ in size or mode, or if the array would be larger than :data:`ARRAY_BYTES`.
    """
    import numpy as np

    first = images.decode(0)
    shape = np.asarray(first).shape
    if len(images) * int(np.prod(shape)) > ARRAY_BYTES:
        return None
    array = np.empty((len(images), *shape), dtype=np.uint8)
    for index in range(len(images)):
        pixels = np.asarray(images.decode(index))
        if pixels.shape != shape:
            return None
        array[index] = pixels
    return array
