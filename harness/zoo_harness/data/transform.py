"""Resize, crop and normalise batches of uint8 images."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor

from zoo.backbone import Preprocessing
from zoo.errors import DataError

_MOST_PIXELS = 2**26


@dataclass(frozen=True)
class BatchTransform:
    """Resize, crop and normalise uint8 batches as ``preprocessing`` specifies.

    >>> transform = BatchTransform(Preprocessing(input_size=(32, 32)))
    >>> transform(torch.zeros(2, 8, 8, dtype=torch.uint8)).shape
    torch.Size([2, 3, 32, 32])
    """

    preprocessing: Preprocessing

    def __call__(self, images: Tensor) -> Tensor:
        """Convert uint8 images ``(B, H, W)`` or ``(B, H, W, 3)`` to float32 network input ``(B, 3, h, w)``."""
        return self.normalise(self.resize_and_crop(images))

    def resize_and_crop(self, images: Tensor, name: str = "image") -> Tensor:
        """Resize and crop uint8 images ``(B, H, W)`` or ``(B, H, W, 3)`` to uint8 ``(B, 3, h, w)``.

        Raises :class:`~zoo.errors.DataError` for an aspect ratio so large that the resized image would need gigabytes.
        The error message starts with the text in ``name``.
        """
        from torchvision.transforms.v2 import functional

        planes = images.unsqueeze(1) if images.ndim == 3 else images.permute(0, 3, 1, 2)
        height, width = planes.shape[-2:]
        size = self._resized_size(height, width)
        if size[0] * size[1] > _MOST_PIXELS:
            raise DataError(
                f"{name} is a strip: {width:,} x {height:,} pixels would become {size[1]:,} x {size[0]:,}; "
                "remove or crop the image",
                code="image-strip",
                image=name,
            )
        cropped: Tensor = functional.center_crop(self._resize(planes, size), list(self.preprocessing.input_size))
        return cropped.expand(-1, 3, -1, -1)

    def normalise(self, planes: Tensor) -> Tensor:
        """Normalise uint8 images ``(B, 3, h, w)`` to float32: ``(value / 255 - mean) / std``."""
        mean = torch.tensor(self.preprocessing.mean, device=planes.device).view(3, 1, 1)
        std = torch.tensor(self.preprocessing.std, device=planes.device).view(3, 1, 1)
        return planes.to(torch.float32).div_(255).sub_(mean).div_(std)

    def _resized_size(self, height: int, width: int) -> list[int]:
        rows, columns = (math.floor(side / self.preprocessing.crop_fraction) for side in self.preprocessing.input_size)
        if self.preprocessing.crop_mode == "squash":
            return [rows, columns]
        # Resize the shorter side to its target size. For square inputs, follow torchvision's Resize, which rounds the
        # longer side down. For other inputs, follow timm's ResizeKeepRatio, which rounds the longer side to nearest.
        whole = math.floor if rows == columns else round
        if rows * width >= columns * height:
            return [rows, whole(Fraction(rows * width, height))]
        return [whole(Fraction(columns * height, width)), columns]

    def _resize(self, planes: Tensor, size: list[int]) -> Tensor:
        from torchvision.transforms import InterpolationMode
        from torchvision.transforms.v2 import functional

        if list(planes.shape[-2:]) == size:
            return planes
        name = self.preprocessing.interpolation
        mode = InterpolationMode("nearest-exact" if name == "nearest" else name)  # "nearest" shifts by one pixel
        # Round and clip after each axis, as PIL does. Bicubic interpolation overshoots at edges: clipping only after
        # the second axis would change values by up to 30 levels.
        levels = planes.to(torch.float32)
        for step in ([planes.shape[-2], size[1]], size):
            levels = functional.resize(levels, step, interpolation=mode, antialias=True)
            levels = levels.add_(0.5).floor_().clamp_(0, 255)
        return levels.to(torch.uint8)
