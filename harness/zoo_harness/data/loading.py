"""The images of a run: loaded, checked, subset by seed, decoded once to uint8.

Images of one size stay as they are and are resized batch by batch. Images of many sizes are resized and cropped once,
when they are decoded, and only normalised after that.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from zoo.dataset import AS_FOUND, Dataset, DatasetRequest, ImageSplit, LoadedDataset, ReadOptions
from zoo.errors import DataError, UsageError
from zoo_harness.data.decoding import ImageData, select_images
from zoo_harness.data.readable import UNREADABLE, check_columns, check_names, decode_readable, warnings_of
from zoo_harness.data.subset import hold_out, smallest_class, subset_indices
from zoo_harness.data.transform import BatchTransform
from zoo_harness.records.run import DatasetRecord, SplitRecord
from zoo_harness.records.subset import Subset
from zoo_harness.util.entry_function import load_function


@dataclass(frozen=True)
class RunData:
    """What a run trains on and what it is evaluated on, with the record of both and what a user should be warned of.

    ``test`` is looked at when all is done, ``None`` where nothing was kept for that.
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

    ``balanced``: the split that must have as many images of each class as the subset asks for; the other gives as many
    as its smallest class has. ``with_test``: where the evaluation split is held out of the training split, load the
    data set's own as well, to be looked at when all is done. ``options``: how the loader reads.

    Raises :class:`~zoo.errors.DataError` for labels outside the classes, an empty class or an unreadable image, and
    :class:`~zoo.errors.UsageError` for a subset that the data cannot give.
    """
    loaded = _load(dataset, argument, data_dir, options)
    called = f"{dataset.name}:{argument}" if argument else dataset.name
    train, evaluation, evaluation_name = _choose_splits(dataset, called, loaded, subset)
    whole = {"train": "training", "evaluation": evaluation_name}
    train_indices, evaluation_indices = (
        subset_indices(part, loaded.classes, subset, whole[name] if name == balanced else None)
        for name, part in (("train", train), ("evaluation", evaluation))
    )
    skip, skipped = options.skip_unreadable, 0

    def decode(split: ImageSplit, indices: NDArray[np.int64], called: str) -> tuple[ImageData, SplitRecord]:
        nonlocal skipped
        data, record, unreadable = decode_readable(split, indices, loaded.classes, called, transform, skip=skip)
        skipped += unreadable
        return data, record

    train_data, train_record = decode(train, train_indices, "train")
    evaluation_data, evaluation_record = decode(evaluation, evaluation_indices, evaluation_name)
    smallest = [
        ("training split", smallest_class(train_record)),
        ("evaluation split", smallest_class(evaluation_record)),
    ]
    test = test_record = None
    warnings = loaded.warnings
    if with_test and subset.val_fraction is not None:
        test_split = loaded.splits.get(dataset.evaluation_split)
        if test_split is None:
            warnings += (_no_test_split(dataset, called, loaded),)
        else:
            indices = subset_indices(test_split, loaded.classes, subset, must_have=None)
            test, test_record = decode(test_split, indices, dataset.evaluation_split)
            smallest.append(("test split", smallest_class(test_record)))
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


def _no_test_split(dataset: Dataset, called: str, loaded: LoadedDataset) -> str:
    return (
        f"dataset {called!r} has no {dataset.evaluation_split!r} split here, only {', '.join(loaded.splits)}: nothing "
        "is kept for the end, and the accuracy is that of the images which the best epoch is chosen by"
    )


def _title(dataset: Dataset, argument: str | None) -> str:
    """The title for a card; of a path only the folder's own name, since cards are published."""
    if argument is None:
        return dataset.title
    return f"{dataset.title} {Path(argument).expanduser().resolve().name if dataset.argument == 'PATH' else argument}"


def _load(dataset: Dataset, argument: str | None, data_dir: Path | None, options: ReadOptions) -> LoadedDataset:
    if data_dir is not None and not data_dir.exists():
        raise UsageError(f"--data-dir {str(data_dir)!r}: no such folder")
    check_columns(dataset, options)
    loader = dataset.loader
    if isinstance(loader, str):
        loader = load_function(loader, f"dataset {dataset.name!r}: loader")
    loaded: LoadedDataset = loader(DatasetRequest(argument, data_dir, options))
    if len(loaded.classes) < 2:
        raise DataError(f"dataset {dataset.call!r} has {len(loaded.classes)} class(es); at least 2 are needed")
    if dataset.classes is not None and tuple(loaded.classes) != dataset.classes:
        raise DataError(f"dataset {dataset.name!r}: the data's classes are not the declared ones: {loaded.classes}")
    if "train" not in loaded.splits:
        raise DataError(f"{loaded.source} has no split 'train', only {', '.join(loaded.splits) or 'none'}")
    for name, split in loaded.splits.items():
        _check_labels(split, loaded.classes, f"split {name!r} of {loaded.source}")
    classes, warnings = check_names(loaded)
    return replace(loaded, classes=classes, warnings=loaded.warnings + warnings)


def _check_labels(split: ImageSplit, classes: tuple[str, ...], where: str) -> None:
    labels = np.asarray(split.labels)
    if labels.ndim != 1 or (labels.dtype.kind not in "iu" and len(labels)):
        raise DataError(f"{where}: expected one whole number per image as label, given {labels.dtype} {labels.shape}")
    if len(split.images) != len(labels):
        raise DataError(f"{where}: {len(split.images)} images but {len(labels)} labels")
    if len(labels) == 0:
        raise DataError(f"{where} is empty")
    outside = np.flatnonzero((labels < 0) | (labels >= len(classes)))
    if len(outside):
        first = int(outside[0])
        raise DataError(
            f"{where}: label {int(labels[first])} of image {first} is outside the {len(classes)} classes "
            f"(0 to {len(classes) - 1}); {len(outside)} such label(s)"
        )


def _choose_splits(
    dataset: Dataset, called: str, loaded: LoadedDataset, subset: Subset
) -> tuple[ImageSplit, ImageSplit, str]:
    train = loaded.splits["train"]
    _refuse_empty_class(train, loaded)
    if subset.val_fraction is not None:
        kept, held_out = hold_out(np.asarray(train.labels), loaded.classes, subset.val_fraction, subset.seed)
        return select_images(train, kept), select_images(train, held_out), "held out of train"
    if dataset.evaluation_split not in loaded.splits:
        raise UsageError(
            f"dataset {called!r} has no {dataset.evaluation_split!r} split here, only "
            f"{', '.join(loaded.splits)}: hold out part of the training split with --val-fraction 0.2"
        )
    return train, loaded.splits[dataset.evaluation_split], dataset.evaluation_split


def _refuse_empty_class(train: ImageSplit, loaded: LoadedDataset) -> None:
    counts = np.bincount(np.asarray(train.labels), minlength=len(loaded.classes))
    empty = [loaded.classes[index] for index in np.flatnonzero(counts == 0)]
    if empty:
        raise DataError(f"{loaded.source}: class {empty[0]!r} has no training image ({len(empty)} such class(es))")
