"""Forward feature ranking against the obvious way to do it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from zoo import rank_features, separation_index
from zoo.errors import DataError, UsageError
from zoo_harness.separation import feature_ranking
from zoo_harness.separation.inputs import balanced_subset


def obvious_ranking(features, labels):
    """Score every longer set of columns anew."""
    chosen, curve = [], []
    while len(chosen) < features.shape[1]:
        left = [column for column in range(features.shape[1]) if column not in chosen]
        scores = [separation_index(features[:, [*chosen, column]], labels).value for column in left]
        chosen.append(left[int(np.argmax(scores))])
        curve.append(max(scores))
    return tuple(chosen), tuple(curve)


@settings(deadline=None, max_examples=25)
@given(st.data())
def test_ranks_as_the_obvious_way_does(data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    n, width = data.draw(st.integers(2, 90)), data.draw(st.integers(1, 5))
    side = data.draw(st.sampled_from([1, 4, 1000]))
    features = rng.integers(0, side + 1, (n, width)).astype(float)
    labels = rng.integers(0, 3, n)
    budget = data.draw(st.sampled_from([1, 50_000, 2**29]))  # too little to keep the distances, enough for some rows
    ranking = rank_features(features, labels, memory_budget=budget)
    assert (ranking.features, ranking.curve) == obvious_ranking(features, labels)


def test_features_that_tell_the_classes_apart_come_first():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 200)
    features = rng.normal(size=(200, 12))
    features[:, 7] += 6 * (labels % 2)
    features[:, 3] += 6 * (labels // 2)
    ranking = rank_features(features, labels, most=4)
    assert set(ranking.features[:2]) == {3, 7}
    assert len(ranking.features) == len(ranking.curve) == 4
    assert ranking.curve[1] > 0.95 > 0.6 > ranking.curve[0]
    assert ranking.curve[1] == separation_index(features[:, list(ranking.features[:2])], labels).value


def test_equal_features_are_ranked_by_position():
    features = np.random.default_rng(1).normal(size=(40, 1)).repeat(5, 1)
    assert rank_features(features, np.arange(40) % 2).features == (0, 1, 2, 3, 4)


def test_z_scores_change_the_order():
    rng = np.random.default_rng(2)
    labels = np.arange(100) % 2
    features = np.column_stack([labels * 2.5 + rng.normal(size=100), 1e4 * rng.normal(size=100), labels * 1e-3])
    plain, scored = rank_features(features, labels), rank_features(features, labels, normalize=True)
    assert plain.features[0] == scored.features[0] == 2
    assert plain.curve[2] < 0.75 < 0.95 < scored.curve[2]


def test_most_of_the_work_is_spared(monkeypatch):
    """Few rows are compared with all others, once there is a feature to start from."""
    rows = []
    compare = feature_ranking._Search._count_doubtful

    def counted(search, column, doubtful, distances):
        rows.append((len(search.chosen), len(doubtful)))
        return compare(search, column, doubtful, distances)

    monkeypatch.setattr(feature_ranking._Search, "_count_doubtful", counted)
    rng = np.random.default_rng(3)
    rank_features(rng.normal(size=(500, 12)), rng.integers(0, 3, 500))
    at_first = sum(count for chosen, count in rows if chosen == 0)
    later = sum(count for chosen, count in rows if chosen > 0)
    assert at_first == 12 * 500
    assert later < 0.1 * sum(range(12)) * 500


@pytest.mark.parametrize(
    ("options", "error", "code"),
    [
        *(({"most": most}, UsageError, "option-range") for most in (0, 3, True, 1.0)),
        ({"memory_budget": 0}, UsageError, "option-range"),
        ({"normalize": None}, UsageError, "option-value"),
        ({}, DataError, "not-finite"),
    ],
)
def test_arguments_are_refused(options, error, code):
    features = np.eye(3)[:, :2] if options else np.array([[1.0], [np.nan], [0.0]])
    with pytest.raises(error) as caught:
        rank_features(features, np.zeros(3, dtype=int), **options)
    assert caught.value.code == code


def test_a_balanced_subset_is_ranked_as_if_it_were_all():
    rng = np.random.default_rng(5)
    features, labels = rng.normal(size=(60, 4)), rng.integers(0, 3, 60)
    chosen = balanced_subset(torch.from_numpy(labels), 9, seed=2).numpy()
    assert rank_features(features, labels, per_class=9, seed=2) == rank_features(features[chosen], labels[chosen])
