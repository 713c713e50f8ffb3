"""The record that ``zoo stats`` writes: sizes, pixel values, brightness and classes of each split of a dataset."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, FiniteFloat

from zoo_harness.records.run import Count, DuplicatesRecord, Number, Proportion, Record

Size = tuple[Number, Number]
Channels = tuple[Proportion, Proportion, Proportion]
Ratio = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Range(Record):
    """The smallest, the median and the largest value of a property, such as the width, over the images of a split."""

    min: Ratio
    median: Ratio
    max: Ratio


class ImageBrightness(Record):
    """The brightness of one image: its mean luma (ITU-R BT.601) from 0 (black) to 1 (white)."""

    value: Proportion
    name: str


class BrightnessRecord(Record):
    """The brightness of the images of a split: the extremes, the mean, and the 5th, 50th and 95th percentiles."""

    darkest: ImageBrightness
    percentile_5: Proportion
    median: Proportion
    mean: Proportion
    percentile_95: Proportion
    brightest: ImageBrightness


class SplitStatistics(Record):
    """The statistics of one split, measured at the images' original sizes.

    ``pixels`` is the total number of pixels. ``mean`` and ``std`` (population standard deviation) are those of red,
    green and blue over all pixels, for values in [0, 1]. ``size`` is the (height, width) of all images; ``None`` if
    sizes differ. ``aspect_ratio`` is width / height. ``grey`` is the number of images without colour. ``per_class`` is
    the number of images of each class, in the order of :attr:`DatasetStatistics.classes`.
    """

    images: Number
    pixels: Annotated[int, Field(gt=0)]
    mean: Channels
    std: Channels
    size: Size | None
    height: Range
    width: Range
    aspect_ratio: Range
    brightness: BrightnessRecord
    grey: Count
    per_class: tuple[Count, ...]


class DatasetStatistics(Record):
    """The statistics of a dataset by split; ``duplicates`` lists equal images within and between the splits.

    ``source``, ``revision``, ``reading``, ``skipped`` and ``value_range`` have the same meaning as in
    :class:`~zoo_harness.records.run.DatasetRecord`. ``subset`` describes the images that were read.
    """

    format: Literal["blockzoo stats 1"] = "blockzoo stats 1"
    dataset: str
    title: str
    source: str
    revision: str | None
    classes: tuple[str, ...]
    subset: str
    reading: tuple[str, ...] = ()
    skipped: dict[str, Count] = Field(default_factory=dict)
    value_range: tuple[FiniteFloat, FiniteFloat] | None = None
    splits: dict[str, SplitStatistics]
    duplicates: tuple[DuplicatesRecord, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the record as JSON-compatible dictionaries, lists and numbers."""
        return self.model_dump(mode="json")

    def to_json(self) -> str:
        """Return the record as indented JSON with a final newline."""
        return self.model_dump_json(indent=2) + "\n"
