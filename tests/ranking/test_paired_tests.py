"""Paired tests against published figures, and tiers."""

from __future__ import annotations

import numpy as np
import pytest

from zoo_harness.ranking.paired_tests import compare_hits, holm, mid_p, tiers


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [(9, 2, 0.03857), (25, 12, 0.03355), (300, 220, 0.00045), (3, 0, 0.125), (0, 0, 1.0), (4, 4, 1 - 0.2734375 / 2)],
)
def test_mid_p_has_the_published_values(first, second, expected):
    assert mid_p(first, second) == pytest.approx(expected, abs=5e-6)
    assert mid_p(second, first) == mid_p(first, second)


def test_a_difference_has_the_standard_error_of_pairs():
    first, second = np.arange(100) < 80, np.arange(100) >= 30
    found = compare_hits(first, second)
    assert (found.first_only, found.second_only) == (30, 20)
    paired = first.astype(float) - second
    assert found.difference == pytest.approx(paired.mean())
    assert found.standard_error == pytest.approx(paired.std() / 10)


def test_holm_never_falls_and_never_exceeds_one():
    assert holm([0.04, 0.001, 0.9, 0.02]) == pytest.approx([0.08, 0.004, 0.9, 0.06])
    assert holm([]) == []


def test_equal_backbones_share_a_tier_and_worse_ones_follow():
    hits = {name: np.arange(1000) % 10 < share for name, share in (("c", 3), ("a", 9), ("b", 9), ("d", 1))}
    assert tiers(hits) == {"a": 1, "b": 1, "c": 2, "d": 3}


def test_the_level_holds_under_the_null_hypothesis():
    """Two classifiers of the same accuracy differ in at most 5 % of the samples, and not much less."""
    random = np.random.default_rng(0)
    draws = [compare_hits(*(random.random((2, 200)) < 0.7)).p < 0.05 for _ in range(1000)]
    assert 0.025 < np.mean(draws) < 0.06
