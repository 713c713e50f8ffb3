"""Turns the images a user has, PIL images or uint8 arrays, into the uint8 batches that a transform takes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
import PIL.Image
import torch
from numpy.typing import NDArray
from torch import Tensor

from zoo.errors import DataError, UsageError
from zoo.picture import upright_grey_or_colour

Pixels: TypeAlias = "PIL.Image.Image | NDArray[Any] | Tensor"
Images: TypeAlias = "Pixels | Sequence[Pixels]"

_EXPECTED = (
    "expected a PIL image, a list of them, or a uint8 array or tensor: one image (H, W) or (H, W, 3), "
    "a batch (B, H, W) or (B, H, W, 3)"
)


def as_batches(images: Images) -> Iterator[Tensor]:
    """uint8 batches ``(B, H, W)`` or ``(B, H, W, 3)``, together all the images in order.

    An array of two dimensions is one grey image. One of three dimensions is one colour image where the last is 3, else
    a batch of grey images, also where the first is 3. One of four is a batch of colour images. Each item of a list is
    one image, and they may differ in size. Raises :class:`~zoo.errors.UsageError` for whatever else is given, and
    :class:`~zoo.errors.DataError` for a PIL image that cannot be decoded.

    >>> [tuple(batch.shape) for batch in as_batches([PIL.Image.new("RGB", (5, 4)), np.zeros((2, 2), np.uint8)])]
    [(1, 4, 5, 3), (1, 2, 2)]
    """
    if not isinstance(images, list | tuple):
        yield _as_batch(images, "images")
        return
    if not images:
        raise UsageError(f"images: the list is empty; {_EXPECTED}")
    for index, image in enumerate(images):
        batch = _as_batch(image, f"images[{index}]")
        if not _is_one_image(image):
            raise UsageError(
                f"images[{index}] is a batch {tuple(batch.shape)}; each item of a list is one image, so give the "
                "batch alone"
            )
        yield batch


def one_image(given: object, name: str) -> NDArray[np.uint8]:
    """Convert one image to its pixels, uint8 ``(H, W)`` or ``(H, W, 3)``.

    Takes what :func:`as_batches` takes in a list, and tensors as torchvision's transforms return them: floating-point
    values of 0 to 1 are multiplied by 255 and rounded, and channels may come first. Raises
    :class:`~zoo.errors.UsageError` or :class:`~zoo.errors.DataError` that begins with ``name``.

    >>> one_image(torch.full((3, 2, 2), 128 / 255), "image")[0, 0].tolist()
    [128, 128, 128]
    """
    if isinstance(given, Tensor):
        if given.is_floating_point():
            given = _channels_last(_rounded(given, name))
        elif given.ndim == 3 and given.shape[2] != 3:
            given = _channels_last(given)
    batch = _as_batch(given, name)
    if not _is_one_image(given):
        raise UsageError(
            f"{name}: an array of shape {tuple(batch.shape)} is not one image; expected (H, W) or (H, W, 3)",
            code="image-shape",
            image=name,
        )
    pixels: NDArray[np.uint8] = batch[0].numpy(force=True)
    return pixels


def _rounded(image: Tensor, name: str) -> Tensor:
    """Convert values of 0 to 1 to uint8; exact for levels that were divided by 255."""
    if image.ndim == 3 and image.shape[0] not in (1, 3):
        raise UsageError(
            f"{name}: a floating-point tensor of shape {tuple(image.shape)}; expected (3, H, W)",
            code="image-shape",
            image=name,
        )
    outside = ~((image >= 0) & (image <= 1))  # NaN is outside too
    if bool(outside.any()):
        low, high = float(image.min()), float(image.max())
        raise UsageError(
            f"{name}: values from {low:.3g} to {high:.3g}; expected 0 to 1; leave normalisation out of the transform, "
            "because the preprocessing of the weights is applied later",
            code="image-range",
            image=name,
        )
    return (image.double() * 255).round().to(torch.uint8)


def _channels_last(image: Tensor) -> Tensor:
    if image.ndim != 3 or image.shape[0] not in (1, 3):
        return image
    return image[0] if image.shape[0] == 1 else image.permute(1, 2, 0)


def _as_batch(given: object, name: str) -> Tensor:
    if isinstance(given, PIL.Image.Image):
        return torch.from_numpy(_decoded(given, name))[None]
    if isinstance(given, np.ndarray):
        check_uint8(given, name)
        _check_shape(given.shape, name)
        pixels = torch.from_numpy(np.require(given, requirements=["C", "W"]))  # torch warns of what it cannot write
    elif isinstance(given, Tensor):
        check_uint8(given, name)
        _check_shape(tuple(given.shape), name)
        pixels = given
    else:
        raise UsageError(f"{name}: {_described(given)}; {_EXPECTED}", code="image-type", image=name)
    return pixels[None] if _is_one_image(given) else pixels


def _is_one_image(given: object) -> bool:
    if isinstance(given, np.ndarray | Tensor):
        return given.ndim == 2 or (given.ndim == 3 and given.shape[-1] == 3)
    return True


def _decoded(image: PIL.Image.Image, name: str) -> NDArray[np.uint8]:
    try:
        return np.array(upright_grey_or_colour(image))
    except Exception as error:  # Pillow reads files late, and its decoders let errors of many kinds through
        raise DataError(
            f"{name}: this PIL image cannot be decoded ({type(error).__name__}: {error})",
            code="image-undecodable",
            image=name,
        ) from error


def check_uint8(values: NDArray[Any] | Tensor, name: str) -> None:
    """Raise :class:`~zoo.errors.UsageError` that begins with ``name`` for values of another type, with advice."""
    dtype = values.dtype.name if isinstance(values, np.ndarray) else str(values.dtype).removeprefix("torch.")
    if dtype == "uint8":
        return
    if dtype == "uint16":
        advice = "keep the upper 8 bits: (images >> 8), then convert to uint8"
    elif "float" in dtype and values.shape and 0 not in values.shape:
        advice = _advice_for_floats(float(values.min()), float(values.max()))
    else:
        advice = "convert values of 0 to 255 to uint8"
    raise UsageError(f"{name}: values are {dtype}, expected uint8 (0 to 255); {advice}", code="image-dtype", image=name)


def _advice_for_floats(low: float, high: float) -> str:
    told = f"these lie in [{low:.3g}, {high:.3g}]: "
    if low >= 0 and high <= 1:
        return told + "multiply by 255, round and convert to uint8"
    if low >= 0 and high <= 255:
        return told + "round and convert to uint8"
    return told + "give the images as they were before they were normalised, or pass the tensor to the model itself"


def _check_shape(shape: tuple[int, ...], name: str) -> None:
    if advice := advice_for_shape(shape):
        raise UsageError(f"{name}: an array of shape {shape}; {advice}; {_EXPECTED}", code="image-shape", image=name)


def advice_for_shape(shape: tuple[int, ...]) -> str | None:
    """Say what is wrong with the shape of an array of images, or return ``None``."""
    if len(shape) not in (2, 3, 4):
        return f"it has {len(shape)} dimension(s)"
    if 0 in shape:
        return "there is no image in it"
    if len(shape) == 2 or shape[-1] == 3:
        return None
    if shape[-1] == 4:
        return "4 channels: drop the alpha with images[..., :3], or pass a PIL image"
    if shape[-1] <= 2:
        return f"the last axis is {shape[-1]}: take the grey channel with images[..., 0]"
    if len(shape) == 4:
        return _advice_for_channels_first(shape[1])
    return None


def _advice_for_channels_first(channels: int) -> str:
    if channels in (1, 3, 4):
        return "the channels come first: put them last, with permute(0, 2, 3, 1) or transpose(0, 2, 3, 1)"
    return "the last axis must be the 3 colours"


def _described(given: object) -> str:
    if isinstance(given, str | bytes) or hasattr(given, "__fspath__"):
        return f"{type(given).__name__} {given!r:.80} is not an image; open it first, with PIL.Image.open"
    return f"given {type(given).__name__}"
