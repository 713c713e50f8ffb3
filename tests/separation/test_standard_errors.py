"""Standard errors of the scores against their spread over many datasets of the same kind."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors

from zoo_harness.separation.index import separation
from zoo_harness.separation.standard_errors import errors_of_mean


def bootstrap_error(counts, max_count, partners, seed):
    return errors_of_mean(counts, max_count, partners, seed)[1]


def error_of_mean(counts, max_count):
    return errors_of_mean(counts, max_count, None, 0)[0]


def scores(nearest, labels, of_neighbours):
    """SI and soft SI of order 2."""
    same_label = of_neighbours[nearest] == labels[:, None]
    return same_label[:, 0].mean(), same_label.mean()


def spread_and_errors(cross: bool, classes: int, sets: int = 200, scored: int = 15, n: int = 200):
    """For SI and soft SI of order 2: the spread over datasets, the mean standard and bootstrap errors.

    The errors hardly differ between sets, so those of some are enough. For the spread scikit-learn finds neighbours.
    """
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(classes, 2))

    def draw(size):
        labels = rng.integers(0, classes, size)
        return centres[labels] + rng.normal(size=(size, 2)), labels

    references, reference_labels = draw(n) if cross else (None, None)
    values, errors = [], []
    for number in range(sets):
        features, labels = draw(n)
        search = NearestNeighbors(n_neighbors=2).fit(references if cross else features)
        nearest = search.kneighbors(features if cross else None, return_distance=False)
        values.append(scores(nearest, labels, reference_labels if cross else labels))
        if number < scored:
            result = separation(features, labels, references=references, reference_labels=reference_labels)
            ours = result.si, result.soft[2]
            assert [score.value for score in ours] == pytest.approx(values[-1])
            errors.append([[score.standard_error, score.bootstrap_error] for score in ours])
    return np.std(values, axis=0), *np.mean(errors, axis=0).T


@pytest.mark.parametrize("classes", [2, 6])
def test_against_references_both_errors_are_the_spread(classes):
    spread, standard, bootstrap = spread_and_errors(cross=True, classes=classes)
    np.testing.assert_allclose(standard, spread, rtol=0.12)
    np.testing.assert_allclose(bootstrap, spread, rtol=0.12)


@pytest.mark.parametrize("classes", [2, 6])
def test_among_each_other_only_the_bootstrap_sees_that_mutual_neighbours_go_together(classes):
    spread, standard, bootstrap = spread_and_errors(cross=False, classes=classes)
    assert bootstrap[0] == pytest.approx(spread[0], rel=0.12)
    assert standard[0] < 0.87 * spread[0]
    # At order 2, more samples than these pairs depend on each other, so the error is closer but still too small.
    assert standard[1] < bootstrap[1] < 1.05 * spread[1]
    assert bootstrap[1] > 0.75 * spread[1]


def test_the_bootstrap_of_independent_samples_is_the_plain_one():
    rng = np.random.default_rng(1)
    numbers = torch.from_numpy(rng.integers(0, 4, 80))
    plain = np.std([rng.choice(numbers.numpy(), 80).mean() / 3 for _ in range(5000)])
    assert bootstrap_error(numbers, 3, None, seed=0) == pytest.approx(plain, rel=0.06)
    assert bootstrap_error(numbers, 3, None, seed=0) == pytest.approx(error_of_mean(numbers, 3), rel=0.05)


def test_pairs_are_drawn_together():
    rng = np.random.default_rng(2)
    numbers = rng.integers(0, 2, 60).repeat(2)
    partners = np.arange(120) ^ 1
    by_hand = np.std([numbers.reshape(60, 2)[rng.integers(0, 60, 60)].mean() for _ in range(5000)])
    error = bootstrap_error(torch.from_numpy(numbers), 1, torch.from_numpy(partners), seed=0)
    assert error == pytest.approx(by_hand, rel=0.06)
    assert error == pytest.approx(error_of_mean(torch.from_numpy(numbers), 1) * 2**0.5, rel=0.06)


def test_one_sided_neighbours_are_no_pairs():
    numbers = torch.tensor([1, 0, 1, 1, 0, 0, 1])
    in_a_ring = (torch.arange(7) + 1) % 7
    assert bootstrap_error(numbers, 1, in_a_ring, seed=5) == bootstrap_error(numbers, 1, None, seed=5)


def test_the_seed_decides_and_nothing_else_does():
    numbers = torch.tensor([1, 0, 1, 1, 0, 0, 1, 1])
    torch.manual_seed(0)
    first = bootstrap_error(numbers, 1, None, seed=1)
    torch.manual_seed(1)
    assert bootstrap_error(numbers, 1, None, seed=1) == first != bootstrap_error(numbers, 1, None, seed=2)


@pytest.mark.parametrize("numbers", [torch.zeros(5, dtype=torch.int64), torch.ones(5, dtype=torch.int64)])
def test_no_spread_is_no_error(numbers):
    assert (error_of_mean(numbers, 1), bootstrap_error(numbers, 1, None, seed=0)) == (0, 0)
