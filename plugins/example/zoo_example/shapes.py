"""Draw 32 x 32 images of grey shapes with random size, position and brightness on a noisy background."""

from __future__ import annotations

import importlib.metadata

import numpy as np
from numpy.typing import NDArray
from zoo import DatasetRequest, ImageSplit, LoadedDataset

from zoo_example import CLASSES

SIDE = 32
PER_CLASS = {"train": 80, "test": 20}
SEEDS = {"train": 0, "test": 1}


def load(request: DatasetRequest) -> LoadedDataset:
    """Draw both splits of the dataset; no field of ``request`` is needed."""
    del request
    version = importlib.metadata.version("zoo-example")
    return LoadedDataset(
        classes=CLASSES,
        splits={split: draw_split(count, SEEDS[split]) for split, count in PER_CLASS.items()},
        source=f"drawn by zoo-example {version}",
        revision=version,
    )


def draw_split(per_class: int, seed: int) -> ImageSplit:
    """Draw ``per_class`` images of each class; the classes alternate.

    >>> split = draw_split(2, seed=0)
    >>> split.images.shape, split.labels.tolist()
    ((6, 32, 32), [0, 1, 2, 0, 1, 2])
    """
    generator = np.random.default_rng(seed)
    labels = np.tile(np.arange(len(CLASSES)), per_class)
    return ImageSplit(np.stack([draw(CLASSES[label], generator) for label in labels]), labels)


def draw(shape: str, generator: np.random.Generator) -> NDArray[np.uint8]:
    """Draw one whole shape, with a radius of at least five pixels, in a uint8 image ``(32, 32)``.

    >>> image = draw("circle", np.random.default_rng(0))
    >>> image.shape, str(image.dtype)
    ((32, 32), 'uint8')
    """
    radius = generator.uniform(5, 12)
    column, row = generator.uniform(radius, SIDE - 1 - radius, size=2)
    rows, columns = np.mgrid[:SIDE, :SIDE]
    inside = _inside(shape, (columns - column) / radius, (rows - row) / radius)
    ground, brightness = generator.uniform(0, 80), generator.uniform(140, 255)
    image = np.where(inside, brightness, ground) + generator.normal(0, 12, size=inside.shape)
    return image.clip(0, 255).astype(np.uint8)


def _inside(shape: str, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return the mask of pixels inside a shape of radius 1; ``x`` grows to the right, and ``y`` grows downwards."""
    edge = {"circle": np.hypot(x, y), "square": np.maximum(abs(x), abs(y)) / 0.9, "triangle": _triangle(x, y)}
    return edge[shape] <= 1


def _triangle(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return values that are at most 1 inside a triangle whose tip has ``y`` = -1 and whose base has ``y`` = 0.8."""
    return np.maximum(y / 0.8, 2 * abs(x) - y)
