"""Images of more than 8 bits: their values as another library wrote them, whatever the file says about them."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import tifffile

from zoo import DataError
from zoo.image_kinds import readable_endings
from zoo.image_reader import ImageReader
from zoo.value_range import ValueRange

GREY = np.random.default_rng(0).integers(0, 4096, (6, 8)).astype(np.uint16)  # of 12 bits
GREY[0, 0] = 4095
COLOUR = np.random.default_rng(1).integers(0, 4096, (6, 8, 3)).astype(np.uint16)
COLOUR[0, 0] = 4095
ALPHA = np.full((6, 8, 1), 500, np.uint16)
QUARTER_TURN = (274, "H", 1, 6, True)  # a tag: the camera was turned


def read(content: bytes, reader: ImageReader | None = None) -> np.ndarray[Any, Any]:
    readable_endings()
    with PIL.Image.open(io.BytesIO(content)) as image:
        return np.asarray((reader or ImageReader()).upright(image, "image"))


def tiff(pixels: np.ndarray[Any, Any], **options: Any) -> bytes:
    file = io.BytesIO()
    options.setdefault("photometric", "rgb" if pixels.ndim == 3 else "minisblack")
    tifffile.imwrite(file, pixels, **options)
    return file.getvalue()


def png(pixels: np.ndarray[Any, Any], colour_type: int, significant: int | None = None) -> bytes:
    """A PNG of 16 bits; Pillow itself writes only grey ones."""
    rows = pixels.reshape(len(pixels), -1)

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", pixels.shape[1], len(pixels), 16, colour_type, 0, 0, 0)
    bits = chunk(b"sBIT", bytes([significant] * (rows.shape[1] // pixels.shape[1]))) if significant else b""
    data = zlib.compress(b"".join(b"\0" + row.astype(">u2").tobytes() for row in rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + bits + chunk(b"IDAT", data) + chunk(b"IEND", b"")


@pytest.mark.parametrize("kind", [np.uint16, np.int16, np.uint32, np.int32, np.float32, np.float64])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite"])
def test_grey_tiffs_of_any_type(kind: type, order: str, compression: str | None, photometric: str) -> None:
    floating = np.dtype(kind).kind == "f"
    pixels = (GREY / 4095 if floating else GREY).astype(kind)
    found = read(tiff(pixels, byteorder=order, compression=compression, photometric=photometric))
    expected = np.round(GREY / 4095 * 255) if floating else GREY >> 4
    assert np.array_equal(found, expected if photometric == "minisblack" else 255 - expected)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (tiff(COLOUR), COLOUR),
        (tiff(COLOUR, byteorder=">", compression="zlib"), COLOUR),
        (tiff(COLOUR, extratags=[QUARTER_TURN]), np.rot90(COLOUR, -1)),
        (tiff(GREY, extratags=[QUARTER_TURN]), np.rot90(GREY, -1)),
        (tiff(GREY, extratags=[QUARTER_TURN], photometric="miniswhite"), 4095 - np.rot90(GREY, -1)),
        (png(GREY, 0), GREY),
        (png(COLOUR, 2), COLOUR),
        (png(np.concatenate([COLOUR, ALPHA], 2), 6), COLOUR),
        (png(np.concatenate([GREY[..., None], ALPHA], 2), 4), np.stack([GREY] * 3, -1)),
        (b"P5 8 6 4095\n" + GREY.astype(">u2").tobytes(), GREY),
    ],
)
def test_colours_alpha_and_orientation_of_12_bits(content: bytes, expected: np.ndarray[Any, Any]) -> None:
    assert np.array_equal(read(content), expected >> 4)


def test_a_turned_png_of_16_bits() -> None:
    image, file = PIL.Image.fromarray(GREY), io.BytesIO()
    exif = image.getexif()
    exif[QUARTER_TURN[0]] = QUARTER_TURN[3]
    image.save(file, "PNG", exif=exif)
    assert np.array_equal(read(file.getvalue()), np.rot90(GREY >> 4, -1))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (tiff(GREY // 8, extratags=[(341, "H", 1, 999, True)]), ValueRange(0, 999)),  # SMaxSampleValue
        (tiff(GREY // 8, extratags=[(340, "H", 1, 0, True), (341, "H", 1, 999, True)]), ValueRange(0, 999)),
        (tiff(GREY.astype(np.int16) - 100, extratags=[(340, "h", 1, -100, True), (341, "h", 1, 4000, True)]),
         ValueRange(-100, 4000)),
        (tiff(GREY // 8, extratags=[(281, "H", 1, 16383, True)]), ValueRange(0, 16383)),  # MaxSampleValue: a depth
        (tiff(GREY // 8, extratags=[(281, "H", 1, 512, True)]), ValueRange(0, 1023)),  # the largest that occurs
        (tiff(GREY, extratags=[(341, "H", 1, 999, True)]), ValueRange(0, 4095)),  # values contradict the tag
        (png(GREY // 8, 0, significant=12), ValueRange(0, 4095)),
        (png(GREY * 16, 0, significant=12), ValueRange(0, 65535)),  # scaled up, as the standard of PNG asks for
        (tiff(GREY // 16), ValueRange(0, 255)),
        (tiff(GREY * 4), ValueRange(0, 16383)),
        (b"P5 8 6 65535\n" + GREY.astype(">u2").tobytes(), ValueRange(0, 65535)),  # the header states it
    ],
)  # fmt: skip
def test_the_range_is_that_of_tags_else_of_the_data(content: bytes, expected: ValueRange) -> None:
    reader = ImageReader()
    read(content, reader)
    reader.settle()
    assert reader.value_range == expected


def test_values_of_a_stated_range_are_cut_into_equal_parts() -> None:
    found = read(tiff(GREY // 8, extratags=[(341, "H", 1, 999, True)]))
    assert np.array_equal(found, GREY.astype(int) // 8 * 256 // 1000)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (tiff(GREY.astype(np.int16) - 100), "no known range"),
        (tiff((GREY / 4095 - 0.5).astype(np.float32)), "no known range"),
        (tiff(np.full((4, 4), np.nan, np.float32)), "not finite"),
        (tiff(COLOUR.transpose(2, 0, 1), planarconfig="separate"), "contiguous"),
        (tiff(COLOUR.transpose(2, 0, 1), planarconfig="separate", compression="zlib"), "contiguous"),
    ],
)
def test_values_that_no_rule_fits_are_refused_by_name(content: bytes, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        read(content)


def test_one_range_for_all_images_which_are_read_again_if_it_is_another() -> None:
    dark, bright = tiff(GREY // 16), tiff(GREY)
    reader = ImageReader()
    for name, content in (("dark", dark), ("bright", bright)):
        with PIL.Image.open(io.BytesIO(content)) as image:
            reader.upright(image, name)
    assert reader.settle()
    assert np.array_equal(read(dark, reader), GREY >> 8)
    assert not reader.settle()
    assert reader.lines() == ("3 image(s) of more than 8 bits: values 0 to 4,095 are read as 0 to 255 (largest value "
                              "4,095)",)  # fmt: skip
    read(tiff(GREY * 2), reader)
    assert reader.warnings()[0].startswith("1 image(s) have values outside of 0 to 4,095")


def test_whole_and_floating_point_numbers_have_no_common_range() -> None:
    reader = ImageReader()
    for name, pixels in (("a", GREY), ("b", (GREY / 4095).astype(np.float32))):
        with PIL.Image.open(io.BytesIO(tiff(pixels))) as image:
            reader.upright(image, name)
    with pytest.raises(DataError) as caught:
        reader.settle()
    assert (caught.value.code, caught.value.facts["images"]) == ("image-ranges-mixed", ["a", "b"])


def test_without_other_images_16_bits_keep_the_upper_8_and_tags_are_honoured() -> None:
    alone = ImageReader(gather=False)
    assert np.array_equal(read(tiff(GREY), alone), GREY >> 8)
    assert np.array_equal(read(tiff(GREY, photometric="miniswhite"), alone), 255 - (GREY >> 8))
    assert np.array_equal(read(png(GREY, 0, significant=12), alone), GREY >> 4)
    with pytest.raises(ValueError, match="float32"):
        read(tiff((GREY / 4095).astype(np.float32)), alone)


def test_images_of_8_bits_are_not_touched(tmp_path: Path) -> None:
    reader = ImageReader(ValueRange(0, 4095))
    pixels = (COLOUR >> 4).astype(np.uint8)
    PIL.Image.fromarray(pixels).save(tmp_path / "a.png")
    assert np.array_equal(read((tmp_path / "a.png").read_bytes(), reader), pixels)
    assert np.array_equal(read(tiff(pixels[..., 0], photometric="miniswhite"), reader), 255 - pixels[..., 0])
    assert reader.lines() == ()
