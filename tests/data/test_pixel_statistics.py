"""Mean, standard deviation and brightness from counts: those of plain numpy, exact and in any order."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings, strategies as st
from hypothesis.extra.numpy import arrays

from zoo_harness.data.pixel_statistics import PixelCounts

IMAGES = np.random.default_rng(0).integers(0, 256, (40, 9, 7, 3), dtype=np.uint8)


def sum_of(images: list[np.ndarray]) -> PixelCounts:
    total = PixelCounts()
    for image in images:
        total += PixelCounts.of_image(image)
    return total


@settings(max_examples=50)
@given(arrays(np.uint8, st.tuples(*[st.integers(1, 5)] * 3, st.just(3))))
def test_the_figures_are_those_of_numpy(images: np.ndarray) -> None:
    found, values = PixelCounts.of_array(images), images.reshape(-1, 3) / 255
    assert found.pixels == len(values)
    assert found.mean == pytest.approx(values.mean(0))
    assert found.std == pytest.approx(values.std(0), abs=1e-12)
    assert found.brightness == pytest.approx(values.mean(0) @ (0.299, 0.587, 0.114))


def test_any_order_and_any_division_gives_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = PixelCounts.of_array(IMAGES)
    monkeypatch.setattr("zoo_harness.data.pixel_statistics._CHUNK_BYTES", 3 * IMAGES[0].nbytes)
    for other in (PixelCounts.of_array(IMAGES[::-1]), sum_of([*IMAGES[::2], *IMAGES[1::2]])):
        assert (other.mean, other.std, other.brightness) == (whole.mean, whole.std, whole.brightness)


def test_the_sums_are_exact_beyond_the_precision_of_floats() -> None:
    counts = np.zeros((3, 256), np.int64)
    counts[:, 0], counts[:, 1] = 1, 2**40  # all pixels but one have the value 1
    found, pixels = PixelCounts(counts), 2**40 + 1
    assert found.mean[0] == float(Fraction(2**40, 255 * pixels))
    assert found.std[0] == pytest.approx(2**20 / (255 * pixels), rel=1e-15)


def test_a_grey_image_has_three_equal_channels() -> None:
    grey = IMAGES[..., 0]
    found, colour = PixelCounts.of_array(grey), PixelCounts.of_array(np.stack([grey] * 3, axis=-1))
    assert (found.mean, found.std) == (colour.mean, colour.std)
    assert found.equal_channels
    assert not PixelCounts.of_array(IMAGES).equal_channels


def test_brightness_is_that_of_pillows_mode_l() -> None:
    found = np.array([PixelCounts.of_image(image).brightness for image in IMAGES])
    pillows = np.array([np.asarray(PIL.Image.fromarray(image).convert("L")).mean() / 255 for image in IMAGES])
    assert np.abs(found - pillows).max() < 0.5 / 255
