"""The definitions of the scores, written once more: all distances at once, in numpy."""

from __future__ import annotations

import numpy as np
import pytest


def gaussian(seed, n=150, width=8, classes=4, spread=1.0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    return spread * rng.normal(size=(classes, width))[labels] + rng.normal(size=(n, width)), labels


def agreement_by_brute_force(features, labels, references=None, reference_labels=None):
    """Whether each neighbour, from the nearest to the farthest, has the sample's label; and all distances."""
    own = np.asarray(features, dtype=np.float64)
    others = own if references is None else np.asarray(references, dtype=np.float64)
    other_labels = labels if references is None else reference_labels
    distances = ((own[:, None] - others[None]) ** 2).sum(2)
    if references is None:
        np.fill_diagonal(distances, np.inf)
    order = np.argsort(distances, axis=1, kind="stable")
    if references is None:
        order = order[:, :-1]
    return np.asarray(other_labels)[order] == np.asarray(labels)[:, None], np.take_along_axis(distances, order, 1)


def numbers_by_definition(same_label, r):
    near = same_label[:, :r]
    return {"high": near.all(1) * 1.0, "soft": near.mean(1), "anti": 1.0 - near.any(1)}


def dependent_by_trying(same_label, distances, r):
    """How many samples' high, soft and anti numbers differ between choices of the tied neighbours."""
    counts = dict.fromkeys(("high", "soft", "anti"), 0)
    for row, distance in zip(same_label, distances, strict=True):
        inner = list(row[distance < distance[r - 1]])
        tied = sorted(row[distance == distance[r - 1]])
        slots = r - len(inner)
        # Sorted, so that these have every possible number of agreeing ones.
        choices = [inner + tied[i : i + slots] for i in range(len(tied) - slots + 1)]
        for family, values in {
            "high": {all(choice) for choice in choices},
            "soft": {sum(choice) for choice in choices},
            "anti": {not any(choice) for choice in choices},
        }.items():
            counts[family] += len(values) > 1
    return counts


def check_against_brute_force(result, same_label, distances, labels):
    assert result.order <= same_label.shape[1]
    for r in range(1, result.order + 1):
        tied = dependent_by_trying(same_label, distances, r)
        for family, numbers in numbers_by_definition(same_label, r).items():
            score = getattr(result, family)[r]
            np.testing.assert_allclose(score.per_sample, numbers, rtol=1e-12)
            assert score.value == pytest.approx(numbers.mean(), abs=1e-12)
            by_class = {int(name): numbers[labels == name].mean() for name in np.unique(labels)}
            assert score.per_class == pytest.approx(by_class, abs=1e-12)
            assert score.tied == tied[family], (family, r)
