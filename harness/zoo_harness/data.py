"""The images of a run: loaded, checked, subset by seed, decoded once to uint8.

Images of one size stay as they are and are resized batch by batch. Images of many sizes are resized and cropped once,
when they are decoded, and only normalised after that.
"""

from __future__ import annotations

import hashlib
import math
import os
import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zoo.dataset import Dataset, DatasetRequest, ImageFiles, ImageSplit, LoadedDataset
from zoo.errors import DataError, UsageError, ZooError
from zoo_harness.choices import Subset
from zoo_harness.network import load_function
from zoo_harness.preprocess import BatchTransform
from zoo_harness.run_record import DatasetRecord, SplitRecord

_IN_MEMORY = 2**30  # bytes of decoded images; more goes to a memory-mapped file


@dataclass(frozen=True)
class ImageData:
    """One split, decoded: uint8 images ``(N, H, W)`` or ``(N, H, W, 3)`` and int64 labels ``(N,)``.

    ``sized`` says whether the images already have the network's input size.
    """

    images: NDArray[np.uint8]
    labels: Tensor
    sized: bool
    transform: BatchTransform

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def raw_pixels(self) -> NDArray[np.uint8]:
        """The images as rows ``(N, H W)`` or ``(N, H W 3)``, without a copy where they lie in one piece."""
        return self.images.reshape(len(self), -1)

    def batch(self, indices: NDArray[np.int64], device: torch.device) -> tuple[Tensor, Tensor]:
        """Network input and labels of these images, on the device."""
        planes, labels = self.planes(indices, device)
        return self.transform.normalise(planes), labels

    def planes(self, indices: NDArray[np.int64], device: torch.device) -> tuple[Tensor, Tensor]:
        """These images at the input size, uint8 (B, 3, h, w), and their labels, on the device."""
        raw = torch.from_numpy(np.ascontiguousarray(self.images[indices])).to(device)
        labels = self.labels[torch.from_numpy(indices)].to(device)
        return raw.permute(0, 3, 1, 2) if self.sized else self.transform.resize_and_crop(raw), labels

    def in_order(self, batch_size: int, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
        """All batches, first to last."""
        for start in range(0, len(self), batch_size):
            yield self.batch(np.arange(start, min(start + batch_size, len(self))), device)


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
) -> RunData:
    """Load a data set, check it, take the subset and decode it.

    ``balanced``: the split that must have as many images of each class as the subset asks for; the other gives as many
    as its smallest class has. ``with_test``: where the evaluation split is held out of the training split, load the
    data set's own as well, to be looked at when all is done.

    Raises :class:`~zoo.errors.DataError` for labels outside the classes, an empty class or an unreadable image, and
    :class:`~zoo.errors.UsageError` for a subset that the data cannot give.
    """
    loaded = _load(dataset, argument, data_dir)
    called = f"{dataset.name}:{argument}" if argument else dataset.name
    train, evaluation, evaluation_name = _choose_splits(dataset, called, loaded, subset)
    whole = {"train": "training", "evaluation": evaluation_name}
    train_indices, evaluation_indices = (
        _subset_indices(part, loaded.classes, subset, whole[name] if name == balanced else None)
        for name, part in (("train", train), ("evaluation", evaluation))
    )
    train_data, train_record = _decode(train, train_indices, loaded.classes, "train", transform)
    evaluation_data, evaluation_record = _decode(
        evaluation, evaluation_indices, loaded.classes, evaluation_name, transform
    )
    smallest = [
        ("training split", smallest_class(train_record)),
        ("evaluation split", smallest_class(evaluation_record)),
    ]
    test = test_record = None
    warnings = loaded.warnings
    if with_test and subset.val_fraction is not None:
        found = _decode_test(dataset, loaded, subset, transform)
        if found is None:
            warnings += (_no_test_split(dataset, called, loaded),)
        else:
            test, test_record = found
            smallest.append(("test split", smallest_class(test_record)))
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
        per_class=subset.per_class,
        limit=subset.limit,
        val_fraction=subset.val_fraction,
        subset=subset.in_words(*smallest),
    )
    return RunData(train_data, evaluation_data, record, warnings, test)


