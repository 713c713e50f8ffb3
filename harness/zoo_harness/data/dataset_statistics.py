"""Measure the images of a dataset at their original size: pixel values, image sizes, brightness and duplicates."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.dataset import Dataset, DatasetRequest, ImageSplit, LoadedDataset, ReadOptions
from zoo.errors import DataError
from zoo.image_reader import ImageReader
from zoo_harness.data.decoding import checked_array, image_digest, read_pixels
from zoo_harness.data.duplicates import ImageNames, Origin, find_duplicates
from zoo_harness.data.opened import load_checked, title_of
from zoo_harness.data.pixel_statistics import PixelCounts
from zoo_harness.data.readable import UNREADABLE, readable_indices, skipped_warning
from zoo_harness.data.subset import select_images, subset_indices
from zoo_harness.records.statistics import (
    BrightnessRecord,
    DatasetStatistics,
    ImageBrightness,
    Range,
    SplitStatistics,
)
from zoo_harness.records.subset import Subset
from zoo_harness.util.progress import Progress

_NUMBERS = np.dtype(
    [("digest", "u8"), ("height", "i8"), ("width", "i8"), ("brightness", "f8"), ("grey", "?")]
)  # the measurements of one image, 33 bytes


@dataclass(frozen=True)
class MeasuredSplit:
    """Hold the measurements of the N images of a split.

    ``numbers``: one record of type ``_NUMBERS`` for each image. ``counts``: a histogram of all pixel values.
    ``indices``: the position of each image in the split. ``labels``: the class index of each image.
    """

    indices: NDArray[np.int64]
    labels: NDArray[np.int64]
    numbers: NDArray[np.void]
    counts: PixelCounts

    @property
    def digests(self) -> NDArray[np.uint64]:
        """The 64-bit digest of each image, (N,)."""
        return self.numbers["digest"]

    def summary(self, split: str, names: ImageNames, classes: int) -> SplitStatistics:
        """Summarise the measurements as the statistics of the split; ``classes`` is the number of classes."""
        heights, widths = self.numbers["height"], self.numbers["width"]
        first = int(heights[0]), int(widths[0])
        one_size = bool((heights == first[0]).all() and (widths == first[1]).all())
        return SplitStatistics(
            images=len(self.indices),
            pixels=self.counts.pixels,
            mean=self.counts.mean,
            std=self.counts.std,
            size=first if one_size else None,
            height=_range(heights),
            width=_range(widths),
            aspect_ratio=_range(widths / heights),
            brightness=self._brightness(split, names),
            grey=int(self.numbers["grey"].sum()),
            per_class=tuple(np.bincount(self.labels, minlength=classes).tolist()),
        )

    def _brightness(self, split: str, names: ImageNames) -> BrightnessRecord:
        values = self.numbers["brightness"]
        ends = [
            ImageBrightness(value=float(values[index]), name=names.name(split, int(self.indices[index])))
            for index in (values.argmin(), values.argmax())
        ]
        low, middle, high = (float(value) for value in np.quantile(values, (0.05, 0.5, 0.95)))
        return BrightnessRecord(
            darkest=ends[0],
            percentile_5=low,
            median=middle,
            mean=math.fsum(values) / len(values),
            percentile_95=high,
            brightest=ends[1],
        )


def _range(values: NDArray[Any]) -> Range:
    return Range(min=float(values.min()), median=float(np.median(values)), max=float(values.max()))


def measure_dataset(
    dataset: Dataset,
    argument: str | None,
    data_dir: Path | None,
    subset: Subset,
    options: ReadOptions,
    progress: Progress,
) -> tuple[DatasetStatistics, tuple[str, ...]]:
    """Measure a dataset, or a subset of each split; return the statistics and warnings for the user.

    All images of more than 8 bits per channel are scaled by the value range of the training split. The training images
    are read twice if one of their value ranges differs from the value range of the whole training split. Raises the
    same errors as :func:`~zoo_harness.data.loading.load_data`.
    """
    reader = ImageReader(None)
    progress.stage(f"loading {dataset.title}", 0)
    loaded = load_checked(dataset, DatasetRequest(argument, data_dir, options, reader))
    measured: dict[str, MeasuredSplit] = {}
    skipped = 0
    for name, split in _train_first(loaded):
        indices = subset_indices(split, loaded.classes, subset, "training" if name == "train" else None)
        measured[name] = _measure_split(split, indices, loaded, name, reader, progress, skip=options.skip_unreadable)
        skipped += len(indices) - len(measured[name].indices)
    origins = {name: Origin(name, split) for name, split in loaded.splits.items()}
    names, classes = ImageNames(origins), len(loaded.classes)
    splits = {name: split.summary(name, names, classes) for name, split in measured.items()}
    smallest = [(f"{name} split", min(filter(None, split.per_class))) for name, split in splits.items()]
    counts = {**loaded.skipped, UNREADABLE: loaded.skipped.get(UNREADABLE, 0) + skipped}
    settled = reader.value_range if reader.notes.deep else None
    record = DatasetStatistics(
        dataset=f"{dataset.name}:{argument}" if argument else dataset.name,
        title=title_of(dataset, argument),
        source=loaded.source,
        revision=loaded.revision,
        classes=loaded.classes,
        subset=subset.in_words(*smallest),
        reading=(*loaded.reading, *reader.lines()),
        skipped={kind: count for kind, count in counts.items() if count},
        value_range=settled and (settled.low, settled.high),
        splits=splits,
        duplicates=find_duplicates(measured, origins, loaded.classes).records,
    )
    return record, (*loaded.warnings, *skipped_warning(skipped), *reader.warnings())


def _train_first(loaded: LoadedDataset) -> Iterator[tuple[str, ImageSplit]]:
    """Yield the splits by name; the training split comes first, because it determines the value range."""
    yield "train", loaded.splits["train"]
    yield from ((name, split) for name, split in loaded.splits.items() if name != "train")


def _measure_split(
    split: ImageSplit,
    indices: NDArray[np.int64],
    loaded: LoadedDataset,
    name: str,
    reader: ImageReader,
    progress: Progress,
    *,
    skip: bool,
) -> MeasuredSplit:
    """Measure the selected images of a split; if ``skip`` is true, exclude unreadable images."""
    unreadable: dict[int, DataError] = {}
    selected = select_images(split, indices)
    numbers, counts = _measure_images(selected, name, unreadable, progress)
    if reader.settle():
        numbers, counts = _measure_images(selected, name, unreadable, progress)
    kept = readable_indices(unreadable, split, indices, loaded.classes, name, skip=skip)
    numbers = np.delete(numbers, sorted(unreadable))
    return MeasuredSplit(kept, np.asarray(split.labels, np.int64)[kept], numbers, counts)


def _measure_images(
    split: ImageSplit, name: str, unreadable: dict[int, DataError], progress: Progress
) -> tuple[NDArray[np.void], PixelCounts]:
    """Return the measurements of each image, and a histogram of all pixel values; unreadable images get zeros."""
    numbers, total = np.zeros(len(split), _NUMBERS), PixelCounts()
    progress.stage(f"reading the {name} split", len(split))

    def measure(index: int, pixels: NDArray[np.uint8]) -> PixelCounts:
        counts = PixelCounts.of_image(pixels)
        is_grey = counts.equal_channels and (pixels.ndim == 2 or bool((pixels == pixels[..., :1]).all()))
        numbers[index] = image_digest(pixels), *pixels.shape[:2], counts.brightness, is_grey
        return counts

    if isinstance(split.images, np.ndarray):
        images = checked_array(split.images, name)
        found: Iterator[PixelCounts] = map(measure, range(len(images)), images)
    else:
        found = read_pixels(split.images, measure, unreadable)
    for counts in found:
        total += counts
        progress.advance(1)
    return numbers, total
