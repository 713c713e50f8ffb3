"""Choose a subset of a data split at random: balanced over the classes, or held out for evaluation."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain, zip_longest
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.dataset import ImageFiles, ImageSplit
from zoo.errors import UsageError
from zoo_harness.records.run import SplitRecord
from zoo_harness.records.subset import Subset


def select_images(split: ImageSplit, indices: NDArray[np.int64]) -> ImageSplit:
    """Select images and labels of a split by index, without decoding the images."""
    labels = np.asarray(split.labels)[indices]
    if isinstance(split.images, np.ndarray):
        return ImageSplit(split.images[indices], labels)
    return ImageSplit(_Selected(split.images, indices), labels)


@dataclass(frozen=True)
class _Selected:
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


def hold_out(
    labels: NDArray[np.integer[Any]], classes: tuple[str, ...], fraction: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Hold out a fraction of the images of each class; return the training indices and the held-out indices."""
    held_out = []
    for name, members in zip(classes, _shuffled_classes(labels, len(classes), seed), strict=True):
        count = round(len(members) * fraction)
        if count in (0, len(members)):
            raise UsageError(
                f"--val-fraction {fraction} cannot divide class {name!r} into two parts: {len(members)} image(s)",
                code="val-fraction-empty-class",
                name=name,
            )
        held_out.append(members[:count])
    chosen = np.sort(np.concatenate(held_out))
    return np.setdiff1d(np.arange(len(labels)), chosen), chosen


def subset_indices(
    split: ImageSplit, classes: tuple[str, ...], subset: Subset, must_have: str | None
) -> NDArray[np.int64]:
    """Return the image indices of a subset; if ``must_have`` names a split, too small a class raises an error."""
    labels = np.asarray(split.labels)
    if subset.per_class is None and subset.limit is None and subset.fraction is None:
        return np.arange(len(labels))
    members = _shuffled_classes(labels, len(classes), subset.seed)
    if subset.fraction is not None:
        return np.sort(np.concatenate(_fractions(members, subset.fraction)))
    if subset.per_class is None:
        # Take one image of each class in turn, so that a limit of any size keeps the classes balanced.
        return np.sort(np.array(_in_turn(members)[: subset.limit], dtype=np.int64))
    name, smallest = min(
        ((name, len(group)) for name, group in zip(classes, members, strict=True) if len(group)), key=itemgetter(1)
    )
    if must_have is not None and smallest < subset.per_class:
        raise UsageError(
            f"--per-class {subset.per_class}: class {name!r} has only {smallest} {must_have} images; {smallest} is the "
            "largest value that keeps the classes balanced",
            code="per-class-too-large",
            name=name,
            largest=smallest,
        )
    return np.sort(np.concatenate([group[: min(subset.per_class, smallest)] for group in members]))


def balanced_order(split: ImageSplit, classes: tuple[str, ...], subset: Subset) -> NDArray[np.int64]:
    """Return a subset's image indices by taking one image of each class in turn; any first N indices are balanced."""
    members = _shuffled_classes(np.asarray(split.labels), len(classes), subset.seed)
    if subset.per_class is not None:
        subset_indices(split, classes, subset, "training")  # raises the error for a class that is too small
        members = [group[: subset.per_class] for group in members]
    if subset.fraction is not None:
        members = _fractions(members, subset.fraction)
    return np.array(_in_turn(members)[: subset.limit], dtype=np.int64)


def _fractions(members: list[NDArray[np.int64]], fraction: float) -> list[NDArray[np.int64]]:
    """Keep a fraction of the images of each class, but at least one image per class."""
    return [group[: max(1, round(len(group) * fraction))] for group in members]


def _in_turn(members: list[NDArray[np.int64]]) -> list[int]:
    """Merge the index lists of the classes by taking one index from each list in turn."""
    return [index for index in chain.from_iterable(zip_longest(*members)) if index is not None]


def smallest_class(split: SplitRecord) -> int:
    """Return the number of images in the smallest class, ignoring classes without images."""
    return min(count for count in split.per_class if count)


def _shuffled_classes(labels: NDArray[np.integer[Any]], classes: int, seed: int) -> list[NDArray[np.int64]]:
    generator = np.random.default_rng(seed)
    return [generator.permutation(np.flatnonzero(labels == index)) for index in range(classes)]
