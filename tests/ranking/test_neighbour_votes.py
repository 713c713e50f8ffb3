"""SI and 5-NN against published figures and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from zoo_harness.ranking.neighbour_votes import k_nearest, nearest_labels, si
from zoo_harness.separation.index import separation_index


def test_the_example_has_the_published_values(narrow):
    found = nearest_labels(narrow.features, narrow.labels)
    assert si(found).value == pytest.approx(0.883333, abs=1e-6)
    assert k_nearest(found).value == pytest.approx(0.933333, abs=1e-6)
    assert si(found).value == separation_index(narrow.features, narrow.labels).value


def test_votes_are_those_of_scikit_learns_neighbours(wide):
    order = NearestNeighbors(n_neighbors=6).fit(wide.features).kneighbors(return_distance=False)[:, :5]
    votes = [np.bincount(row, minlength=3) for row in wide.labels[order]]
    clear = np.array([np.sort(vote)[-1] > np.sort(vote)[-2] for vote in votes])
    expected = np.array([vote.argmax() for vote in votes]) == wide.labels
    found = k_nearest(nearest_labels(wide.features, wide.labels))
    assert np.array_equal(found.hits[clear], expected[clear])


def test_fewer_images_than_neighbours():
    found = k_nearest(nearest_labels(np.array([[0.0], [1.0], [5.0]]), np.array([0, 0, 1])))
    assert found.details == {"k": 2}
    assert found.hits.tolist() == [True, True, False]
