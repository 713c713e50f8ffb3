"""Random changes of training images, against torchvision's and against themselves."""

from __future__ import annotations

import pytest
import torch
from torchvision.transforms.v2 import functional

from zoo_harness.data.augmentation import Draws


@pytest.fixture(scope="module")
def images():
    return torch.randint(1, 256, (40, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def draws(*chosen, seed=0, epoch=1, images=40):
    return Draws.of(chosen, images, seed, epoch)


def test_half_of_them_are_flipped(images):
    drawn = draws("flip")
    found = drawn.apply(images, slice(0, 40))
    for image, result, flipped in zip(images, found, drawn.flips, strict=True):
        assert torch.equal(result, image.flip(2) if flipped else image)
    assert 10 < int(drawn.flips.sum()) < 30


def test_crops_are_padded_by_an_eighth(images):
    drawn = draws("crop")
    found = drawn.apply(images, slice(0, 40))
    starts = (drawn.offsets * 9).long().tolist()
    for image, result, (top, left) in zip(images, found, starts, strict=True):
        assert torch.equal(result, torch.nn.functional.pad(image, (4, 4, 4, 4))[:, top : top + 32, left : left + 32])
    assert {row for row, _column in starts} == set(range(9)) == {column for _row, column in starts}


@pytest.mark.parametrize("size", [(32, 32), (24, 40)])
def test_images_turn_as_torchvision_turns_them(size):
    images = torch.randint(1, 256, (40, 3, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    drawn = draws("rotate")
    found = drawn.apply(images, slice(0, 40))
    assert float(drawn.angles.abs().max()) <= 15
    for image, result, angle in zip(images, found, drawn.angles.tolist(), strict=True):
        # Which pixel is the nearest is a matter of rounding for a few.
        same = [(result == functional.rotate(image, sign * angle)).float().mean() for sign in (1, -1)]
        assert max(same) > 0.99


def test_what_is_drawn_depends_on_seed_and_epoch_alone(images):
    whole = draws("crop", "flip", "rotate").apply(images, slice(0, 40))
    parts = [draws("crop", "flip", "rotate").apply(images[i : i + 7], slice(i, i + 7)) for i in range(0, 40, 7)]
    assert torch.equal(torch.cat(parts), whole)
    for other in (draws("crop", "flip", "rotate", seed=1), draws("crop", "flip", "rotate", epoch=2)):
        assert not torch.equal(other.apply(images, slice(0, 40)), whole)
