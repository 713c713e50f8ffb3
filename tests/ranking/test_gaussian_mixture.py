"""N-LEEP: bounds, spread over seeds, and too few images."""

from __future__ import annotations

import numpy as np

from zoo_harness.ranking.gaussian_mixture import n_leep
from zoo_harness.ranking.moments import Moments


def test_it_lies_between_the_bounds_and_names_its_spread(narrow):
    score = n_leep(narrow.moments)
    assert -np.log(3) <= score.value <= 0
    assert score.details["components"] == 6
    assert score.details["spread"] >= 0


def test_too_few_images_and_constant_features_are_blank(narrow):
    assert n_leep(Moments.of(narrow.features[:12], narrow.labels[:12])).value is None
    assert n_leep(Moments.of(np.ones((60, 8)), narrow.labels)).value is None
