"""Compute sums over features and labels, from which LogME, the H-scores, GBC and the ridge probe are computed.

One pass over the features computes all sums in float64. The features are first shifted by their median and scaled by a
power of two, so that large offsets and values outside the range of float32 lose no precision.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from zoo.errors import DataError

Array = npt.NDArray[Any]

CHUNK_BYTES = 2**26  # the size in bytes of the blocks of float64 features


class Spectrum(NamedTuple):
    """The singular value decomposition X = U S V' of the features X, without directions that are rounding noise.

    ``variances``, (k,), has the squares of S in ascending order. ``targets``, (k, C), is U'Y for the one-hot labels Y.
    ``directions``, (D, k), is V.
    """

    variances: Array
    targets: Array
    directions: Array


@dataclass(frozen=True, eq=False)
class Moments:
    """Float64 sums of ``z = x * scale - origin`` over N feature vectors x of width D in C classes.

    ``features``, (N, D), are the unscaled features. ``labels``, (N,), are class indices from 0 without gaps. ``sizes``,
    (C,), counts the images of each class. ``sums`` and ``squares``, (C, D), are the sums of z and z^2 in each class.
    ``gram``, (D, D), is the sum of z z', and is empty if N < D. ``fourth`` is the sum of ``|z|^4``. ``weighted``, (D,),
    is the sum of ``|z|^2 z``.
    """

    features: Array
    labels: Array
    origin: Array
    scale: float
    sizes: Array
    sums: Array
    squares: Array
    gram: Array
    fourth: float
    weighted: Array

    @classmethod
    def of(cls, features: Array, labels: Array) -> Moments:
        """Compute the sums in one pass over ``features`` (N, D), with integer ``labels`` (N,) of two or more classes.

        Raises :class:`~zoo.errors.DataError` for values that are not finite and for fewer than two classes.

        >>> Moments.of(np.array([[1.0], [3.0], [5.0]]), np.array([7, 7, 9])).sizes
        array([2, 1])
        """
        names, classes, sizes = np.unique(labels, return_inverse=True, return_counts=True)
        if len(names) < 2:
            message = f"too few classes among the labels: {len(names)}; expected two or more"
            raise DataError(message, code="one-class", given=len(names))
        largest = float(max(abs(float(features.max())), abs(float(features.min()))))
        if not math.isfinite(largest):
            raise DataError("features contain NaN or infinite values; expected finite numbers", code="not-finite")
        scale = 2.0 ** -math.frexp(largest)[1] if largest else 1.0
        origin = np.median(features[:: max(1, len(features) // 256)].astype(np.float64) * scale, axis=0)
        width, wide = features.shape[1], len(features) < features.shape[1]
        sums, squares = np.zeros((2, len(names), width))
        gram, weighted, fourth = np.zeros((0, 0) if wide else (width, width)), np.zeros(width), 0.0
        for rows, of_rows in _chunks(features, classes, origin, scale):
            one_hot, square = np.eye(len(names))[of_rows].T, rows * rows
            norms = square.sum(1)
            sums += one_hot @ rows
            squares += one_hot @ square
            weighted += norms @ rows
            fourth += float(norms @ norms)
            if not wide:
                gram += rows.T @ rows
        return cls(features, classes, origin, scale, sizes, sums, squares, gram, fourth, weighted)

    def chunks(self) -> Iterator[tuple[Array, Array]]:
        """Yield blocks of shifted and scaled features in float64 with the class indices of their rows."""
        return _chunks(self.features, self.labels, self.origin, self.scale)

    @property
    def rows(self) -> Array:
        """All shifted and scaled features, (N, D); use this property only if the array fits in memory."""
        return np.concatenate([rows for rows, _labels in self.chunks()])

    @property
    def count(self) -> int:
        """N, the number of images."""
        return len(self.features)

    @property
    def width(self) -> int:
        """D, the length of a feature vector."""
        return int(self.features.shape[1])

    @property
    def wide(self) -> bool:
        """Whether the number of images N is below the feature width D."""
        return self.count < self.width

    @cached_property
    def mean(self) -> Array:
        """The mean of the shifted and scaled features over all images, (D,)."""
        mean: Array = self.sums.sum(0) / self.count
        return mean

    @cached_property
    def centred(self) -> Spectrum:
        """The singular value decomposition of the features minus their mean."""
        return self._decompose(self.mean)

    @cached_property
    def raw(self) -> Spectrum:
        """The singular value decomposition of the scaled features without any shift."""
        return self._decompose(-self.origin)

    @property
    def constant(self) -> bool:
        """Whether all images have identical features."""
        return len(self.centred.variances) == 0

    def class_means_and_variances(self) -> tuple[Array, Array]:
        """Return the mean and the variance of the shifted and scaled features in each class, both (C, D)."""
        means = self.sums / self.sizes[:, None]
        return means, np.maximum(self.squares / self.sizes[:, None] - means**2, 0)

    def sum_of_fourth_powers(self) -> float:
        """Return the sum of ``|z - mean|^4`` over the images, where z are the shifted and scaled features."""
        shift, total = self.mean, self.sums.sum(0)
        length = float(shift @ shift)
        if self.wide:
            norms = ((self.rows - shift) ** 2).sum(1)
            return float(norms @ norms)
        # The sum is computed from |z - m|^4 = (a - 2b + c)^2 with a = |z|^2, b = z'm and c = |m|^2.
        trace, along = float(np.trace(self.gram)), float(total @ shift)
        quadratic = float(shift @ self.gram @ shift)
        cross = float(shift @ self.weighted)
        return (
            self.fourth + 4 * quadratic + self.count * length**2 - 4 * cross + 2 * length * trace - 4 * length * along
        )

    def _decompose(self, shift: Array) -> Spectrum:
        """Decompose the rows ``z - shift`` by the eigenvectors of X X' if N < D, otherwise of X'X."""
        products = self.sums - self.sizes[:, None] * shift  # (C, D), Y'X
        if self.wide:
            rows = self.rows - shift
            values, left = _largest(rows @ rows.T, self.width)
            targets = np.stack([left[self.labels == each].sum(0) for each in range(len(self.sizes))], axis=1)
            return Spectrum(values, targets, rows.T @ left / np.sqrt(values))
        total = self.sums.sum(0)
        gram = self.gram - np.outer(total, shift) - np.outer(shift, total) + self.count * np.outer(shift, shift)
        values, right = _largest(gram, self.count)
        return Spectrum(values, right.T @ products.T / np.sqrt(values)[:, None], right)


def _chunks(features: Array, labels: Array, origin: Array, scale: float) -> Iterator[tuple[Array, Array]]:
    step = max(1, CHUNK_BYTES // (8 * features.shape[1]))
    for start in range(0, len(features), step):
        yield features[start : start + step].astype(np.float64) * scale - origin, labels[start : start + step]


def _largest(product: Array, other_side: int) -> tuple[Array, Array]:
    """Return a symmetric matrix's eigenvalues that exceed rounding noise, in ascending order, and the eigenvectors."""
    import torch

    # torch computes eigenvalues on all cores; numpy may use fewer cores.
    values, vectors = (part.numpy() for part in torch.linalg.eigh(torch.from_numpy(product)))
    kept = values > max(len(product), other_side) * np.finfo(np.float64).eps * max(values[-1], 0)
    return values[kept], vectors[:, kept]
