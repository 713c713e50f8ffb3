"""Compute LogME: the log of the maximum evidence of a Bayesian linear model that predicts labels from features."""

from __future__ import annotations

import numpy as np

from zoo_harness.ranking.moments import Array, Moments
from zoo_harness.ranking.score import RankScore

TOLERANCE, MOST_ITERATIONS = 1e-8, 1000
_MOST_NOISE = 1e-6  # the largest accepted rounding noise, relative to the variance along the first direction
_RIDGE = 1e-5  # keeps the iteration finite for separable data; it suits features with a root mean square of 1


def log_me(moments: Moments) -> RankScore:
    """Return the mean over classes of ``max log p(t | F) / N`` in nats; higher is better.

    F are the features of N images, and t are the 0/1 targets of a class. The model is ``w ~ N(0, I/a)`` and
    ``t ~ N(F w, I/b)``, where a and b maximise the evidence. Typical values lie between slightly below 0 and 2. The
    model has no intercept, so an offset of the features changes the score. The features are scaled to a root mean
    square of 1. The details contain the number of fixed-point ``iterations``, and whether they ``converged``.

    Source: You et al., "LogME", ICML 2021 (arXiv 2102.11005), with the fixed point of arXiv 2110.10545. The evidence is
    written so that the feature width D cancels; some implementations are wrong if N < D.

    >>> features = np.array([[1.0, 0.1], [0.9, -0.1], [0.1, 1.0], [-0.1, 0.9]])
    >>> score = log_me(Moments.of(features, np.array([0, 0, 1, 1])))
    >>> round(score.value, 4), score.details["converged"]
    (-0.3401, True)
    """
    if moments.constant:
        return RankScore.blank("all images have the same features")
    spectrum = moments.raw
    noise = max(moments.count, moments.width) * np.finfo(np.float64).eps * spectrum.variances[-1]
    if noise > _MOST_NOISE * moments.centred.variances[-1]:
        return RankScore.blank("the offset of the features is so large that their differences are rounding noise")
    total = float(moments.squares.sum() + 2 * moments.origin @ moments.sums.sum(0))
    mean_square = (total / moments.count + float(moments.origin @ moments.origin)) / moments.width
    evidence, iterations, converged = _evidence(
        spectrum.variances / mean_square, spectrum.targets**2, moments.sizes, moments.count
    )
    return RankScore(float(evidence.mean()), {"iterations": iterations, "converged": converged})


def _evidence(variances: Array, projections: Array, sizes: Array, count: int) -> tuple[Array, int, bool]:
    """Return the log evidence of each class divided by N, the number of iterations, and whether they converged.

    ``projections``, (k, C), has the squares of U'Y for the left singular vectors U and the one-hot labels Y.
    """
    outside = np.maximum(sizes - projections.sum(0), 0)  # the squared norm of the targets outside the feature space
    ratio = np.ones(len(sizes))  # a / b
    column = variances[:, None]
    converged, iteration = False, 0
    while not converged and iteration < MOST_ITERATIONS:
        iteration += 1
        signal = column / ratio
        effective = (signal / (1 + signal)).sum(0)
        weights = (projections * column / (ratio + column) ** 2).sum(0)
        residual = (projections / (1 + signal) ** 2).sum(0) + outside
        precision, noise = effective / (weights + _RIDGE), (count - effective) / (residual + _RIDGE)
        converged = bool((np.abs(precision / noise - ratio) <= TOLERANCE * ratio).all())
        ratio = ratio if converged else precision / noise
    determinant = np.log1p(column * noise / precision).sum(0)
    fit = (noise * residual + precision * weights + determinant) / count
    return (np.log(noise) - np.log(2 * np.pi) - fit) / 2, iteration, converged
