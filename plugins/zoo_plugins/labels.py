"""Check that a split has one valid label per image; every built-in loader calls this check."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from zoo.dataset import ImageFiles, ImageSplit
from zoo.errors import DataError


def checked_split(
    images: np.ndarray[Any, Any] | ImageFiles,
    labels: Sequence[int] | np.ndarray[Any, Any],
    classes: Sequence[str],
    where: str,
) -> ImageSplit:
    """Return a split of images and labels, after checking that each label is an index into ``classes``.

    Raises :class:`~zoo.errors.DataError`, which contains ``where`` and the index of the first image with a wrong label.

    >>> checked_split(np.zeros((2, 4, 4), np.uint8), [0, 1], ["cat", "dog"], "example").labels
    array([0, 1])
    """
    try:
        indices = np.asarray(labels).astype(np.int64, casting="safe")
    except (TypeError, ValueError) as error:  # the labels may be text, fractions or nested lists of unequal length
        raise DataError(f"{where}: labels are not one integer for each image ({error})", code="label-type") from error
    if len(images) == 0 or indices.shape != (len(images),):
        raise DataError(
            f"{where}: {len(images)} images and labels of shape {indices.shape}; expected at least one image, and one "
            "label for each",
            code="label-count",
        )
    wrong = np.flatnonzero((indices < 0) | (indices >= len(classes)))
    if len(wrong):
        hidden = "; -1 usually marks hidden test labels" if indices[wrong[0]] == -1 else ""
        raise DataError(
            f"{where}: image {wrong[0]} has label {indices[wrong[0]]}; expected 0 to {len(classes) - 1} "
            f"({len(wrong)} of {len(indices)} labels are outside{hidden})",
            code="label-unknown",
            index=int(wrong[0]),
        )
    return ImageSplit(images=images, labels=indices)
