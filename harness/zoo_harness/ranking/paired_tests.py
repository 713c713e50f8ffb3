"""Compare classifiers on the same images by paired tests with corrected p-values, and group classifiers in tiers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from zoo_harness.ranking.moments import Array

SIGNIFICANT = 0.05


class PairedDifference(NamedTuple):
    """The difference between two classifiers on the same images.

    ``first_only`` and ``second_only`` count the images that only the first classifier or only the second classifier
    classifies correctly. ``difference`` is the accuracy of the first classifier minus the accuracy of the second.
    ``standard_error`` is the standard error of this difference. ``p`` is the mid-p-value of McNemar's test.
    """

    first_only: int
    second_only: int
    difference: float
    standard_error: float
    p: float


def mid_p(first_only: int, second_only: int) -> float:
    """Return the two-sided mid-p-value of McNemar's test, in [0, 1].

    The exact binomial test counts the probability of the observed split in full; mid-p counts half of it. Source:
    Fagerland, Lydersen and Laake, BMC Medical Research Methodology 13:91 (2013).

    >>> round(mid_p(9, 2), 5), mid_p(3, 0), mid_p(0, 0)
    (0.03857, 0.125, 1.0)
    """
    from scipy.stats import binom

    pairs, less = first_only + second_only, min(first_only, second_only)
    if pairs == 0:
        return 1.0
    point = float(binom.pmf(less, pairs, 0.5))
    if first_only == second_only:
        return 1 - point / 2
    return 2 * float(binom.cdf(less, pairs, 0.5)) - point


def compare_hits(first: Array, second: Array) -> PairedDifference:
    """Compare two classifiers on the same images; each array (N,) is true for correctly classified images.

    >>> import numpy as np
    >>> compare_hits(np.array([True, True, True, False]), np.array([True, False, False, False])).difference
    0.5
    """
    one, other, n = int((first & ~second).sum()), int((second & ~first).sum()), len(first)
    variance = (one + other - (one - other) ** 2 / n) / n**2
    return PairedDifference(one, other, (one - other) / n, math.sqrt(max(variance, 0.0)), mid_p(one, other))


def holm(values: Sequence[float]) -> list[float]:
    """Return p-values corrected for multiple tests by Holm's method (1979), in the order of the input.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    adjusted, largest = [0.0] * len(values), 0.0
    for rank, index in enumerate(sorted(range(len(values)), key=values.__getitem__)):
        largest = max(largest, min(1.0, (len(values) - rank) * values[index]))
        adjusted[index] = largest
    return adjusted


class Behind(NamedTuple):
    """How much a classifier scores below the best one on the same images.

    ``own_error`` is the standard error of the classifier's own accuracy. ``difference`` is the accuracy of the best
    classifier minus the classifier's own accuracy, and ``standard_error`` the standard error of this difference. ``p``
    is the mid-p-value of McNemar's test, and ``adjusted_p`` the same value after Holm's correction. Both are ``None``
    for the best classifier. ``adjusted_p`` is also ``None`` for a classifier that saw fewer images than the best.
    """

    own_error: float
    difference: float
    standard_error: float
    p: float | None = None
    adjusted_p: float | None = None

    @property
    def in_words(self) -> str:
        """The difference and its standard error as text, or a dash for the best classifier."""
        if self.difference == 0 == self.standard_error:
            return "-"
        return f"{self.difference:.4f} ± {self.standard_error:.4f}"


def behind_best(hits: Mapping[str, Array]) -> dict[str, Behind]:
    """Compare each classifier with the first one of ``hits``, which must be the best, on the images that both saw.

    Holm's correction covers the classifiers that saw as many images as the best. A classifier is in tier 1 if its
    corrected p-value is at least 0.05.

    >>> import numpy as np
    >>> found = behind_best({"a": np.arange(100) < 90, "b": np.arange(100) < 88, "c": np.arange(100) < 40})
    >>> found["b"].adjusted_p, round(found["b"].difference, 2)
    (0.25, 0.02)
    """
    best, *others = hits
    compared = {name: compare_hits(hits[best][: len(hits[name])], hits[name]) for name in hits}
    tested = [name for name in others if len(hits[name]) == len(hits[best])]
    adjusted = dict(zip(tested, holm([compared[name].p for name in tested]), strict=True))
    found = {}
    for name, each in hits.items():
        share, pair = float(each.mean()), compared[name]
        error, p = math.sqrt(share * (1 - share) / len(each)), None if name == best else pair.p
        found[name] = Behind(error, pair.difference, pair.standard_error, p, adjusted.get(name))
    return found


def tiers(hits: Mapping[str, Array], level: float = SIGNIFICANT) -> dict[str, int]:
    """Group classifiers into tiers, where 1 is the best tier, and return the tier of each name.

    The first tier has the most accurate classifier, and every classifier that McNemar's test does not find
    significantly worse. Holm's method corrects for the number of comparisons with the best. The classifiers outside the
    first tier form the next tiers in the same way. ``hits`` maps each name to a bool array (N,) over the same images.

    >>> import numpy as np
    >>> found = {"a": np.arange(100) < 90, "b": np.arange(100) < 88, "c": np.arange(100) < 40}
    >>> tiers(found)
    {'a': 1, 'b': 1, 'c': 2}
    """
    remaining = sorted(hits, key=lambda name: -int(hits[name].sum()))
    found: dict[str, int] = {}
    tier = 0
    while remaining:
        tier += 1
        best, *others = remaining
        p = holm([compare_hits(hits[best], hits[name]).p for name in others])
        equal = {best, *(name for name, each in zip(others, p, strict=True) if each >= level)}
        found |= dict.fromkeys((name for name in remaining if name in equal), tier)
        remaining = [name for name in remaining if name not in equal]
    return found
