"""Convert PIL images and uint8 arrays from the user to uint8 batches for preprocessing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
import PIL.Image
import torch
from numpy.typing import NDArray
from torch import Tensor

from zoo.errors import DataError, UsageError
from zoo.image_reader import ImageReader

Pixels: TypeAlias = "PIL.Image.Image | NDArray[Any] | Tensor"
Images: TypeAlias = "Pixels | Sequence[Pixels]"

_EXPECTED = (
    "expected a PIL image, a list of them, or a uint8 array or tensor: one image (H, W) or (H, W, 3), "
    "a batch (B, H, W) or (B, H, W, 3)"
)


def as_batches(images: Images, reader: ImageReader | None = None) -> Iterator[Tensor]:
    """Convert images to uint8 batches ``(B, H, W)`` or ``(B, H, W, 3)``, and yield the batches in order.

    A 2-D array is one grayscale image. A 3-D array is one RGB image if its last axis has size 3. Any other 3-D array is
    a batch of grayscale images, even if its first axis has size 3. A 4-D array is a batch of RGB images. Each item of a
    list is one image, and the images of a list may differ in size. ``reader`` converts PIL images. Raises
    :class:`~zoo.errors.UsageError` for any other input, and :class:`~zoo.errors.DataError` for a PIL image that cannot
    be decoded.

    >>> [tuple(batch.shape) for batch in as_batches([PIL.Image.new("RGB", (5, 4)), np.zeros((2, 2), np.uint8)])]
    [(1, 4, 5, 3), (1, 2, 2)]
    """
    reader = reader or ImageReader(gather=False)
    if not isinstance(images, list | tuple):
        yield _as_batch(images, "images", reader)
        return
    if not images:
        raise UsageError(f"images: the list is empty; {_EXPECTED}", code="images-empty", image="images")
    for index, image in enumerate(images):
        yield _as_one_image(image, f"images[{index}]", reader)


def one_image(given: object, name: str) -> NDArray[np.uint8]:
    """Convert one image to a uint8 array ``(H, W)`` or ``(H, W, 3)``.

    Accepts a PIL image, a uint8 array or tensor, and the tensors that torchvision's transforms return. A tensor may
    have its channels first. Floating-point values from 0 to 1 are multiplied by 255 and rounded. Raises
    :class:`~zoo.errors.UsageError` or :class:`~zoo.errors.DataError` for invalid images; the message contains ``name``.

    >>> one_image(torch.full((3, 2, 2), 128 / 255), "image")[0, 0].tolist()
    [128, 128, 128]
    """
    if isinstance(given, Tensor):
        if given.is_floating_point():
            given = _channels_last(_rounded(given, name))
        elif given.ndim == 3 and given.shape[2] != 3:
            given = _channels_last(given)
    pixels: NDArray[np.uint8] = _as_one_image(given, name, ImageReader(gather=False))[0].numpy(force=True)
    return pixels


def _rounded(image: Tensor, name: str) -> Tensor:
    """Convert floating-point values from 0 to 1 to uint8; multiples of 1/255 are converted exactly."""
    if image.ndim == 3 and image.shape[0] not in (1, 3):
        raise UsageError(
            f"shape of floating-point {name} is wrong: {tuple(image.shape)}; expected (3, H, W)",
            code="image-shape",
            image=name,
        )
    if not bool(((image >= 0) & (image <= 1)).all()):  # NaN fails this comparison too
        raise UsageError(
            f"{name}: values from {float(image.min()):.3g} to {float(image.max()):.3g}; expected 0 to 1; remove "
            "the normalisation from the transform, because zoo applies the preprocessing of the weights later",
            code="image-range",
            image=name,
        )
    return (image.double() * 255).round().to(torch.uint8)


def _channels_last(image: Tensor) -> Tensor:
    if image.ndim != 3 or image.shape[0] not in (1, 3):
        return image
    return image[0] if image.shape[0] == 1 else image.permute(1, 2, 0)


def _as_one_image(given: object, name: str, reader: ImageReader) -> Tensor:
    batch = _as_batch(given, name, reader)
    if not _is_one_image(given):
        raise UsageError(
            f"{name} is a batch: {tuple(batch.shape)}; expected one image; pass the batch by itself, not in a list",
            code="image-shape",
            image=name,
        )
    return batch


def _as_batch(given: object, name: str, reader: ImageReader) -> Tensor:
    if isinstance(given, PIL.Image.Image):
        try:
            return torch.from_numpy(np.array(reader.upright(given, name)))[None]
        except Exception as error:  # Pillow decodes lazily, and its decoders raise many types of errors
            raise DataError(
                f"{name}: this PIL image cannot be decoded ({type(error).__name__}: {error})",
                code="image-undecodable",
                image=name,
            ) from error
    if not isinstance(given, np.ndarray | Tensor):
        fault = f"given {type(given).__name__}"
        if isinstance(given, str | bytes) or hasattr(given, "__fspath__"):
            fault = f"{type(given).__name__} {given!r:.80} is not an image; open it first, with PIL.Image.open"
        raise UsageError(f"{name}: {fault}; {_EXPECTED}", code="image-type", image=name)
    check_uint8(given, name)
    shape = tuple(given.shape)
    if advice := advice_for_shape(shape):
        raise UsageError(f"shape of {name} is wrong: {shape}; {advice}; {_EXPECTED}", code="image-shape", image=name)
    # torch warns about read-only arrays.
    pixels = given if isinstance(given, Tensor) else torch.from_numpy(np.require(given, requirements=["C", "W"]))
    return pixels[None] if _is_one_image(given) else pixels


def _is_one_image(given: object) -> bool:
    if isinstance(given, np.ndarray | Tensor):
        return given.ndim == 2 or (given.ndim == 3 and given.shape[-1] == 3)
    return True


def check_uint8(values: NDArray[Any] | Tensor, name: str) -> None:
    """Raise :class:`~zoo.errors.UsageError` with advice if the values are not uint8."""
    dtype = str(values.dtype).removeprefix("torch.")
    if dtype == "uint8":
        return
    advice = "convert values of 0 to 255 to uint8"
    if dtype == "uint16":
        advice = "keep the upper 8 bits: (images >> 8), then convert to uint8"
    elif "float" in dtype and 0 not in values.shape:
        low, high = float(values.min()), float(values.max())
        advice = "multiply by 255, round and convert to uint8" if high <= 1 else "round and convert to uint8"
        if not (low >= 0 and high <= 255):
            advice = "pass the images without normalisation, or call the model with the tensor"
        advice = f"for values in [{low:.3g}, {high:.3g}]: {advice}"
    raise UsageError(f"{name}: values are {dtype}; expected uint8 (0 to 255); {advice}", code="image-dtype", image=name)


def advice_for_shape(shape: tuple[int, ...]) -> str | None:
    """Advise how to correct the shape of an image array; return ``None`` for a valid shape."""
    if len(shape) not in (2, 3, 4):
        return f"it has {len(shape)} dimension(s)"
    if 0 in shape:
        return "an axis has size 0, so the array holds no image"
    if len(shape) == 2 or shape[-1] == 3:
        return None
    if shape[-1] == 4:
        return "drop the alpha channel with images[..., :3], or pass a PIL image"
    if shape[-1] <= 2:
        return "take the grey channel with images[..., 0]"
    if len(shape) == 3:
        return None
    if shape[1] in (1, 3, 4):
        return "move the channels to the last axis, with permute(0, 2, 3, 1) or transpose(0, 2, 3, 1)"
    return "the last axis must be the 3 colour channels"
