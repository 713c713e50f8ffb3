"""Augment training images at random on the compute device: crop, flip and rotate them.

The random numbers depend only on the seed, the epoch and the index of an image in the epoch. The device and the batch
size do not change the random numbers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from zoo.backbone import Augmentation

PADDING = 1 / 8  # fraction of the side; CIFAR images of 32 pixels are padded by 4 pixels
LARGEST_ANGLE = 15.0  # degrees


@dataclass(frozen=True, eq=False)
class Draws:
    """Hold the random augmentations of N images.

    ``offsets``: crop offsets, (N, 2) in [0, 1). ``flips``: whether to flip each image, (N,). ``angles``: rotations in
    degrees, (N,). ``chosen``: the augmentations that :meth:`apply` uses.
    """

    offsets: Tensor
    flips: Tensor
    angles: Tensor
    chosen: tuple[Augmentation, ...]

    @classmethod
    def of(cls, chosen: tuple[Augmentation, ...], images: int, seed: int, epoch: int) -> Self:
        """Draw the random augmentations of all images, for one epoch or for one augmented copy that is cached.

        >>> Draws.of(("flip",), 4, seed=0, epoch=1).flips.shape
        torch.Size([4])
        """
        generator = np.random.default_rng((seed, epoch, 1))
        offsets = generator.random((images, 2), np.float32)
        flips = generator.random(images) < 0.5
        angles = generator.uniform(-LARGEST_ANGLE, LARGEST_ANGLE, images).astype(np.float32)
        return cls(torch.from_numpy(offsets), torch.from_numpy(flips), torch.from_numpy(angles), chosen)

    def apply(self, planes: Tensor, indices: slice) -> Tensor:
        """Augment uint8 images (B, 3, H, W); ``indices`` are the positions of the images in the epoch."""
        offsets, flips, angles = (
            drawn[indices].to(planes.device, non_blocking=True) for drawn in (self.offsets, self.flips, self.angles)
        )
        if "crop" in self.chosen:
            planes = _crop(planes, offsets)
        if "flip" in self.chosen:
            planes = torch.where(flips[:, None, None, None], planes.flip(3), planes)
        if "rotate" in self.chosen:
            planes = _rotate(planes, angles)
        return planes


def _crop(planes: Tensor, offsets: Tensor) -> Tensor:
    """Pad images with black pixels, then crop them to their original size at the given offsets."""
    height, width = planes.shape[-2:]
    border = (math.ceil(height * PADDING), math.ceil(width * PADDING))
    padded = functional.pad(planes, (border[1], border[1], border[0], border[0]))
    room = torch.tensor([2 * border[0] + 1, 2 * border[1] + 1], device=planes.device)
    start = (offsets * room).long()
    rows = start[:, :1] + torch.arange(height, device=planes.device)
    columns = start[:, 1:] + torch.arange(width, device=planes.device)
    image = torch.arange(len(planes), device=planes.device)
    return padded[image[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _rotate(planes: Tensor, angles: Tensor) -> Tensor:
    """Rotate images about their centre with nearest-neighbour sampling, and fill the corners with black."""
    height, width = planes.shape[-2:]
    turn = angles * (math.pi / 180)
    cosine, sine = turn.cos(), turn.sin()
    zero = torch.zeros_like(turn)
    # affine_grid uses coordinates from -1 to 1 along both sides, so a rotation must correct for the aspect ratio.
    rows = [
        torch.stack([cosine, -sine * (height / width), zero], 1),
        torch.stack([sine * (width / height), cosine, zero], 1),
    ]
    grid = functional.affine_grid(torch.stack(rows, 1), list(planes.shape), align_corners=False)
    turned = functional.grid_sample(planes.float(), grid, mode="nearest", align_corners=False)
    return turned.to(planes.dtype)