def _decode_test(
    dataset: Dataset, loaded: LoadedDataset, subset: Subset, transform: BatchTransform
) -> tuple[ImageData, SplitRecord] | None:
    split = loaded.splits.get(dataset.evaluation_split)
    if split is None:
        return None
    indices = _subset_indices(split, loaded.classes, subset, must_have=None)
    return _decode(split, indices, loaded.classes, dataset.evaluation_split, transform)


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


def _load(dataset: Dataset, argument: str | None, data_dir: Path | None) -> LoadedDataset:
    if data_dir is not None and not data_dir.is_dir():
        raise UsageError(f"--data-dir {str(data_dir)!r}: no such folder")
    loader = load_function(dataset.loader, f"dataset {dataset.name!r}: loader")
    loaded: LoadedDataset = loader(DatasetRequest(argument, data_dir))
    if len(loaded.classes) < 2:
        raise DataError(f"dataset {dataset.call!r} has {len(loaded.classes)} class(es); at least 2 are needed")
    if dataset.classes is not None and tuple(loaded.classes) != dataset.classes:
        raise DataError(f"dataset {dataset.name!r}: the data's classes are not the declared ones: {loaded.classes}")
    if "train" not in loaded.splits:
        raise DataError(f"{loaded.source} has no split 'train', only {', '.join(loaded.splits) or 'none'}")
    for name, split in loaded.splits.items():
        _check_labels(split, loaded.classes, f"split {name!r} of {loaded.source}")
    return loaded


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
        kept, held_out = _hold_out(np.asarray(train.labels), loaded.classes, subset.val_fraction, subset.seed)
        return _select(train, kept), _select(train, held_out), "held out of train"
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


