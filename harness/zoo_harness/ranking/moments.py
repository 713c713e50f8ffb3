"""Sums over the features of a labelled split, from which LogME, H-scores, GBC and the ridge probe follow.

One pass in float64 collects them. Features are shifted by a typical row and scaled by a power of two first, so that
large offsets and values outside the range of float32 cost no digits.
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

CHUNK_BYTES = 2**26  # of features in float64 at a time


class Spectrum(NamedTuple):
    """The singular value decomposition X = U S V' of N features, without the directions that are rounding noise.

    ``variances``: (k,), the squares of S, ascending. ``targets``: (k, C), U'Y for the one-hot labels Y. ``directions``:
    (D, k), V.
    """

    variances: Array
    targets: Array
    directions: Array


@dataclass(frozen=True, eq=False)
class Moments:
    """Float64 sums of ``z = x * scale - origin`` over N features x of width D with C classes.

    ``features``: (N, D), as given. ``labels``: (N,), class indices from 0 without gaps. ``sizes``: (C,). ``sums`` and
    ``squares``: (C, D), sums of z and z^2 by class. ``gram``: (D, D), the sum of z z'; empty if N < D. ``fourth``: the
    sum of ``|z|^4``. ``weighted``: (D,), the sum of ``|z|^2 z``.
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
        """Collect the sums in one pass; ``features``: (N, D) finite, ``labels``: (N,) integers of two classes or more.

        Raises :class:`~zoo.errors.DataError` for values that are not finite and for fewer than two classes.

        >>> Moments.of(np.array([[1.0], [3.0], [5.0]]), np.array([7, 7, 9])).sizes
        array([2, 1])
        """
        names, classes, sizes = np.unique(labels, return_inverse=True, return_counts=True)
        if len(names) < 2:
            raise DataError(f"labels have {len(names)} class; expected two or more", code="one-class", given=len(names))
        largest = float(max(abs(float(features.max())), abs(float(features.min()))))
        if not math.isfinite(largest):
            raise DataError("features have values that are not finite; expected numbers", code="not-finite")
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
        """Yield the shifted and scaled features in float64, some rows at a time, and their classes."""
        return _chunks(self.features, self.labels, self.origin, self.scale)

    @property
    def rows(self) -> Array:
        """All shifted and scaled features, (N, D); only for features that are few."""
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
        """Whether there are fewer images than features."""
        return self.count < self.width

    @cached_property
    def mean(self) -> Array:
        """The mean of z, (D,)."""
        mean: Array = self.sums.sum(0) / self.count
        return mean

    @cached_property
    def centred(self) -> Spectrum:
        """The decomposition of the features minus their mean."""
        return self._decompose(self.mean)

    @cached_property
    def raw(self) -> Spectrum:
        """The decomposition of the features as they come, apart from the scale."""
        return self._decompose(-self.origin)

    @property
    def constant(self) -> bool:
        """Whether all images have the same features."""
        return len(self.centred.variances) == 0

    def class_means_and_variances(self) -> tuple[Array, Array]:
        """Return the mean and the variance of z by class, both (C, D)."""
        means = self.sums / self.sizes[:, None]
        return means, np.maximum(self.squares / self.sizes[:, None] - means**2, 0)

    def sum_of_fourth_powers(self) -> float:
        """Return the sum of ``|z - mean|^4`` over the images."""
        shift, total = self.mean, self.sums.sum(0)
        length = float(shift @ shift)
        if self.wide:
            norms = ((self.rows - shift) ** 2).sum(1)
            return float(norms @ norms)
        # |z - m|^4 = (a - 2b + c)^2 with a = |z|^2, b = z'm, c = |m|^2.
        trace, along = float(np.trace(self.gram)), float(total @ shift)
        quadratic = float(shift @ self.gram @ shift)
        cross = float(shift @ self.weighted)
        return (
            self.fourth + 4 * quadratic + self.count * length**2 - 4 * cross + 2 * length * trace - 4 * length * along
        )

    def _decompose(self, shift: Array) -> Spectrum:
        """Decompose the rows ``z - shift``, by the smaller of both products of them."""
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
    """Return the eigenvalues above rounding noise, ascending, and their vectors."""
    import torch

    # torch uses all cores for it; numpy's own build need not.
    values, vectors = (part.numpy() for part in torch.linalg.eigh(torch.from_numpy(product)))
    kept = values > max(len(product), other_side) * np.finfo(np.float64).eps * max(values[-1], 0)
    return values[kept], vectors[:, kept]
