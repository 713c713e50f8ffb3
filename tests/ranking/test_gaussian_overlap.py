"""GBC against published figures and against its definition."""

from __future__ import annotations

import numpy as np
import pytest

from zoo_harness.ranking.gaussian_overlap import gbc
from zoo_harness.ranking.moments import Moments


def test_the_example_has_the_published_value(narrow):
    assert -np.exp(-gbc(narrow.moments).value) == pytest.approx(-0.937558368, abs=1e-8)


def test_wide_features_do_not_underflow():
    random = np.random.default_rng(0)
    labels = np.arange(400) % 10
    features = 0.9 * random.normal(size=(10, 768))[labels] + random.normal(size=(400, 768))
    value = gbc(Moments.of(features, labels)).value
    assert 50 < value < 200
    assert np.isfinite(value)


def test_a_class_of_one_image_and_equal_images_are_numbers():
    features = np.array([[0.0, 1.0], [0.0, 1.0], [3.0, 1.0]])
    assert np.isfinite(gbc(Moments.of(features, np.array([0, 0, 1]))).value)


def test_it_is_the_sum_of_its_definition(narrow):
    means = np.stack([narrow.features[narrow.labels == index].mean(0) for index in range(3)])
    variances = np.stack([narrow.features[narrow.labels == index].var(0) for index in range(3)])
    total = 0.0
    for one in range(3):
        for other in range(3):
            if one != other:
                pooled = (variances[one] + variances[other]) / 2
                distance = ((means[one] - means[other]) ** 2 / pooled).sum() / 8
                distance += 0.5 * np.log(pooled / np.sqrt(variances[one] * variances[other])).sum()
                total += np.exp(-distance)
    assert gbc(narrow.moments).value == pytest.approx(-np.log(total), rel=1e-9)
