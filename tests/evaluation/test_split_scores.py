"""The five scores a run records: those of ``zoo.separation``, and what is left of them on tiny splits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.metrics.pairwise import euclidean_distances
from sklearn.neighbors import NearestNeighbors

import zoo
from zoo_harness.compute.context import ComputeContext
from zoo_harness.evaluation.split_scores import split_separation
from zoo_harness.records.run import SplitSeparation

CPU = ComputeContext(torch.device("cpu"))
DIGITS = load_digits()
PIXELS, LABELS = DIGITS.images[:300].reshape(300, -1).astype(np.uint8), DIGITS.target[:300]


def measured(features: np.ndarray, labels: list[int] | np.ndarray) -> SplitSeparation:
    found = split_separation(features, torch.as_tensor(np.asarray(labels)), CPU)
    assert found is not None
    return found


def test_scores_are_those_of_scikit_learns_neighbours() -> None:
    found = measured(PIXELS, LABELS)
    assert found.high and found.soft and found.anti  # noqa: PT018
    search = NearestNeighbors(n_neighbors=2).fit(PIXELS.astype(float))
    alike = LABELS[search.kneighbors(return_distance=False)] == LABELS[:, None]
    centres = np.stack([PIXELS[digit == LABELS].mean(0) for digit in range(10)])
    nearest = euclidean_distances(PIXELS.astype(float), centres).argmin(1)
    assert found.si.value == pytest.approx(alike[:, 0].mean())
    assert found.high.value == pytest.approx(alike.all(1).mean())
    assert found.soft.value == pytest.approx(alike.mean())
    assert found.anti.value == pytest.approx((~alike.any(1)).mean())
    assert found.centre.value == pytest.approx((nearest == LABELS).mean())


def test_record_keeps_errors_ties_and_duplicates() -> None:
    features = np.concatenate([PIXELS, PIXELS[:3]])
    labels = np.concatenate([LABELS, LABELS[:2], LABELS[2:3] + 1])
    found = measured(features, labels)
    expected = zoo.separation(features, labels)
    assert (found.duplicates, found.duplicates_unlike) == (6, 2)
    for ours, theirs in zip(
        found.scores.values(),
        (expected.si, expected.high[2], expected.soft[2], expected.anti[2], expected.centre),
        strict=True,
    ):
        assert (ours.n, ours.value, ours.standard_error, ours.bootstrap_error, ours.tied) == (
            303,
            theirs.value,
            theirs.standard_error,
            theirs.bootstrap_error,
            theirs.tied,
        )


def test_identity_of_the_scores() -> None:
    found = measured(PIXELS, LABELS)
    assert found.high and found.soft and found.anti  # noqa: PT018
    assert found.anti.value == pytest.approx(1 - 2 * found.soft.value + found.high.value, abs=1e-12)


def test_three_images_have_every_score() -> None:
    found = measured(np.array([[0.0], [1.0], [5.0]]), [0, 0, 1])
    assert found.order == 2
    assert [score.value for score in found.scores.values()] == pytest.approx([2 / 3, 0, 1 / 3, 1 / 3, 1])


def test_two_images_have_no_score_of_order_two() -> None:
    found = measured(np.array([[0.0], [1.0]]), [0, 1])
    assert found.order == 1
    assert (found.high, found.soft, found.anti) == (None, None, None)
    assert (found.si.value, found.centre.value) == (0, 1)


def test_one_image_has_no_score() -> None:
    assert split_separation(np.array([[0.0]]), torch.tensor([0]), CPU) is None
