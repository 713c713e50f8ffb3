"""The Separation Index of order one: the share of samples whose nearest other sample has their label.

    SI = (1/n) sum_i [label of the nearest other sample of i = label of i]

It lies in [0, 1] and equals the accuracy of leave-one-out 1-nearest-neighbour classification. It is 1 once the
classes separate, however far apart they are. Source: M. Kalhor, A. Kalhor and Rahmani 2020, arXiv 2012.13717.

The value is exact; :mod:`zoo_harness.neighbours` finds the nearest samples and says why they are the nearest.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from zoo.errors import UsageError
from zoo_harness.feature_input import Array, checked_features, checked_labels
from zoo_harness.neighbours import MEMORY_BUDGET, Neighbours, nearest_neighbours


@dataclass(frozen=True, eq=False)
class SeparationIndex:
    """How well classes are separated at order one, and how far ties could change that.

    ``value``: in [0, 1]. ``standard_error``: binomial, sqrt(value (1 - value) / n). ``n``: samples. ``ties``:
    samples whose nearest distance is attained by more than one other sample. ``tied_disagreements``: those of
    them that would count differently if another of the tied samples won. ``nearest``: (N,) int64, the neighbour
    that counted.
    """

    value: float
    standard_error: float
    n: int
    ties: int
    tied_disagreements: int
    nearest: Tensor


def separation_index(
    features: Array | Tensor, labels: Array | Tensor, *, memory_budget: int = MEMORY_BUDGET
) -> SeparationIndex:
    """Return the share of samples whose nearest other sample, in Euclidean distance, has the same label.

    ``features``: (N, D), real and finite, two rows and one column or more; any strides, any device. ``labels``:
    (N,) integers from 0, gaps allowed. A sample whose class has no other sample counts as a miss. Of several
    equally near samples the one with the lowest index counts.

    ``memory_budget``: bytes, beyond the input, to work in. About 300 bytes a sample and a few rows are needed
    however little is allowed, and features other than 16 to 64 bit floats and 8 or 16 bit integers are first
    copied to float64.

    Raises :class:`UsageError` for shapes and types that cannot be meant, :class:`DataError` for values.

    >>> import numpy as np
    >>> features = np.array([[0.0], [1.0], [4.0], [6.0], [6.5]])
    >>> separation_index(features, np.array([0, 0, 0, 1, 1])).value
    0.8
    """
    if isinstance(memory_budget, bool) or not isinstance(memory_budget, int) or memory_budget < 1:
        raise UsageError(f"memory_budget {memory_budget!r} is not a positive number of bytes")
    points = checked_features(features)
    classes = checked_labels(labels, points)
    return _score(nearest_neighbours(points, classes, memory_budget=memory_budget), classes)


def _score(neighbours: Neighbours, labels: Tensor) -> SeparationIndex:
    n = len(labels)
    nearest, tied, alike = neighbours.indices[:, 0], neighbours.last_tied, neighbours.last_tied_alike
    value = int((labels[nearest] == labels).sum()) / n
    undecided = (alike > 0) & (alike < tied)
    return SeparationIndex(
        value=value,
        standard_error=math.sqrt(value * (1 - value) / n),
        n=n,
        ties=int((tied > 1).sum()),
        tied_disagreements=int(undecided.sum()),
        nearest=nearest,
    )
