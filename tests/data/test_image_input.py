"""Images as a user has them: what becomes of each kind, and what is told of the kinds that cannot be meant."""

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
    ("images", "parts"),
    [
        (np.zeros((2, 3, 8, 9), np.uint8), ["(2, 3, 8, 9)", "channels come first", "permute(0, 2, 3, 1)"]),
        (torch.zeros(2, 1, 8, 9, dtype=torch.uint8), ["(2, 1, 8, 9)", "channels come first"]),
        (np.zeros((8, 9, 4), np.uint8), ["(8, 9, 4)", "drop the alpha", "[..., :3]"]),
        (np.zeros((2, 8, 9, 4), np.uint8), ["drop the alpha"]),
        (np.zeros((8, 9, 1), np.uint8), ["(8, 9, 1)", "[..., 0]"]),
        (np.zeros((2, 8, 9, 7), np.uint8), ["(2, 8, 9, 7)", "the 3 colours"]),
        (np.zeros((0, 8, 9), np.uint8), ["(0, 8, 9)", "no image in it"]),
        (np.zeros((2, 0, 9, 3), np.uint8), ["no image in it"]),
        (np.zeros(9, np.uint8), ["(9,)", "1 dimension(s)"]),
        (np.full((8, 9), 0.5), ["float64", "[0.5, 0.5]", "multiply by 255, round and convert to uint8"]),
        (torch.tensor([[0.0, 254.0]]), ["float32", "[0, 254]", "round and convert to uint8"]),
        (torch.tensor([[-2.1, 2.6]]), ["[-2.1, 2.6]", "before they were normalised"]),
        (np.zeros((0, 8, 9)), ["float64", "0 to 255"]),
        (np.zeros((8, 9), np.uint16), ["uint16", "upper 8 bits"]),
        (np.zeros((8, 9), np.int64), ["int64", "convert values of 0 to 255 to uint8"]),
        (np.zeros((8, 9), bool), ["bool", "expected uint8"]),
        ([], ["the list is empty", "a PIL image, a list of them"]),
        ([GREY, np.stack([GREY] * 2)], ["images[1] is a batch (2, 6, 8)", "give the batch alone"]),
        ([GREY, "a.jpg"], ["images[1]: str 'a.jpg' is not an image", "PIL.Image.open"]),
        (Path("a.jpg"), ["a.jpg", "PIL.Image.open"]),
        (None, ["given NoneType", "expected a PIL image"]),
    ],
)
def test_what_cannot_be_meant_is_told_with_what_to_do(images: object, parts: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        given_back(images)
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize("mode", ["I", "F"])
def test_pixels_without_a_range_are_refused(mode: str) -> None:
    with pytest.raises(DataError, match=rf"images\[1\].*mode {mode} have no fixed range"):
        given_back([GREY, PIL.Image.new(mode, (3, 3))])


def test_a_file_that_ends_too_early_is_told() -> None:
    content = io.BytesIO()
    PIL.Image.fromarray(COLOUR).resize((64, 64)).save(content, "PNG")
    cut = PIL.Image.open(io.BytesIO(content.getvalue()[:200]))
    with pytest.raises(DataError, match=r"images: this PIL image cannot be decoded \(\w+: "):
        given_back(cut)
