"""The digits dataset: 1,797 scans of handwritten digits with 8 x 8 pixels, which are part of scikit-learn."""

from __future__ import annotations

from typing import Any

import numpy as np
import sklearn
from sklearn.datasets import load_digits

from zoo.dataset import DatasetRequest, LoadedDataset
from zoo.errors import UsageError
from zoo_plugins.datasets import DIGIT_CLASSES
from zoo_plugins.labels import checked_split

_BRIGHTEST = 16


def load(request: DatasetRequest) -> LoadedDataset:
    """Load the scans of both splits as arrays ``(N, 8, 8)``, with grey values scaled from 0..16 to 0..255.

    The dataset has no official split. Therefore every fifth scan of each class (the 5th, 10th, ... in scikit-learn's
    order) is a test image. Both splits contain digits of the same writers.

    >>> load(DatasetRequest()).splits["train"].images.shape
    (1442, 8, 8)
    """
    if request.data_dir is not None:
        raise UsageError(
            f"digits is part of scikit-learn and takes no --data-dir: {request.data_dir}; omit --data-dir",
            code="option-unused",
            option="data_dir",
        )
    scans = load_digits()
    images = np.rint(scans.images * (255 / _BRIGHTEST)).astype(np.uint8)
    is_test = every_fifth_of_each_class(scans.target)
    source = f"scikit-learn {sklearn.__version__}"
    return LoadedDataset(
        classes=DIGIT_CLASSES,
        splits={
            name: checked_split(images[chosen], scans.target[chosen], DIGIT_CLASSES, f"{source}, split {name}")
            for name, chosen in (("train", ~is_test), ("test", is_test))
        },
        source=source,
        revision=sklearn.__version__,
    )


def every_fifth_of_each_class(labels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return a mask that is true for the 5th, 10th, ... occurrence of each label.

    >>> every_fifth_of_each_class(np.array([3, 3, 7, 3, 3, 3])).nonzero()[0]
    array([5])
    """
    mask = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        mask[np.flatnonzero(labels == label)[4::5]] = True
    return mask
