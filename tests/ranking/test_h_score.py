"""H-scores against published figures and against their definitions."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.covariance import LedoitWolf

from zoo_harness.ranking.h_score import h_score, shrunk_h_score
from zoo_harness.ranking.moments import Moments


def test_the_example_has_the_published_values(narrow, wide):
    assert h_score(narrow.moments).value == pytest.approx(1.445154762, abs=1e-8)
    shrunk = shrunk_h_score(narrow.moments)
    assert shrunk.value == pytest.approx(1.277279811, abs=1e-8)
    assert shrunk.details["alpha"] == pytest.approx(0.214690358, abs=1e-8)
    assert shrunk_h_score(wide.moments).value == pytest.approx(2.003014326, abs=1e-8)


def test_the_shrinkage_is_that_of_scikit_learn(narrow, wide):
    for each in (narrow, wide):
        expected = LedoitWolf().fit(each.features).shrinkage_
        assert shrunk_h_score(each.moments).details["alpha"] == pytest.approx(expected, rel=1e-9)


def test_h_is_the_trace_of_its_definition(narrow):
    means = np.stack([narrow.features[narrow.labels == index].mean(0) for index in narrow.labels])
    inverse = np.linalg.pinv(np.cov(narrow.features, rowvar=False, bias=True))
    expected = np.trace(inverse @ np.cov(means, rowvar=False, bias=True))
    assert h_score(narrow.moments).value == pytest.approx(expected, rel=1e-9)


def test_h_is_blank_where_it_ranks_nothing(wide):
    assert h_score(wide.moments).value is None


def test_float32_noise_in_ill_conditioned_features_does_not_move_the_shrunk_score():
    random = np.random.default_rng(3)
    basis = np.linalg.qr(random.normal(size=(64, 64)))[0]
    features = random.normal(size=(300, 64)) * np.logspace(0, -6, 64) @ basis + 5
    labels = np.arange(300) % 10
    exact = shrunk_h_score(Moments.of(features, labels)).value
    assert shrunk_h_score(Moments.of(features.astype(np.float32), labels)).value == pytest.approx(exact, rel=1e-4)


def test_one_feature_and_constant_features():
    labels = np.arange(20) % 2
    assert shrunk_h_score(Moments.of(labels[:, None] + 0.0, labels)).value == pytest.approx(20 / 19)
    assert shrunk_h_score(Moments.of(np.ones((20, 3)), labels)).value is None
    assert h_score(Moments.of(np.ones((20, 3)), labels)).value is None
