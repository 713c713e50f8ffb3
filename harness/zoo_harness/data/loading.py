"""Load the images of a run: checked, reduced to a subset by seed, decoded once to uint8.

Images of one size keep it and are resized batch by batch. Images of several sizes are resized and cropped once, when
they are decoded; their batches are only normalised.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from zoo.backbone import Preprocessing
from zoo.dataset import AS_FOUND, Dataset, DatasetRequest, ImageSplit, LoadedDataset, ReadOptions
from zoo.errors import DataError, UsageError
from zoo_harness.data.decoding import ImageData, select_images
from zoo_harness.data.readable import UNREADABLE, check_columns, check_names, decode_readable, warnings_of
from zoo_harness.data.subset import balanced_order, hold_out, smallest_class, subset_indices
from zoo_harness.data.transform import BatchTransform
from zoo_harness.records.run import DatasetRecord, SplitRecord
from zoo_harness.records.subset import Subset
from zoo_harness.util.entry_function import load_function


@dataclass(frozen=True)
class RunData:
    """The splits of a run with their record, and warnings for the user.

    ``test``: the split that is evaluated once, after training; ``None`` if there is none.
    """

    train: ImageData
    evaluation: ImageData
    record: DatasetRecord
    warnings: tuple[str, ...] = ()
    test: ImageData | None = None


def load_data(
    dataset: Dataset,
    argument: str | None,
    data_dir: Path | None,
    subset: Subset,
    transform: BatchTransform,
    balanced: Literal["train", "evaluation"] = "train",
    *,
    with_test: bool = False,
    options: ReadOptions = AS_FOUND,
) -> RunData:
    """Load a data set, check it, take the subset and decode it.

    ``balanced``: the split that must have ``subset.per_class`` images of each class; the other split may have fewer,
    as many as its smallest class. ``with_test``: if the evaluation split is held out of the training split, load the
    data set's own evaluation split as ``test``. ``options``: how the loader reads.

    Raises :class:`~zoo.errors.DataError` for labels outside the classes, an empty class or an unreadable image, and
    :class:`~zoo.errors.UsageError` for a subset that the data set cannot provide.
    """
    loaded = _load(dataset, argument, data_dir, options)
    name = f"{dataset.name}:{argument}" if argument else dataset.name
    train, evaluation, evaluation_name = _choose_splits(dataset, name, loaded, subset)
    skipped = 0

    def decode(split: ImageSplit, called: str, must_have: str | None = None) -> tuple[ImageData, SplitRecord]:
        nonlocal skipped
        indices = subset_indices(split, loaded.classes, subset, must_have)
        data, record, unreadable = decode_readable(
            split, indices, loaded.classes, called, transform, skip=options.skip_unreadable
        )
        skipped += unreadable
        return data, record

    train_data, train_record = decode(train, "train", "training" if balanced == "train" else None)
    evaluation_data, evaluation_record = decode(
        evaluation, evaluation_name, evaluation_name if balanced == "evaluation" else None
    )
    smallest = [
        ("training split", smallest_class(train_record)),
        ("evaluation split", smallest_class(evaluation_record)),
    ]
    test = test_record = None
    warnings = loaded.warnings
    if with_test and subset.val_fraction is not None:
        if dataset.evaluation_split in loaded.splits:
            test, test_record = decode(loaded.splits[dataset.evaluation_split], dataset.evaluation_split)
            smallest.append(("test split", smallest_class(test_record)))
        else:
            warnings += (
                f"{_missing_split(dataset, name, loaded)}: nothing is kept for the end, and the accuracy is that of "
                "the images which the best epoch is chosen by",
            )
    warnings += warnings_of(loaded, skipped)
    counts = {**loaded.skipped, UNREADABLE: loaded.skipped.get(UNREADABLE, 0) + skipped}
    record = DatasetRecord(
        name=dataset.name,
        title=_title(dataset, argument),
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
        reading=loaded.reading,
        skipped={kind: count for kind, count in counts.items() if count},
        per_class=subset.per_class,
        limit=subset.limit,
        val_fraction=subset.val_fraction,
        subset=subset.in_words(*smallest),
    )
    return RunData(train_data, evaluation_data, record, warnings, test)


def _title(dataset: Dataset, argument: str | None) -> str:
    """Return the title for a card, with the name of a folder but not its path: cards are published."""
    if argument is None:
        return dataset.title
    return f"{dataset.title} {Path(argument).expanduser().resolve().name if dataset.argument == 'PATH' else argument}"


def _load(dataset: Dataset, argument: str | None, data_dir: Path | None, options: ReadOptions) -> LoadedDataset:
    check_columns(dataset, options)
    loader = dataset.loader
    if isinstance(loader, str):
        loader = load_function(loader, f"dataset {dataset.name!r}: loader")
    loaded: LoadedDataset = loader(DatasetRequest(argument, data_dir, options))
    if len(loaded.classes) < 2:
        raise DataError(
            f"dataset {dataset.call!r} has {len(loaded.classes)} class(es); expected at least 2", code="class-count"
        )
    if dataset.classes is not None and tuple(loaded.classes) != dataset.classes:
        raise DataError(
            f"classes of dataset {dataset.name!r} are wrong: {loaded.classes}; expected the declared {dataset.classes}",
            code="class-mismatch",
        )
    if "train" not in loaded.splits:
        found = ", ".join(loaded.splits) or "none"
        raise DataError(f"{loaded.source} has no split 'train', only {found}", code="split-missing", split="train")
    for name, split in loaded.splits.items():
        _check_labels(split, loaded.classes, f"split {name!r} of {loaded.source}")
    counts = np.bincount(np.asarray(loaded.splits["train"].labels), minlength=len(loaded.classes))
    if empty := [loaded.classes[index] for index in np.flatnonzero(counts == 0)]:
        raise DataError(
            f"{loaded.source}: class {empty[0]!r} has no training image ({len(empty)} such class(es))",
            code="class-empty",
        )
    classes, warnings = check_names(loaded)
    return replace(loaded, classes=classes, warnings=loaded.warnings + warnings)


def _check_labels(split: ImageSplit, classes: tuple[str, ...], where: str) -> None:
    labels = np.asarray(split.labels)
    if labels.ndim != 1 or (labels.dtype.kind not in "iu" and len(labels)):
        raise DataError(
            f"labels of {where} are wrong: {labels.dtype} {labels.shape}; expected one whole number per image",
            code="label-type",
        )
    if len(split.images) != len(labels):
        raise DataError(
            f"number of labels of {where} is wrong: {len(labels)}; expected {len(split.images)}, one per image",
            code="label-count",
        )
    if len(labels) == 0:
        raise DataError(f"{where} is empty", code="images-empty")
    outside = np.flatnonzero((labels < 0) | (labels >= len(classes)))
    if len(outside):
        first = int(outside[0])
        raise DataError(
            f"label of image {first} of {where} is wrong: {int(labels[first])}; expected 0 to {len(classes) - 1} "
            f"({len(outside)} such label(s))",
            code="label-unknown",
            index=first,
        )


def _choose_splits(
    dataset: Dataset, name: str, loaded: LoadedDataset, subset: Subset
) -> tuple[ImageSplit, ImageSplit, str]:
    """Return the training split, the evaluation split and the name of the latter."""
    train = loaded.splits["train"]
    if subset.val_fraction is not None:
        kept, held_out = hold_out(np.asarray(train.labels), loaded.classes, subset.val_fraction, subset.seed)
        return select_images(train, kept), select_images(train, held_out), "held out of train"
    if dataset.evaluation_split not in loaded.splits:
        raise UsageError(
            f"{_missing_split(dataset, name, loaded)}: hold out part of the training split with --val-fraction 0.2",
            code="split-missing",
            split=dataset.evaluation_split,
            dataset=name,
        )
    return train, loaded.splits[dataset.evaluation_split], dataset.evaluation_split


def _missing_split(dataset: Dataset, name: str, loaded: LoadedDataset) -> str:
    return f"dataset {name!r} has no {dataset.evaluation_split!r} split here, only {', '.join(loaded.splits)}"


@dataclass(frozen=True)
class TrainingSplit:
    """The training split alone, its images in an order of which every beginning is as balanced as possible.

    ``labels``: (N,) class indices in that order. No other split is decoded.
    """

    name: str
    title: str
    classes: tuple[str, ...]
    labels: NDArray[np.int64]
    fingerprint: str
    reading: tuple[str, ...]
    warnings: tuple[str, ...]
    _split: ImageSplit
    _order: NDArray[np.int64]
    _skip_unreadable: bool

    def decode(self, start: int, stop: int, transform: BatchTransform) -> ImageData:
        """Decode the images from ``start`` to ``stop`` of the order."""
        chosen = self._order[start:stop]
        data, _record, skipped = decode_readable(
            self._split, chosen, self.classes, "train", transform, skip=self._skip_unreadable
        )
        if skipped:
            raise DataError("images became unreadable during the ranking", code="images-unreadable", count=skipped)
        return data

    def small_pixels(self, start: int, stop: int, side: int = 32) -> NDArray[np.float32]:
        """Return images as rows of pixels in [0, 255], (N, side * side * 3), each resized to a square."""
        transform = BatchTransform(Preprocessing(input_size=(side, side), crop_mode="squash"))
        data = self.decode(start, stop, transform)
        planes, _labels = data.planes(np.arange(len(data)), torch.device("cpu"))
        return planes.flatten(1).float().numpy()


def load_training_split(
    dataset: Dataset, argument: str | None, data_dir: Path | None, subset: Subset, options: ReadOptions = AS_FOUND
) -> TrainingSplit:
    """Load the training split of a data set without decoding it; its own evaluation split is not needed.

    Unreadable images are found at the first decoding.
    """
    loaded = _load(dataset, argument, data_dir, options)
    split = loaded.splits["train"]
    order = balanced_order(split, loaded.classes, subset)
    labels = np.asarray(split.labels)[order].astype(np.int64)
    return TrainingSplit(
        name=f"{dataset.name}:{argument}" if argument else dataset.name,
        title=_title(dataset, argument),
        classes=loaded.classes,
        labels=labels,
        fingerprint=hashlib.sha256(order.tobytes() + labels.tobytes()).hexdigest(),
        reading=loaded.reading,
        warnings=loaded.warnings,
        _split=split,
        _order=order,
        _skip_unreadable=options.skip_unreadable,
    )
