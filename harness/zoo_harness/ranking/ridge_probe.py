"""Compute the ridge probe: the leave-one-out accuracy of a linear classifier that ridge regression fits."""

from __future__ import annotations

import numpy as np

from zoo_harness.ranking.moments import Moments
from zoo_harness.ranking.score import RankScore

PENALTIES = np.logspace(-6, 3, 25)  # in units of the mean variance along the principal directions


def ridge_probe(moments: Moments) -> RankScore:
    """Return the leave-one-out accuracy of ridge regression on one-hot labels with an intercept, in [0, 1].

    The exact leave-one-out accuracy is computed for each of 25 penalties from a single fit. The score is the best of
    the 25 accuracies, so it is slightly optimistic. If several penalties have the same accuracy, the penalty with the
    smallest squared error is chosen. The details contain the best ``penalty``, relative to the mean variance along the
    principal directions. Source: the leave-one-out prediction ``(fit - h y) / (1 - h)`` of a linear smoother with
    leverage h; Hastie et al., "The Elements of Statistical Learning", section 7.10.

    >>> features = np.array([[0.0], [1.0], [2.0], [8.0], [9.0], [10.0]])
    >>> ridge_probe(Moments.of(features, np.array([0, 0, 0, 1, 1, 1]))).value
    1.0
    """
    if moments.constant:
        return RankScore.blank("all images have the same features")
    variances, targets, directions = moments.centred
    penalties = PENALTIES * variances.mean()
    shrinkage = variances[:, None] / (variances[:, None] + penalties)  # (k, penalties)
    basis = directions / np.sqrt(variances)
    shares = moments.sizes / moments.count
    hits = np.empty((len(penalties), moments.count), dtype=bool)
    errors = np.zeros(len(penalties))
    done = 0
    for rows, of_rows in moments.chunks():
        left = (rows - moments.mean) @ basis  # U
        leverage = left**2 @ shrinkage + 1 / moments.count
        one_hot = np.eye(len(shares))[of_rows]
        part = slice(done, done := done + len(rows))
        for index in range(len(penalties)):
            fit = left @ (shrinkage[:, index, None] * targets) + shares
            own = leverage[:, index, None]
            out = (fit - own * one_hot) / (1 - own)
            hits[index, part] = out.argmax(1) == of_rows
            errors[index] += float(((out - one_hot) ** 2).sum())
    best = max(range(len(penalties)), key=lambda index: (int(hits[index].sum()), -errors[index]))
    return RankScore(float(hits[best].mean()), {"penalty": float(PENALTIES[best])}, hits=hits[best])
