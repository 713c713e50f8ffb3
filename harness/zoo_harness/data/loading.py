"""Load the data splits of a run: check the dataset, choose a random subset, and decode the images to uint8.

Images of an array are stored at their original size and resized batch by batch. Image files are resized and cropped
once, when they are decoded, so their batches only have to be normalised.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from zoo.backbone import Preprocessing
from zoo.dataset import AS_FOUND, Dataset, ImageSplit, ReadOptions
from zoo.image_reader import ImageReader
from zoo.value_range import ValueRange
from zoo_harness.data.class_coverage import absence_warnings
from zoo_harness.data.decoding import ImageData
from zoo_harness.data.duplicates import Origin, find_duplicates
from zoo_harness.data.opened import OpenedDataset, missing_split, open_dataset, open_training_split, title_of
from zoo_harness.data.readable import (
    UNREADABLE,
    contrast_warning,
    decode_readable,
    skipped_warning,
)
from zoo_harness.data.subset import balanced_order, smallest_class, subset_indices
from zoo_harness.data.transform import BatchTransform
from zoo_harness.records.run import DatasetRecord, DuplicatesRecord, SplitRecord
from zoo_harness.records.subset import SUBSET_OPTIONS, Subset

SMALL_SIDE = 32  # pixels; side length of the small images that zoo rank keeps in memory


@dataclass(frozen=True)
class RunData:
    """Hold the decoded splits of a run, the record of the dataset, and warnings for the user.

    ``test`` is the split that is evaluated once, after training; ``None`` means that the run has no test split.
    ``shared`` maps each split's name to a mask (N,), which is true for images that also occur in an earlier split.
    """

    train: ImageData
    evaluation: ImageData
    record: DatasetRecord
    warnings: tuple[str, ...] = ()
    test: ImageData | None = None
    shared: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)

    @property
    def preprocessing(self) -> Preprocessing:
        """The preprocessing that all splits share."""
        return self.train.transform.preprocessing

    def normalised_by(self, preprocessing: Preprocessing) -> RunData:
        """Return the same decoded images with another mean and standard deviation for normalisation."""
        transform = BatchTransform(preprocessing)
        train, evaluation = (replace(each, transform=transform) for each in (self.train, self.evaluation))
        test = None if self.test is None else replace(self.test, transform=transform)
        return replace(self, train=train, evaluation=evaluation, test=test)


def load_data(
    dataset: Dataset,
    argument: str | None,
    data_dir: Path | None,
    subset: Subset,
    transform: BatchTransform,
    balanced: Literal["train", "evaluation"] = "train",
    *,
    with_test: bool = False,
    train_only: bool = False,
    options: ReadOptions = AS_FOUND,
    value_range: ValueRange | None = None,
    count_values: bool = False,
    opened: OpenedDataset | None = None,
) -> RunData:
    """Load and check a dataset, choose the subset, and decode the images of each split.

    ``balanced``: the split that must have ``subset.per_class`` images of each class. If a class of the other split has
    fewer images, all classes of the other split are reduced to the size of that split's smallest class. ``with_test``:
    whether to load the dataset's own evaluation split as ``test`` if the run's evaluation images are held out of the
    training split. ``train_only``: whether to evaluate on the training split if the dataset has no evaluation split.
    ``options``: the user's options for reading the files. ``value_range``: the range that scales images of more than 8
    bits per channel; the default is the range of the training images. ``count_values``: whether to compute a histogram
    of the training images' pixel values. ``opened``: the result of :func:`~zoo_harness.data.opened.open_dataset` for
    the same arguments, which avoids loading the dataset twice.

    Raises :class:`~zoo.errors.DataError` for labels outside the classes, an empty class or an unreadable image, and
    :class:`~zoo.errors.UsageError` for a subset that is larger than the dataset allows.
    """
    if opened is None:
        opened = open_dataset(
            dataset,
            argument,
            data_dir,
            subset,
            balanced,
            train_only=train_only,
            options=options,
            value_range=value_range,
        )
    name, loaded, reader, origins = opened.name, opened.loaded, opened.reader, opened.origins
    train, evaluation, evaluation_name = opened.train, opened.evaluation, opened.evaluation_name
    skipped = 0
    flat: tuple[str, ...] = ()

    def decode(split: ImageSplit, called: str, must_have: str | None = None) -> tuple[ImageData, SplitRecord]:
        nonlocal skipped, flat
        part = subset if called == "train" else subset.for_evaluation()
        indices = subset_indices(split, loaded.classes, part, must_have)
        data, record, unreadable = decode_readable(
            split,
            indices,
            loaded.classes,
            called,
            transform,
            reader,
            skip=options.skip_unreadable,
            count_values=count_values and called == "train",
        )
        skipped += unreadable
        flat += contrast_warning(called, data.images)
        return data, record

    train_data, train_record = decode(train, "train", "training" if balanced == "train" else None)
    evaluation_data, evaluation_record = decode(
        evaluation, evaluation_name, evaluation_name if balanced == "evaluation" else None
    )
    smallest = [
        ("training split", smallest_class(train_record)),
        ("evaluation split", smallest_class(evaluation_record)),
    ]
    decoded = {"train": train_data, evaluation_name: evaluation_data}
    test = test_record = None
    warnings = loaded.warnings
    if with_test and subset.val_fraction is not None:
        if dataset.evaluation_split in loaded.splits:
            test, test_record = decode(loaded.splits[dataset.evaluation_split], dataset.evaluation_split)
            smallest.append(("test split", smallest_class(test_record)))
            decoded[dataset.evaluation_split] = test
        else:
            warnings += (
                f"{missing_split(dataset, name, loaded)}: the reported accuracy is that of the held-out images, which "
                "also select the best epoch",
            )
    warnings += (*skipped_warning(skipped), *reader.warnings(), *flat)
    duplicates = find_duplicates(decoded, origins, loaded.classes)
    others = (evaluation_record,) if test_record is None else (evaluation_record, test_record)
    warnings += absence_warnings(train_record, others, loaded.classes)
    warnings += tuple(each.in_words() for each in duplicates.records)
    settled = reader.value_range if reader.notes.deep else None
    counts = {**loaded.skipped, UNREADABLE: loaded.skipped.get(UNREADABLE, 0) + skipped}
    record = DatasetRecord(
        name=dataset.name,
        title=title_of(dataset, argument),
        argument=argument,
        hub_id=dataset.hub_id,
        source=loaded.source,
        revision=loaded.revision,
        license=dataset.license,
        citation=dataset.citation,
        classes=loaded.classes,
        train=train_record,
        evaluation=evaluation_record,
        test=test_record,
        reading=(*loaded.reading, *reader.lines()),
        value_range=settled and (settled.low, settled.high),
        skipped={kind: count for kind, count in counts.items() if count},
        duplicates=duplicates.records,
        **{name: getattr(subset, name) for name in SUBSET_OPTIONS},
        subset=subset.in_words(*smallest),
    )
    return RunData(train_data, evaluation_data, record, warnings, test, duplicates.shared)


@dataclass(frozen=True)
class TrainingSplit:
    """Hold the training split of a dataset, ordered so that for any N the first N images are balanced.

    ``source``: where the dataset comes from, as the loader describes it. ``small``: the images, resized to squares of
    :data:`SMALL_SIDE` pixels. ``record``: the record of the small images. ``reading``: text for the user about how the
    files were read. ``warnings``: warnings for the user. ``duplicates``: the equal images of the split.
    """

    name: str
    title: str
    source: str
    classes: tuple[str, ...]
    small: ImageData
    record: SplitRecord
    reading: tuple[str, ...]
    warnings: tuple[str, ...]
    duplicates: tuple[DuplicatesRecord, ...]
    _split: ImageSplit
    _order: NDArray[np.int64]
    _reader: ImageReader

    @property
    def labels(self) -> NDArray[np.int64]:
        """The class index of each image, (N,)."""
        labels: NDArray[np.int64] = self.small.labels.numpy()
        return labels

    def decode(self, start: int, stop: int, transform: BatchTransform) -> ImageData:
        """Decode the images at positions ``start`` to ``stop`` of the balanced order."""
        chosen = self._order[start:stop]
        return decode_readable(self._split, chosen, self.classes, "train", transform, self._reader, skip=False)[0]

    def small_pixels(self, start: int, stop: int) -> NDArray[np.float32]:
        """Return the small images from ``start`` to ``stop`` as rows (N, 3 * SMALL_SIDE ** 2) of values in [0, 255]."""
        planes, _labels = self.small.planes(np.arange(start, stop), torch.device("cpu"))
        return planes.flatten(1).float().numpy()


def load_training_split(
    dataset: Dataset,
    argument: str | None,
    data_dir: Path | None,
    subset: Subset,
    options: ReadOptions = AS_FOUND,
    *,
    count_values: bool = False,
    opened: OpenedDataset | None = None,
) -> TrainingSplit:
    """Load the training split of a dataset; the dataset may lack other splits.

    All images are decoded once at a small size. Decoding the small images also finds unreadable images and determines
    the value range. If ``count_values`` is true, a histogram of the pixel values is computed, too.
    """
    if opened is None:
        opened = open_training_split(dataset, argument, data_dir, subset, options)
    loaded, reader, split = opened.loaded, opened.reader, opened.train
    order = balanced_order(split, loaded.classes, subset)
    transform = BatchTransform(Preprocessing(input_size=(SMALL_SIDE, SMALL_SIDE), crop_mode="squash"))
    small, record, skipped = decode_readable(
        split,
        order,
        loaded.classes,
        "train",
        transform,
        reader,
        skip=options.skip_unreadable,
        count_values=count_values,
    )
    flat = contrast_warning("train", small.images)
    duplicates = find_duplicates({"train": small}, {"train": Origin("train", split)}, loaded.classes).records
    found = tuple(each.in_words() for each in duplicates)
    return TrainingSplit(
        name=opened.name,
        title=title_of(dataset, argument),
        source=loaded.source,
        classes=loaded.classes,
        small=small,
        record=record,
        reading=(*loaded.reading, *reader.lines()),
        warnings=(*loaded.warnings, *skipped_warning(skipped), *reader.warnings(), *flat, *found),
        duplicates=duplicates,
        _split=split,
        _order=small.indices,
        _reader=reader,
    )
