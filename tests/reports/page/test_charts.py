"""The Pareto front and the correlation are those of their definitions."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest
from scipy.stats import kendalltau

from zoo_harness.reports.page.charts import correlation, front


def test_the_front_has_the_points_that_no_other_beats() -> None:
    draws = np.random.default_rng(0)
    for _turn in range(20):
        points = [(cast("Any", number), *draws.integers(0, 9, 2).tolist()) for number in range(12)]
        found = {(x, y) for _entry, x, y in front(points)}
        expected = {
            (x, y)
            for _entry, x, y in points
            if not any((u <= x and v > y) or (u < x and v >= y) for _other, u, v in points)
        }
        assert found == expected
        assert len(front(points)) == len(expected)


def test_the_correlation_is_that_of_scipy_or_a_reason() -> None:
    draws = np.random.default_rng(1)
    first, second = draws.random(9).tolist(), draws.random(9).tolist()
    found = kendalltau(first, second)
    assert correlation(first, second) == f"Kendall's tau is {found.statistic:.2f} (n = 9, p = {found.pvalue:.3f})."
    assert correlation([1, 2], [1, 2]).startswith("2 rows are too few")
    assert "equal" in correlation([1] * 5, [1, 2, 3, 4, 5])
    assert "p < 0.001" in correlation([*range(20)], [*range(20)])


@pytest.mark.parametrize("points", [[], [(cast("Any", 0), 1.0, 2.0)]])
def test_a_front_of_few_points_is_these(points: list[Any]) -> None:
    assert front(points) == points
