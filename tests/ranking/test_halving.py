"""Rounds of successive halving, and what they drop."""

from __future__ import annotations

import numpy as np

from zoo_harness.ranking.halving import rounds_of, worse_for_certain


def test_rounds_grow_to_all_images_and_begin_with_enough_of_each_class():
    assert rounds_of(100, 10) == (100,)
    assert rounds_of(4000, 200) == (1000, 2000, 4000)
    assert rounds_of(500, 10) == (500,)


def test_the_best_and_its_equals_are_kept():
    random = np.random.default_rng(0)
    hits = {name: random.random(1000) < share for name, share in (("a", 0.9), ("b", 0.89), ("c", 0.6))}
    assert [each.name for each in worse_for_certain(hits)] == ["c"]
    assert worse_for_certain({"a": hits["a"]}) == []


def test_the_winner_survives_noise():
    """A backbone as good as the best is dropped in fewer than one of a hundred fields of ten."""
    random = np.random.default_rng(1)
    lost = [bool(worse_for_certain({str(index): random.random(500) < 0.8 for index in range(10)})) for _ in range(300)]
    assert np.mean(lost) < 0.01
