"""Successive halving: drop a backbone after few images if a paired test shows that it is worse than the best."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from zoo_harness.ranking.moments import Array
from zoo_harness.ranking.paired_tests import PairedDifference, compare_hits, holm

FEWEST_IMAGES, FEWEST_PER_CLASS, GROWTH = 500, 5, 2
CERTAIN = 0.001
"""The significance level of the test that drops a backbone.

The level for tiers is higher. Dropping is stricter, because the test is repeated in every round, and because added
images change the nearest neighbours of earlier images.
"""


class Excluded(NamedTuple):
    """Describe a backbone that is significantly worse than the best: paired counts and Holm-corrected p-value."""

    name: str
    best: str
    difference: PairedDifference
    p: float


def rounds_of(images: int, classes: int) -> tuple[int, ...]:
    """Return the number of images of each round; backbones may be dropped after every round except the last.

    >>> rounds_of(3000, 10)
    (500, 1000, 2000, 3000)
    >>> rounds_of(400, 10)
    (400,)
    """
    first = max(FEWEST_IMAGES, FEWEST_PER_CLASS * classes)
    rounds = []
    while first < images:
        rounds.append(first)
        first *= GROWTH
    return (*rounds, images)


def worse_for_certain(hits: Mapping[str, Array]) -> list[Excluded]:
    """Return the backbones that a paired test shows to be worse than the best backbone.

    ``hits`` maps each backbone's name to a bool array (N,) over the same N images; true means correct.

    >>> import numpy as np
    >>> found = worse_for_certain({"a": np.arange(100) < 90, "b": np.arange(100) < 88, "c": np.arange(100) < 40})
    >>> [each.name for each in found]
    ['c']
    """
    best, *others = sorted(hits, key=lambda name: -int(hits[name].sum()))
    differences = [compare_hits(hits[best], hits[name]) for name in others]
    adjusted = holm([difference.p for difference in differences])
    compared = zip(others, differences, adjusted, strict=True)
    return [Excluded(name, best, difference, p) for name, difference, p in compared if p < CERTAIN]
