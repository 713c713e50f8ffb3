"""Successive halving: drop backbones early, on few images, if the paired test excludes them for certain."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from zoo_harness.ranking.moments import Array
from zoo_harness.ranking.paired_tests import PairedDifference, compare_hits, holm

FEWEST_IMAGES, FEWEST_PER_CLASS, GROWTH = 500, 5, 2
CERTAIN = 0.001
"""Level of the test that drops a backbone. It is below that of tiers, because a field is tested in every round, and an
image's nearest neighbour changes as images join."""


class Excluded(NamedTuple):
    """A backbone that is worse than the best: its name, the best, the counts and the p value after Holm."""

    name: str
    best: str
    difference: PairedDifference
    p: float


def rounds_of(images: int, classes: int) -> tuple[int, ...]:
    """Return the numbers of images after which backbones may be dropped; the last is all of them.

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
    """Return the backbones that the paired test excludes; ``hits``: (N,) bool by name, of the same images.

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
