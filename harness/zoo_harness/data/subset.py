"""Choose the images of a subset: balanced, shuffled by seed, or held out of the training split."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.dataset import ImageSplit
from zoo.errors import UsageError
from zoo_harness.records.run import SplitRecord
from zoo_harness.records.subset import Subset


def hold_out(
    labels: NDArray[np.integer[Any]], classes: tuple[str, ...], fraction: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Divide image indices into those kept for training and those held out, class by class."""
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


def subset_indices(
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
