"""Test accuracy differences between table rows of runs: paired by image, and paired by seed.

All pairs of rows are tested together in arrays, because a thousand rows have half a million pairs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Hits = NDArray[np.bool_]
_AT_ONCE = 8192  # images per matrix product


@dataclass(frozen=True)
class RowOfHits:
    """The accuracy and standard error of a table row's tested run, and which of N images this run classifies correctly.

    ``hits`` is (N,) bool, or ``None`` if the run has no predictions.
    """

    accuracy: float
    standard_error: float
    hits: Hits | None


def mid_p_values(first_only: Array, second_only: Array) -> Array:
    """Return the mid-p-values of McNemar's test for arrays of discordant counts.

    :func:`zoo_harness.ranking.paired_tests.mid_p` computes the same value for a single pair of counts.

    >>> mid_p_values(np.array([9.0, 25, 300, 3, 0]), np.array([2.0, 12, 220, 0, 0])).round(5).tolist()
    [0.03857, 0.03355, 0.00045, 0.125, 1.0]
    """
    from scipy.special import bdtr  # scipy.stats takes seconds to import

    counts = np.stack([first_only + second_only, np.minimum(first_only, second_only)]).astype(np.int64)
    # Many pairs have equal counts. Two counts are packed into one integer, because np.unique is faster on integers.
    coded, place = np.unique(counts[0] * 2**32 + counts[1], return_inverse=True)
    pairs, less = coded >> 32, coded & (2**32 - 1)
    below = np.where(less > 0, bdtr(np.maximum(less - 1, 0), pairs, 0.5), 0.0)
    at_most = np.where(pairs > 0, bdtr(less, np.maximum(pairs, 1), 0.5), 1.0)
    # The mid-p-value is twice the lower tail P(X <= k) minus P(X = k), which equals P(X < k) + P(X <= k).
    p = np.where(2 * less == pairs, 1 - (at_most - below) / 2, at_most + below)
    values: Array = np.where(pairs == 0, 1.0, np.minimum(p, 1.0))[place]
    return values


def holm_values(p: Array) -> Array:
    """Return p-values corrected for multiple tests by Holm's method (1979), in the order of the given p-values.

    >>> holm_values(np.array([0.01, 0.04, 0.03])).round(6).tolist()
    [0.03, 0.06, 0.06]
    """
    order = np.argsort(p, kind="stable")
    corrected = np.empty(len(p))
    corrected[order] = np.maximum.accumulate(np.minimum(1.0, p[order] * np.arange(len(p), 0, -1)))
    return corrected


class PairTests:
    """Tests every pair of R rows that were scored on the same images.

    ``p`` and ``p_holm``, (R, R), hold the p-values before and after Holm's correction. ``only[i, j]`` counts the images
    that row i classifies correctly and row j does not. If row i or row j has no predictions, ``only[i, j]`` is NaN, and
    the pair is tested by the z-test of independent samples. ``pairs`` is the number of tested pairs.
    """

    def __init__(self, rows: Sequence[RowOfHits]) -> None:
        self.rows, count = rows, len(rows)
        self.only = _only_one_right([row.hits for row in rows])
        self.p, self.p_holm = np.ones((count, count)), np.ones((count, count))
        first, second = np.triu_indices(count, 1)
        paired = ~np.isnan(self.only[first, second])
        p = np.empty(len(first))
        one, other = first[paired], second[paired]
        p[paired] = mid_p_values(self.only[one, other], self.only[other, one])
        p[~paired] = self._z_test(first[~paired], second[~paired])
        self.pairs = len(first)
        for table, values in ((self.p, p), (self.p_holm, holm_values(p))):
            table[first, second] = table[second, first] = values

    def is_paired(self, row: int, other: int) -> bool:
        """Whether the two rows are tested image by image, because both have predictions."""
        return not math.isnan(self.only[row, other])

    def _z_test(self, first: NDArray[np.intp], second: NDArray[np.intp]) -> Array:
        from scipy.special import erfc

        accuracy, error = np.array([(row.accuracy, row.standard_error) for row in self.rows]).T
        apart, width = np.abs(accuracy[first] - accuracy[second]), np.hypot(error[first], error[second])
        with np.errstate(divide="ignore", invalid="ignore"):
            z = np.where(apart == 0, 0.0, apart / width)
        p: Array = erfc(z / math.sqrt(2))
        return p


def paired_difference(first: Sequence[Hits], second: Sequence[Hits], *, same_images: bool) -> tuple[float, float]:
    """Return the mean accuracy of ``first`` minus the mean accuracy of ``second``, and its standard error over images.

    ``same_images`` says that all runs were scored on the same images. If it is false, the i-th run of ``first`` and the
    i-th run of ``second`` must have the same images.

    >>> right, half = np.array([True, True, True, True]), np.array([True, True, False, False])
    >>> paired_difference([right], [half], same_images=True)
    (0.5, 0.25)
    """
    if same_images:
        apart = [np.mean(first, axis=0) - np.mean(second, axis=0)]
    else:
        apart = [one.astype(np.float64) - other for one, other in zip(first, second, strict=True)]
    variance = sum(float(each.var()) / len(each) for each in apart) / len(apart) ** 2
    return float(np.mean([each.mean() for each in apart])), math.sqrt(variance)


def _only_one_right(hits: Sequence[Hits | None]) -> Array:
    known = [place for place, each in enumerate(hits) if each is not None]
    only = np.full((len(hits), len(hits)), np.nan)
    if not known:
        return only
    rows = np.stack([each for each in hits if each is not None])
    both = np.zeros((len(known), len(known)))
    for start in range(0, rows.shape[1], _AT_ONCE):  # float32 represents counts up to 2**24 exactly
        part = rows[:, start : start + _AT_ONCE].astype(np.float32)
        both += part @ part.T
    only[np.ix_(known, known)] = np.diag(both)[:, None] - both
    return only


def paired_t(differences: Sequence[float]) -> float:
    """Return the two-sided p-value of the paired t-test, given the differences of at least two pairs.

    >>> round(paired_t([0.01, 0.02, 0.03]), 4)
    0.0742
    """
    from scipy.special import stdtr

    values = np.array(differences)
    mean, error = float(values.mean()), float(values.std(ddof=1)) / math.sqrt(len(values))
    if error <= 1e-12 * abs(mean):  # all pairs have the same difference, up to rounding
        return 1.0 if mean == 0 else 0.0
    return 2 * float(stdtr(len(values) - 1, -abs(mean) / error))
