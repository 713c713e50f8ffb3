"""The tests of all pairs at once give what the tests of one pair give, and what scipy gives."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from zoo_harness.ranking.paired_tests import compare_hits, holm, mid_p
from zoo_harness.runs.paired_accuracies import (
    PairTests,
    RowOfHits,
    holm_values,
    mid_p_values,
    paired_difference,
    paired_t,
)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [(9, 2, 0.03857), (25, 12, 0.03355), (300, 220, 0.00045), (3, 0, 0.125), (0, 0, 1.0), (4, 4, 1 - 35 / 256)],
)
def test_mid_p_is_that_of_the_binomial_test(first: int, second: int, expected: float) -> None:
    [found] = mid_p_values(np.array([float(first)]), np.array([float(second)]))
    if first + second:
        exact = scipy.stats.binomtest(first, first + second, 0.5).pvalue
        point = scipy.stats.binom.pmf(first, first + second, 0.5)
        expected_in_full = exact - point if first != second else exact - point / 2
        assert found == pytest.approx(expected_in_full)
    assert found == pytest.approx(expected, abs=1e-5 if expected < 0.1 else 1e-12)
    assert found == pytest.approx(mid_p(first, second))


def test_all_pairs_are_tested_as_one_pair_is() -> None:
    draws = np.random.default_rng(0)
    hits = [draws.random(20_000) < rate for rate in (0.9, 0.905, 0.91, 0.5)]  # more images than are counted at once
    rows = [RowOfHits(float(each.mean()), 0.0, each) for each in hits]
    tests = PairTests(rows)
    pairs = [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]
    expected = [compare_hits(hits[one], hits[other]) for one, other in pairs]
    assert tests.pairs == 6
    for (one, other), each, corrected in zip(pairs, expected, holm([each.p for each in expected]), strict=True):
        assert (tests.only[one, other], tests.only[other, one]) == (each.first_only, each.second_only)
        assert tests.p[one, other] == tests.p[other, one] == pytest.approx(each.p)
        assert tests.p_holm[one, other] == pytest.approx(corrected)
        assert paired_difference([hits[one]], [hits[other]], same_images=True) == pytest.approx(
            (each.difference, each.standard_error)
        )


def test_holm_is_that_of_statsmodels_definition() -> None:
    draws = np.random.default_rng(1)
    p = draws.random(50) ** 3
    assert holm_values(p) == pytest.approx(holm(p.tolist()))


def test_seeds_on_other_images_are_paired_seed_by_seed() -> None:
    draws = np.random.default_rng(2)
    first, second = ([draws.random(n) < rate for n in (400, 900)] for rate in (0.8, 0.7))
    difference, error = paired_difference(first, second, same_images=False)
    singles = [compare_hits(one, other) for one, other in zip(first, second, strict=True)]
    assert difference == pytest.approx(np.mean([each.difference for each in singles]))
    assert error == pytest.approx(np.hypot(*(each.standard_error for each in singles)) / 2)


def test_the_paired_t_test_is_that_of_scipy() -> None:
    first, second = [0.91, 0.92, 0.905, 0.93], [0.90, 0.915, 0.91, 0.9]
    apart = [one - other for one, other in zip(first, second, strict=True)]
    assert paired_t(apart) == pytest.approx(scipy.stats.ttest_rel(first, second).pvalue)
    assert paired_t([0.0, 0.0, 0.0]) == 1.0
    assert paired_t([0.25, 0.25, 0.25]) == 0.0
