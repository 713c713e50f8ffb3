"""Check that the training split of a dataset has images of every class.

A class without training images is an error. A class without test images only causes a warning.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.errors import DataError, near_misses
from zoo_harness.records.run import SplitRecord

_SHOWN = 10


def check_training_classes(
    labels: Mapping[str, NDArray[Any] | Sequence[int]], classes: tuple[str, ...], source: str
) -> None:
    """Raise :class:`~zoo.errors.DataError` with the names of the classes that have no training image.

    ``labels`` maps each split's name to the split's labels, which are indices into ``classes``.
    """
    counts = {split: np.bincount(np.asarray(found), minlength=len(classes)) for split, found in labels.items()}
    untrained = counts["train"] == 0
    for split, found in counts.items():
        if names := [classes[index] for index in np.flatnonzero(untrained & (found > 0))]:
            raise classes_not_in_train(names, [classes[index] for index in np.flatnonzero(~untrained)], split, source)
    if names := [classes[index] for index in np.flatnonzero(untrained)]:
        raise DataError(
            f"{source}: {_listed(names, classes)} have no image; expected training images of every class; add some, "
            "or remove the class",
            code="class-empty",
            names=names,
        )


def classes_not_in_train(names: Sequence[str], trained: Sequence[str], split: str, source: str) -> DataError:
    """Return the error for classes that occur in ``split`` but not in the training split."""
    near = near_misses(names[0], trained, 1)
    return DataError(
        f"{source}: {len(names):,} class(es) of split {split!r} have no training image: {_quoted(names)}; expected "
        f"training images of every class; {f'did you mean {near[0]!r}?' if near else 'add some, or remove the class'}",
        code="class-not-in-train",
        names=list(names),
        split=split,
    )


def absent_classes(split: SplitRecord, classes: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names of the classes that have no image in the chosen subset of a split."""
    return tuple(name for name, count in zip(classes, split.per_class, strict=True) if not count)


def absence_warnings(train: SplitRecord, others: Sequence[SplitRecord], classes: tuple[str, ...]) -> tuple[str, ...]:
    """For each split that lacks images of some classes, return one warning that states the effect on the scores.

    >>> train, test = (
    ...     SplitRecord(split=name, images=3, per_class=counts, pixels=(8, 8), resized=False, fingerprint="")
    ...     for name, counts in [("train", (2, 1)), ("test", (3, 0))]
    ... )
    >>> absence_warnings(train, [test], ("cat", "dog"))
    ("split 'test' has no image of 1 of 2 classes ('dog'); accuracy and SI cover only the classes present, and ...",)
    """
    lines = []
    for split in (train, *others):
        if names := absent_classes(split, classes):
            effect = (
                "the network cannot learn them"
                if split is train
                else "accuracy and SI cover only the classes present, and zoo reports the mean per-class accuracy over "
                "these classes and over all classes"
            )
            lines.append(f"split {split.split!r} has no image of {_listed(names, classes)}; {effect}")
    return tuple(lines)


def _listed(names: Sequence[str], classes: Sequence[str]) -> str:
    return f"{len(names):,} of {len(classes):,} classes ({_quoted(names)})"


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:_SHOWN])) + (", ..." if len(names) > _SHOWN else "")
