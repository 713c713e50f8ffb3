"""Sums and decompositions against plain numpy, for awkward scales, offsets and shapes."""

from __future__ import annotations

import numpy as np
import pytest

from zoo.errors import DataError
from zoo_harness.ranking import moments as module
from zoo_harness.ranking.moments import Moments


@pytest.mark.parametrize("shape", [(60, 8), (30, 50), (20, 20)])
@pytest.mark.parametrize("offset", [0.0, 5.0, 1e3])
def test_decompositions_are_those_of_numpy(shape, offset, monkeypatch):
    monkeypatch.setattr(module, "CHUNK_BYTES", 8 * shape[1] * 7)  # several chunks
    features = np.random.default_rng(1).normal(size=shape) + offset
    labels = np.arange(shape[0]) % 3
    moments = Moments.of(features, labels)
    centred = features - features.mean(0)
    for found, rows in ((moments.centred, centred), (moments.raw, features)):
        left, values, _right = np.linalg.svd(rows, full_matrices=False)
        kept = values > 1e-9 * values[0]
        order = np.argsort(values[kept])
        np.testing.assert_allclose(np.sqrt(found.variances) / moments.scale, values[kept][order], rtol=1e-4)
        targets = (left.T @ np.eye(3)[labels])[kept][order]
        np.testing.assert_allclose(np.abs(found.targets), np.abs(targets), atol=1e-3)


def test_fourth_powers_are_those_of_the_definition(narrow, wide):
    for each in (narrow, wide):
        centred = each.features - each.features.mean(0)
        expected = ((centred**2).sum(1) ** 2).sum()
        assert each.moments.sum_of_fourth_powers() / each.moments.scale**4 == pytest.approx(expected, rel=1e-12)


def test_class_means_and_variances_are_those_of_the_definition(narrow):
    means, variances = narrow.moments.class_means_and_variances()
    scale = narrow.moments.scale
    for index in range(3):
        members = narrow.features[narrow.labels == index]
        np.testing.assert_allclose((means[index] + narrow.moments.origin) / scale, members.mean(0))
        np.testing.assert_allclose(variances[index] / scale**2, members.var(0))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_no_numbers_are_refused(narrow, bad):
    narrow.features[3, 2] = bad
    with pytest.raises(DataError) as caught:
        narrow.moments  # noqa: B018 - it is computed here
    assert caught.value.code == "not-finite"


def test_one_class_is_refused(narrow):
    with pytest.raises(DataError) as caught:
        Moments.of(narrow.features, np.zeros(60, int))
    assert caught.value.code == "one-class"


def test_the_callers_features_stay_as_they_are(narrow):
    before = narrow.features.copy()
    narrow.moments.centred  # noqa: B018 - it is computed here
    assert np.array_equal(narrow.features, before)
