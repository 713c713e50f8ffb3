"""Images as a user has them: the batches of each kind, and the advice for input that is refused."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch

from zoo import DataError, UsageError
from zoo_harness.data.image_input import as_batches

GREY = np.arange(48, dtype=np.uint8).reshape(6, 8)
COLOUR = np.arange(144, dtype=np.uint8).reshape(6, 8, 3)


def given_back(images: Any) -> list[np.ndarray]:
    return [batch.numpy() for batch in as_batches(images)]


def as_file(image: PIL.Image.Image, kind: str, **options: Any) -> PIL.Image.Image:
    """The image as it comes back from a file, decoded when it is first needed."""
    content = io.BytesIO()
    image.save(content, kind, **options)
    return PIL.Image.open(io.BytesIO(content.getvalue()))


@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
@pytest.mark.parametrize(
    ("pixels", "batch"),
    [
        (GREY, GREY[None]),
        (COLOUR, COLOUR[None]),
        (np.stack([GREY] * 5), np.stack([GREY] * 5)),
        (np.stack([GREY] * 3), np.stack([GREY] * 3)),
        (np.stack([COLOUR] * 2), np.stack([COLOUR] * 2)),
    ],
    ids=["grey", "colour", "greys", "three greys", "colours"],
)
def test_arrays_and_tensors_of_one_image_or_many(kind: Any, pixels: np.ndarray, batch: np.ndarray) -> None:
    (found,) = given_back(kind(pixels))
    assert np.array_equal(found, batch)


def test_arrays_that_torch_cannot_share_are_copied() -> None:
    frozen = GREY.copy()
    frozen.setflags(write=False)
    for pixels in (frozen, GREY[::-1], np.asfortranarray(GREY)):
        (found,) = given_back(pixels)
        assert np.array_equal(found[0], pixels)


def test_a_list_holds_one_image_each_of_any_size() -> None:
    images = [PIL.Image.fromarray(COLOUR), PIL.Image.fromarray(GREY[:3]), GREY, torch.from_numpy(COLOUR)]
    for form in (list, tuple):
        found = given_back(form(images))
        assert [batch.shape for batch in found] == [(1, 6, 8, 3), (1, 3, 8), (1, 6, 8), (1, 6, 8, 3)]
        assert np.array_equal(found[0][0], COLOUR)


def test_pil_images_of_every_mode_become_grey_or_colour() -> None:
    transparent = PIL.Image.fromarray(COLOUR).convert("RGBA")
    transparent.putalpha(7)
    sixteen_bits = PIL.Image.fromarray(GREY.astype(np.uint16) * 257)
    for image, expected in (
        (PIL.Image.fromarray(GREY), GREY),
        (PIL.Image.fromarray(COLOUR), COLOUR),
        (transparent, COLOUR),
        (as_file(sixteen_bits, "PNG"), GREY),
        (PIL.Image.fromarray(GREY).convert("LA"), np.stack([GREY] * 3, -1)),
        (PIL.Image.fromarray(GREY > 20), np.stack([(GREY > 20) * np.uint8(255)] * 3, -1)),
    ):
        (found,) = given_back(image)
        assert np.array_equal(found[0], expected), image.mode


def test_a_palette_is_looked_up() -> None:
    palette = as_file(PIL.Image.new("RGBA", (3, 2), (9, 8, 7, 0)).quantize(), "PNG", transparency=b"\0")
    assert palette.mode == "P"
    (found,) = given_back(palette)
    assert found.tolist() == [[[[9, 8, 7]] * 3] * 2]


def test_a_photo_is_turned_upright() -> None:
    image = PIL.Image.fromarray(GREY)
    exif = image.getexif()
    exif[0x0112] = 6  # the camera was turned by a quarter
    (found,) = given_back(as_file(image, "PNG", exif=exif))
    assert np.array_equal(found[0], np.rot90(GREY, -1))


@pytest.mark.parametrize(
    ("images", "code", "advice"),
    [
        (np.zeros((2, 3, 8, 9), np.uint8), "image-shape", "permute(0, 2, 3, 1)"),
        (torch.zeros(2, 1, 8, 9, dtype=torch.uint8), "image-shape", "permute(0, 2, 3, 1)"),
        (np.zeros((8, 9, 4), np.uint8), "image-shape", "[..., :3]"),
        (np.zeros((2, 8, 9, 4), np.uint8), "image-shape", "[..., :3]"),
        (np.zeros((8, 9, 1), np.uint8), "image-shape", "[..., 0]"),
        (np.zeros((2, 8, 9, 7), np.uint8), "image-shape", "3 colour channels"),
        (np.zeros((0, 8, 9), np.uint8), "image-shape", "no image"),
        (np.zeros((2, 0, 9, 3), np.uint8), "image-shape", "no image"),
        (np.zeros(9, np.uint8), "image-shape", "1 dimension(s)"),
        (np.full((8, 9), 0.5), "image-dtype", "[0.5, 0.5]: multiply by 255, round"),
        (torch.tensor([[0.0, 254.0]]), "image-dtype", "[0, 254]: round"),
        (torch.tensor([[-2.1, 2.6]]), "image-dtype", "without normalisation"),
        (torch.tensor([[torch.nan]]), "image-dtype", "without normalisation"),
        (np.zeros((0, 8, 9)), "image-dtype", "0 to 255"),
        (np.zeros((8, 9), np.uint16), "image-dtype", "upper 8 bits"),
        (np.zeros((8, 9), np.int64), "image-dtype", "convert values of 0 to 255 to uint8"),
        (np.zeros((8, 9), bool), "image-dtype", "expected uint8"),
        ([], "images-empty", "a PIL image, a list of them"),
        ([GREY, np.stack([GREY] * 2)], "image-shape", "pass the batch by itself"),
        ([GREY, "a.jpg"], "image-type", "PIL.Image.open"),
        (Path("a.jpg"), "image-type", "PIL.Image.open"),
        (None, "image-type", "expected a PIL image"),
    ],
)
def test_other_input_is_refused_with_advice(images: object, code: str, advice: str) -> None:
    with pytest.raises(UsageError) as caught:
        given_back(images)
    assert caught.value.code == code
    assert caught.value.facts["image"] == ("images[1]" if isinstance(images, list) and images else "images")
    assert advice in str(caught.value)


def cut_file() -> PIL.Image.Image:
    content = io.BytesIO()
    PIL.Image.fromarray(COLOUR).resize((64, 64)).save(content, "PNG")
    return PIL.Image.open(io.BytesIO(content.getvalue()[:200]))


@pytest.mark.parametrize("image", [PIL.Image.new("I", (3, 3)), PIL.Image.new("F", (3, 3)), cut_file()])
def test_a_pil_image_without_a_range_or_an_end_is_refused(image: PIL.Image.Image) -> None:
    with pytest.raises(DataError) as caught:
        given_back([GREY, image])
    assert (caught.value.code, caught.value.facts["image"]) == ("image-undecodable", "images[1]")
