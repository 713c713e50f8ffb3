"""Averages by class and without shared images, against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, recall_score

from zoo_harness.evaluation.accuracy_details import accuracy_details
from zoo_harness.records.run import AccuracyDetails

CLASSES = tuple("abcde")


def detailed(seed: int, classes: tuple[int, ...], shared: float = 0.3) -> tuple[AccuracyDetails, np.ndarray, ...]:
    draws = np.random.default_rng(seed)
    labels = draws.choice(classes, 60, p=np.arange(1, len(classes) + 1) / sum(range(len(classes) + 1)))
    predicted = np.where(draws.random(60) < 0.6, labels, draws.integers(0, 5, 60))
    also_in_train = draws.random(60) < shared
    found = accuracy_details(torch.from_numpy(labels), torch.from_numpy(predicted), CLASSES, also_in_train)
    return found, labels, predicted, also_in_train


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("classes", [(0, 1, 2, 3, 4), (0, 2, 3)])
def test_means_over_classes_are_scikit_learns(seed: int, classes: tuple[int, ...]) -> None:
    found, labels, predicted, _shared = detailed(seed, classes)
    recalls = recall_score(labels, predicted, labels=classes, average=None)
    assert found.per_class.value == pytest.approx(recalls.mean())
    whole = recall_score(labels, predicted, labels=range(5), average="macro", zero_division=0)
    assert found.per_class_of_all.value == pytest.approx(whole)
    assert found.absent == tuple(CLASSES[index] for index in range(5) if index not in classes)
    if not found.absent:
        assert found.per_class == found.per_class_of_all
        assert found.per_class.value == pytest.approx(balanced_accuracy_score(labels, predicted))


def test_the_error_is_that_of_a_mean_of_independent_proportions() -> None:
    found, labels, predicted, _shared = detailed(1, (0, 2, 3))
    shares = [(predicted[labels == index] == index) for index in (0, 2, 3)]
    variance = sum(share.mean() * (1 - share.mean()) / len(share) for share in shares)
    assert found.per_class.standard_error == pytest.approx(np.sqrt(variance) / 3)
    assert found.per_class_of_all.standard_error == pytest.approx(np.sqrt(variance) / 5)


def test_images_of_other_splits_are_left_out() -> None:
    found, labels, predicted, shared = detailed(2, (0, 1, 2, 3, 4))
    assert found.unshared is not None
    assert (found.shared, found.unshared.n) == (shared.sum(), 60 - shared.sum())
    assert found.unshared.value == pytest.approx((labels == predicted)[~shared].mean())


def test_where_no_image_is_left_there_is_no_accuracy() -> None:
    found, *_given = detailed(3, (0, 1), shared=2)
    assert (found.shared, found.unshared) == (60, None)
