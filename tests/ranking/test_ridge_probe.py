"""The ridge probe against a brute-force fit without each image."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from zoo_harness.ranking import moments as module, ridge_probe as probe
from zoo_harness.ranking.moments import Moments
from zoo_harness.ranking.ridge_probe import PENALTIES, ridge_probe


def brute_force(features, labels, penalty):
    """Fit to all images but one, for each of them; the penalty is in the units of the centred features."""
    hits = []
    for out in range(len(labels)):
        kept = np.arange(len(labels)) != out
        fit = Ridge(alpha=penalty).fit(features[kept], np.eye(labels.max() + 1)[labels[kept]])
        hits.append(fit.predict(features[out : out + 1])[0].argmax() == labels[out])
    return np.array(hits)


def test_the_example_has_the_published_value(narrow):
    assert ridge_probe(narrow.moments).value == pytest.approx(0.916667, abs=1e-6)


@pytest.mark.parametrize("factor", [1.0, 1e-20])
def test_every_penalty_is_that_of_brute_force(narrow, monkeypatch, factor):
    """The intercept of the brute-force fit is not penalised, and its mean is that of the images it sees."""
    features = narrow.features * factor
    variances = np.linalg.svd(features - features.mean(0), compute_uv=False) ** 2
    for penalty in (1e-3, 0.1, 1.0):
        monkeypatch.setattr(probe, "PENALTIES", np.array([penalty]))
        found = ridge_probe(Moments.of(features, narrow.labels))
        assert np.array_equal(found.hits, brute_force(features, narrow.labels, penalty * variances.mean()))


def test_chunks_and_wide_features(wide, monkeypatch):
    whole = ridge_probe(wide.moments)
    monkeypatch.setattr(module, "CHUNK_BYTES", 8 * 100 * 7)
    assert np.array_equal(ridge_probe(wide.moments).hits, whole.hits)
    assert whole.details["penalty"] in PENALTIES


def test_constant_features_are_blank(narrow):
    assert ridge_probe(Moments.of(np.ones((60, 8)), narrow.labels)).value is None


def test_a_class_of_one_image_is_missed(narrow):
    labels = narrow.labels.copy()
    labels[0] = 3
    assert not ridge_probe(Moments.of(narrow.features, labels)).hits[0]
