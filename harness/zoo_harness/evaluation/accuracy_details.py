"""Compute two more accuracies on a split: the mean over classes, and the accuracy without images of earlier splits."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from zoo_harness.records.run import AccuracyDetails, Measurement, measure


def accuracy_details(
    labels: Tensor, predictions: Tensor, classes: tuple[str, ...], shared: NDArray[np.bool_]
) -> AccuracyDetails:
    """Return the class-averaged accuracies, and the accuracy on images that are not in an earlier split.

    ``labels`` and ``predictions``: (N,) class indices. ``shared``: (N,), true for images that are also in an earlier
    split.

    >>> import torch
    >>> labels, predictions = torch.tensor([0, 0, 0, 1]), torch.tensor([0, 0, 1, 1])
    >>> found = accuracy_details(labels, predictions, ("cat", "dog", "emu"), np.array([True, False, False, False]))
    >>> [round(part.value, 3) for part in (found.per_class, found.per_class_of_all, found.unshared)], found.absent
    ([0.833, 0.556, 0.667], ('emu',))
    """
    truth = labels.cpu().numpy()
    right = truth == predictions.cpu().numpy()
    images = np.bincount(truth, minlength=len(classes))
    present = images > 0
    recall = np.bincount(truth, right, minlength=len(classes))[present] / images[present]
    variance = float((recall * (1 - recall) / images[present]).sum())
    own = right[~shared]
    return AccuracyDetails(
        per_class=_mean(float(recall.sum()), variance, int(present.sum()), len(truth)),
        per_class_of_all=_mean(float(recall.sum()), variance, len(classes), len(truth)),
        absent=tuple(classes[index] for index in np.flatnonzero(~present)),
        shared=int(shared.sum()),
        unshared=measure(float(own.mean()), len(own)) if len(own) else None,
    )


def _mean(total: float, variance: float, classes: int, images: int) -> Measurement:
    """Divide a sum over classes by the number of classes, and return the mean with its standard error.

    ``variance``: the variance of the sum.
    """
    return Measurement(value=min(total / classes, 1), standard_error=math.sqrt(variance) / classes, n=images)
