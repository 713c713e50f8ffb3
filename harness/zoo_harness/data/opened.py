"""Open a dataset without torch and without decoding images: call the loader, choose the splits, check the labels.

Importing torch takes seconds. Errors in a folder, a table or a subset are therefore reported before torch is imported.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from zoo.class_names import check_class_names, look_alikes, normalised
from zoo.dataset import AS_FOUND, Dataset, DatasetRequest, ImageSplit, LoadedDataset, ReadOptions
from zoo.errors import DataError, UsageError
from zoo.image_reader import ImageReader
from zoo.plugin_guard import guarded_call
from zoo.value_range import ValueRange
from zoo_harness.data.class_coverage import check_training_classes
from zoo_harness.data.duplicates import Origin
from zoo_harness.data.subset import balanced_order, hold_out, select_images, subset_indices
from zoo_harness.records.subset import Subset
from zoo_harness.util.entry_function import load_function

HELD_OUT = "held out of train"
"""The name of the evaluation split that ``--val-fraction`` creates from training images."""


@dataclass(frozen=True)
class OpenedDataset:
    """Hold a dataset whose splits are loaded but whose images are not decoded yet.

    ``train`` and ``evaluation``: the two splits of the run before the subset is chosen. ``evaluation_name``: the name
    of the evaluation split. ``origins``: for each split of the run, the dataset's split from which the images were
    taken. ``images``: the number of training images and of evaluation images in the subset. ``value_range``: the range
    that the user requested for images of more than 8 bits per channel.
    """

    name: str
    loaded: LoadedDataset
    reader: ImageReader
    train: ImageSplit
    evaluation: ImageSplit
    evaluation_name: str
    origins: Mapping[str, Origin]
    images: tuple[int, int]
    value_range: ValueRange | None = None

    def class_sizes(self, subset: Subset) -> list[int]:
        """Return the number of training images of each class in a balanced subset."""
        chosen = np.asarray(self.train.labels)[balanced_order(self.train, self.loaded.classes, subset)]
        return [int(count) for count in np.bincount(chosen, minlength=len(self.loaded.classes))]


def open_dataset(
    dataset: Dataset,
    argument: str | None,
    data_dir: Path | None,
    subset: Subset,
    balanced: Literal["train", "evaluation"] = "train",
    *,
    train_only: bool = False,
    options: ReadOptions = AS_FOUND,
    value_range: ValueRange | None = None,
) -> OpenedDataset:
    """Load a dataset and check its labels, its splits and the subset, without decoding images.

    :func:`zoo_harness.data.loading.load_data` describes the arguments. The states of the global random number
    generators of Python, numpy and torch do not change. Raises :class:`~zoo.errors.DataError` for labels outside the
    classes and for an empty class. Raises :class:`~zoo.errors.UsageError` for a subset larger than the dataset allows.
    """
    reader = ImageReader(value_range)
    loaded = load_checked(dataset, DatasetRequest(argument, data_dir, options, reader))
    name = f"{dataset.name}:{argument}" if argument else dataset.name
    train, evaluation, evaluation_name, origins = _choose_splits(dataset, name, loaded, subset, train_only=train_only)
    needed = [train if balanced == "train" else None, evaluation if balanced == "evaluation" else None]
    counts = [
        len(subset_indices(split, loaded.classes, part, called if split is must_have else None))
        for split, part, called, must_have in zip(
            (train, evaluation),
            (subset, subset.for_evaluation()),
            ("training", evaluation_name),
            needed,
            strict=True,
        )
    ]
    return OpenedDataset(
        name, loaded, reader, train, evaluation, evaluation_name, origins, (counts[0], counts[1]), value_range
    )


def open_training_split(
    dataset: Dataset, argument: str | None, data_dir: Path | None, subset: Subset, options: ReadOptions = AS_FOUND
) -> OpenedDataset:
    """Open only the training split of a dataset; the dataset may lack other splits."""
    reader = ImageReader(None)
    loaded = load_checked(dataset, DatasetRequest(argument, data_dir, options, reader))
    name, train = f"{dataset.name}:{argument}" if argument else dataset.name, loaded.splits["train"]
    count = len(balanced_order(train, loaded.classes, subset))
    return OpenedDataset(name, loaded, reader, train, train, "train", {}, (count, count))


def title_of(dataset: Dataset, argument: str | None) -> str:
    """Return the dataset title for a public model card; a local folder appears by name, without its path."""
    if argument is None:
        return dataset.title
    if not dataset.is_path(argument):
        return f"{dataset.title} {argument}"
    title = dataset.title if dataset.argument == "PATH" else "Folder"  # a local copy of a Hub dataset
    return f"{title} {Path(argument).expanduser().resolve().name}"


def load_checked(dataset: Dataset, request: DatasetRequest) -> LoadedDataset:
    """Load a dataset with its loader function, and check the class names, splits and labels."""
    _check_columns(dataset, request.options)
    loader = dataset.loader
    if isinstance(loader, str):
        loader = load_function(loader, f"dataset {dataset.name!r}: loader")
    with guarded_call(f"loader of dataset {dataset.name!r}"), _generators_restored():
        loaded: LoadedDataset = loader(request)
    if len(loaded.classes) < 2:
        raise DataError(
            f"dataset {dataset.call!r} has {len(loaded.classes)} class(es); expected at least 2", code="class-count"
        )
    if dataset.classes is not None and [*map(normalised, loaded.classes)] != [*map(normalised, dataset.classes)]:
        raise DataError(
            f"classes of dataset {dataset.name!r} are wrong: {loaded.classes}; expected the declared {dataset.classes}",
            code="class-mismatch",
        )
    if "train" not in loaded.splits:
        found = ", ".join(loaded.splits) or "none"
        raise DataError(f"{loaded.source} has no split 'train', only {found}", code="split-missing", split="train")
    for name, split in loaded.splits.items():
        _check_labels(split, loaded.classes, f"split {name!r} of {loaded.source}")
    check_training_classes({name: split.labels for name, split in loaded.splits.items()}, loaded.classes, loaded.source)
    classes, warnings = _check_names(loaded)
    return replace(loaded, classes=classes, warnings=loaded.warnings + warnings)


@contextmanager
def _generators_restored() -> Iterator[None]:
    """Restore the global random number generators after a loader ran; include torch's only if torch was imported."""
    torch = sys.modules.get("torch")
    python, legacy = random.getstate(), np.random.get_state()
    try:
        with nullcontext() if torch is None else torch.random.fork_rng(devices=[]):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy)


