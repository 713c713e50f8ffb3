"""Transform."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from zoo.backbone import Preprocessing
from zoo.errors import DataError

_MOST_RESIZED = 2**26  # pixels


@dataclass(frozen=True)
class BatchTransform:
    """Applies a preprocessing to uint8 batches.

    >>> transform = BatchTransform(Preprocessing(input_size=(32, 32)))
    >>> transform(torch.zeros(2, 8, 8, dtype=torch.uint8)).shape
    torch.Size([2, 3, 32, 32])
    """

    preprocessing: Preprocessing

    def __call__(self, images: Tensor) -> Tensor:
        """Network input ``(B, 3, h, w)`` in float32 for uint8 images ``(B, H, W)`` or ``(B, H, W, 3)``."""
        return self.normalise(self.resize_and_crop(images))

    def resize_and_crop(self, images: Tensor) -> Tensor:
        """uint8 ``(B, 3, h, w)`` for uint8 images ``(B, H, W)`` or ``(B, H, W, 3)``.

        Raises :class:`~zoo.errors.DataError` for a strip that would take gigabytes, resized by its shorter side.
        """
        from torchvision.transforms.v2 import functional

        planes = images.unsqueeze(1) if images.ndim == 3 else images.permute(0, 3, 1, 2)
        size = self._resized_size(planes.shape[-2], planes.shape[-1])
        if size[0] * size[1] > _MOST_RESIZED:
            given = f"{planes.shape[-1]:,} x {planes.shape[-2]:,}"
            raise DataError(f"an image of {given} pixels is a strip: resized it would have {size[1]:,} x {size[0]:,}")
        resized = self._resize(planes, size)
        cropped: Tensor = functional.center_crop(resized, list(self.preprocessing.input_size))
        return cropped.expand(-1, 3, -1, -1)

    def normalise(self, planes: Tensor) -> Tensor:
        """float32 ``(value / 255 - mean) / std`` of uint8 ``(B, 3, h, w)``."""
        mean = torch.tensor(self.preprocessing.mean, device=planes.device).view(3, 1, 1)
        std = torch.tensor(self.preprocessing.std, device=planes.device).view(3, 1, 1)
        return planes.to(torch.float32).div_(255).sub_(mean).div_(std)

    def _resized_size(self, height: int, width: int) -> list[int]:
        rows, columns = (math.floor(side / self.preprocessing.crop_fraction) for side in self.preprocessing.input_size)
        if self.preprocessing.crop_mode == "squash":
            return [rows, columns]
        # The shorter side meets its target, as in torchvision's and timm's Resize; the crop takes the middle.
        if rows * width >= columns * height:
            return [rows, rows * width // height]
        return [columns * height // width, columns]

    def _resize(self, planes: Tensor, size: list[int]) -> Tensor:
        from torchvision.transforms import InterpolationMode
        from torchvision.transforms.v2 import functional

        if list(planes.shape[-2:]) == size:
            return planes
        name = self.preprocessing.interpolation
        mode = InterpolationMode("nearest-exact" if name == "nearest" else name)  # torch's own "nearest" is off by one
        # PIL rounds and clips after either axis. Bicubic overshoots at edges, and what is not cut off before the second
        # axis comes out up to 30 levels off.
        levels = planes.to(torch.float32)
        for step in ([planes.shape[-2], size[1]], size):
            levels = functional.resize(levels, step, interpolation=mode, antialias=True)
            levels = levels.add_(0.5).floor_().clamp_(0, 255)
        return levels.to(torch.uint8)