def _hold_out(
    labels: NDArray[np.integer[Any]], classes: tuple[str, ...], fraction: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    held_out = []
    for name, members in zip(classes, _shuffled_classes(labels, len(classes), seed), strict=True):
        count = round(len(members) * fraction)
        if count in (0, len(members)):
            raise UsageError(
                f"--val-fraction {fraction}: class {name!r} has {len(members)} image(s), which leaves none to one side"
            )
        held_out.append(members[:count])
    chosen = np.sort(np.concatenate(held_out))
    return np.setdiff1d(np.arange(len(labels)), chosen), chosen


def _subset_indices(
    split: ImageSplit, classes: tuple[str, ...], subset: Subset, must_have: str | None
) -> NDArray[np.int64]:
    """Which images to take; ``must_have`` names the split if a class with too few is an error."""
    labels = np.asarray(split.labels)
    if subset.per_class is None and subset.limit is None:
        return np.arange(len(labels))
    members = _shuffled_classes(labels, len(classes), subset.seed)
    if subset.limit is not None:
        return np.sort(_in_turn(members)[: subset.limit])
    smallest = min((len(group), index) for index, group in enumerate(members) if len(group))
    if must_have is not None and smallest[0] < int(subset.per_class or 0):
        raise UsageError(
            f"--per-class {subset.per_class}: class {classes[smallest[1]]!r} has only {smallest[0]} {must_have} "
            f"images; {smallest[0]} is the most that keeps the classes balanced"
        )
    count = min(int(subset.per_class or 0), smallest[0])
    return np.sort(np.concatenate([group[:count] for group in members]))


def smallest_class(split: SplitRecord) -> int:
    """How many images the smallest class has of those that have any: all have so many in a balanced subset."""
    return min(count for count in split.per_class if count)


def _shuffled_classes(labels: NDArray[np.integer[Any]], classes: int, seed: int) -> list[NDArray[np.int64]]:
    generator = np.random.default_rng(seed)
    return [generator.permutation(np.flatnonzero(labels == index)) for index in range(classes)]


def _in_turn(members: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    """One of each class, then the next of each, so that any beginning is as balanced as it can be."""
    rounds = [(turn, index) for group in members for turn, index in enumerate(group)]
    return np.array([index for _turn, index in sorted(rounds, key=lambda item: item[0])], dtype=np.int64)


def _select(split: ImageSplit, indices: NDArray[np.int64]) -> ImageSplit:
    labels = np.asarray(split.labels)[indices]
    if isinstance(split.images, np.ndarray):
        return ImageSplit(split.images[indices], labels)
    return ImageSplit(_Chosen(split.images, indices), labels)


@dataclass(frozen=True)
class _Chosen:
    files: ImageFiles
    indices: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Any:
        return self.files[int(self.indices[index])]

    @property
    def concurrent(self) -> bool:
        return getattr(self.files, "concurrent", False)

    @property
    def paths(self) -> list[Path] | None:
        paths = getattr(self.files, "paths", None)
        return paths and [paths[index] for index in self.indices]


def _decode(
    split: ImageSplit,
    indices: NDArray[np.int64],
    classes: tuple[str, ...],
    name: str,
    transform: BatchTransform,
) -> tuple[ImageData, SplitRecord]:
    chosen = _select(split, indices)
    labels = np.asarray(chosen.labels, dtype=np.int64)
    digest = hashlib.sha256(labels.tobytes())
    if isinstance(chosen.images, np.ndarray):
        images, sized = _check_array(chosen.images, name), False
        digest.update(f"{images.shape}".encode())
        digest.update(np.ascontiguousarray(images).data)
    else:
        images, sized = _decode_files(chosen.images, transform, digest), True
    record = SplitRecord(
        split=name,
        images=len(labels),
        per_class=tuple(int(count) for count in np.bincount(labels, minlength=len(classes))),
        pixels=images.shape[1:],
        resized=sized,
        fingerprint=digest.hexdigest(),
    )
    return ImageData(images, torch.from_numpy(labels), sized, transform), record


def _check_array(images: NDArray[Any], name: str) -> NDArray[np.uint8]:
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[3] != 3):
        raise DataError(
            f"split {name!r}: expected uint8 images (N, H, W) or (N, H, W, 3), given {images.dtype} {images.shape}"
        )
    return images


def _decode_files(files: ImageFiles, transform: BatchTransform, digest: Any) -> NDArray[np.uint8]:
    images = _allocate((len(files), *transform.preprocessing.input_size, 3))

    def decode(index: int) -> NDArray[np.uint8]:
        pixels = np.array(files[index].convert("RGB"))
        with _named(files, index):
            images[index] = transform.resize_and_crop(torch.from_numpy(pixels)[None])[0].permute(1, 2, 0).numpy()
        return pixels

    concurrent = getattr(files, "concurrent", False)
    for pixels in _in_threads(decode, len(files)) if concurrent else map(decode, range(len(files))):
        digest.update(f"{pixels.shape}".encode())
        digest.update(pixels.data)
    return images


@contextmanager
def _named(files: ImageFiles, index: int) -> Iterator[None]:
    """Say of which image an error is."""
    try:
        yield
    except DataError as error:
        paths = getattr(files, "paths", None)
        raise DataError(f"{paths[index] if paths else f'image {index}'}: {error}; remove or cut it") from error


def _in_threads(decode: Callable[[int], NDArray[np.uint8]], images: int) -> Iterator[NDArray[np.uint8]]:
    """What ``decode`` gives for each, in order, a few ahead of who asks; Pillow lets other threads run meanwhile."""
    threads = os.cpu_count() or 1
    coming: deque[Future[NDArray[np.uint8]]] = deque()
    with ThreadPoolExecutor(threads) as executor:
        try:
            for index in range(images):
                coming.append(executor.submit(decode, index))
                if len(coming) > 2 * threads:
                    yield coming.popleft().result()
            while coming:
                yield coming.popleft().result()
        finally:
            for future in coming:  # after an image that cannot be decoded
                future.cancel()


def _allocate(shape: tuple[int, ...]) -> NDArray[np.uint8]:
    size = math.prod(shape)
    if size <= _IN_MEMORY:
        return np.empty(shape, np.uint8)
    try:
        # The file has no name and goes with the process, however that ends.
        with tempfile.TemporaryFile() as file:
            os.posix_fallocate(file.fileno(), 0, size)  # a disk that fills up later would kill the process
            return np.memmap(file, np.uint8, "w+", shape=shape)
    except OSError as error:
        raise ZooError(
            f"the decoded images need {size / 2**30:.1f} GiB in {tempfile.gettempdir()}: {error.strerror or error}; "
            "free some, set TMPDIR to another folder, or use fewer images with --per-class or --limit"
        ) from error
