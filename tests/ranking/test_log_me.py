"""LogME against published figures and against its definition."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize

from zoo_harness.ranking.log_me import log_me
from zoo_harness.ranking.moments import Moments


def test_the_example_has_the_published_value(narrow):
    score = log_me(narrow.moments)
    assert score.value == pytest.approx(-0.480007260, abs=1e-8)
    assert score.details == {"iterations": 9, "converged": True}


def test_fewer_samples_than_features_have_the_published_value(wide):
    score = log_me(wide.moments)
    assert score.value == pytest.approx(0.402007937, abs=1e-8)
    assert score.details["converged"]


def test_separable_features_have_the_published_value(narrow):
    score = log_me(Moments.of(np.eye(3)[narrow.labels], narrow.labels))
    assert score.value == pytest.approx(6.397722, abs=1e-6)


def test_it_is_the_log_evidence_of_the_definition(narrow):
    """The determinant and the quadratic form of N(0, I/b + F F'/a), without any decomposition."""
    features = narrow.features / np.sqrt((narrow.features**2).mean())

    def evidence(logarithms, target):
        a, b = np.exp(logarithms)
        cover = np.eye(60) / b + features @ features.T / a
        fit = target @ np.linalg.solve(cover, target)
        return -0.5 * (np.linalg.slogdet(cover)[1] + fit + 60 * np.log(2 * np.pi)) / 60

    best = [
        -minimize(lambda given, target=target: -evidence(given, target), [0.0, 0.0], method="Nelder-Mead").fun
        for target in np.eye(3)[:, narrow.labels]
    ]
    assert log_me(narrow.moments).value == pytest.approx(np.mean(best), abs=1e-6)


@pytest.mark.parametrize("factor", [100.0, 1e-30, 1e200])
def test_the_scale_of_features_does_not_matter(narrow, factor):
    assert log_me(Moments.of(narrow.features * factor, narrow.labels)).value == pytest.approx(-0.480007260, abs=1e-8)


def test_an_offset_matters_as_published(narrow):
    assert log_me(Moments.of(narrow.features + 10, narrow.labels)).value == pytest.approx(-0.546418, abs=1e-6)


def test_a_class_that_is_absent_does_not_count(narrow):
    moved = np.where(narrow.labels == 2, 3, narrow.labels)
    assert log_me(Moments.of(narrow.features, moved)).value == pytest.approx(-0.480007260, abs=1e-8)


def test_directions_without_variance_do_not_blank_the_score() -> None:
    """The classifier's inputs of a network with dead channels: an offset, and variances down to almost nothing."""
    random = np.random.default_rng(0)
    labels = np.arange(400) % 4
    features = random.normal(size=(400, 32)) * np.logspace(0, -7, 32) + 0.4 + labels[:, None] * np.logspace(0, -7, 32)
    whole, without = (log_me(Moments.of(part, labels)) for part in (features, features[:, :20]))
    assert whole.details["converged"]
    assert whole.value == pytest.approx(without.value, abs=0.02)


def test_what_float64_cannot_tell_is_blank(narrow):
    assert log_me(Moments.of(narrow.features + 1e12, narrow.labels)).value is None
    score = log_me(Moments.of(np.ones((60, 8)), narrow.labels))
    assert score.value is None
    assert score.reason
