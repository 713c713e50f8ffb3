"""Rank correlations against published values, regret, and what is not said of few backbones."""

from __future__ import annotations

import pytest

from zoo_harness.ranking.foresight import foresight


def test_weighted_tau_has_the_published_values():
    assert foresight("si", [1, 2, 3, 4, 5], [2, 1, 3, 5, 4]).weighted_tau == pytest.approx(0.5729927007)
    assert foresight("si", [1, 1, 2, 3, 4], [2, 1, 3, 5, 4]).weighted_tau == pytest.approx(0.6381830101)


def test_a_perfect_order_is_above_chance_and_costs_nothing():
    found = foresight("si", range(10), range(10))
    assert (found.weighted_tau, found.kendall) == pytest.approx((1, 1))
    assert (found.regret_1, found.regret_3) == (0, 0)
    assert found.p < 0.01
    assert not found.below_chance_level


def test_regret_is_what_following_the_score_costs():
    found = foresight("si", [5, 4, 3, 2, 1], [0.7, 0.8, 0.6, 0.9, 0.5])
    assert found.regret_1 == pytest.approx(0.2)
    assert found.regret_3 == pytest.approx(0.1)
    assert found.below_chance_level


def test_equal_scores_count_as_the_worst_of_them():
    assert foresight("si", [1, 1, 0], [0.9, 0.5, 0.7]).regret_1 == pytest.approx(0.4)


def test_few_backbones_and_equal_values_have_no_correlation():
    few, equal = foresight("si", [1, 2, 3, 4], [1, 2, 3, 4]), foresight("si", [1] * 6, range(6))
    for found in (few, equal):
        assert found.weighted_tau is found.kendall is found.p is None
        assert found.reason
        assert found.below_chance_level is None
