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