def missing_split(dataset: Dataset, name: str, loaded: LoadedDataset) -> str:
    """Return the beginning of an error message: which evaluation split is missing, and which splits exist."""
    return f"dataset {name!r} has no {dataset.evaluation_split!r} split here, only {', '.join(loaded.splits)}"


def _choose_splits(
    dataset: Dataset, name: str, loaded: LoadedDataset, subset: Subset, *, train_only: bool
) -> tuple[ImageSplit, ImageSplit, str, dict[str, Origin]]:
    """Return the training split, the evaluation split, the evaluation split's name, and the origin of all images."""
    train = loaded.splits["train"]
    origins = {split: Origin(split, images) for split, images in loaded.splits.items()}
    if subset.val_fraction is not None:
        kept, held_out = hold_out(np.asarray(train.labels), loaded.classes, subset.val_fraction, subset.seed)
        origins |= {"train": Origin("train", train, kept), HELD_OUT: Origin("train", train, held_out)}
        return select_images(train, kept), select_images(train, held_out), HELD_OUT, origins
    if dataset.evaluation_split not in loaded.splits:
        if train_only:
            return train, train, "train", origins
        raise UsageError(
            f"{missing_split(dataset, name, loaded)}: hold out part of the training split with --val-fraction 0.2",
            code="split-missing",
            split=dataset.evaluation_split,
            dataset=name,
        )
    return train, loaded.splits[dataset.evaluation_split], dataset.evaluation_split, origins


def _check_labels(split: ImageSplit, classes: tuple[str, ...], where: str) -> None:
    labels = np.asarray(split.labels)
    if labels.ndim != 1 or (labels.dtype.kind not in "iu" and len(labels)):
        raise DataError(
            f"labels of {where} are wrong: {labels.dtype} {labels.shape}; expected one integer per image",
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


def _check_columns(dataset: Dataset, options: ReadOptions) -> None:
    """Raise :class:`~zoo.errors.UsageError` for a reading option that the dataset does not support."""
    for name in options.given:
        if name != "skip_unreadable" and name not in dataset.options:  # every dataset supports this option
            takes = ", ".join(f"--{each.replace('_', '-')}" for each in dataset.options)
            raise UsageError(
                f"--{name.replace('_', '-')} does not apply to dataset {dataset.name!r}, which "
                f"{f'takes {takes}' if takes else 'has no column options'}; omit the option",
                code="option-unused",
                option=name,
            )


def _check_names(loaded: LoadedDataset) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the class names in Unicode form NFC, and warnings about names that differ only in case or spaces."""
    classes = check_class_names(loaded.classes, loaded.source)
    return classes, tuple(
        f"class names {', '.join(map(repr, group))} differ only in case or spaces; they count as {len(group)} classes"
        for group in look_alikes(classes)
    )
