"""GBC, the Gaussian Bhattacharyya coefficient: how far apart the classes are as normal distributions."""

from __future__ import annotations

import numpy as np

from zoo_harness.ranking.moments import Array, Moments
from zoo_harness.ranking.score import RankScore

SMALLEST_VARIANCE = 1e-4


def gbc(moments: Moments) -> RankScore:
    """Return ``-log sum exp(-B_ij)`` over all ordered pairs of classes, in nats; higher is better.

    ``B_ij`` is the Bhattacharyya distance of normal distributions with diagonal covariances, whose variances are at
    least 1e-4 in the units of the features. The score as published is ``-exp(-value)``, which underflows to 0 for
    common widths; the order is the same. Source: Pandy et al., CVPR 2022 (arXiv 2111.12780).

    >>> features = np.array([[0.0], [2.0], [10.0], [12.0]])
    >>> round(gbc(Moments.of(features, np.array([0, 0, 1, 1]))).value, 4)
    11.8069
    """
    means, variances = moments.class_means_and_variances()
    variances = np.maximum(variances, SMALLEST_VARIANCE * moments.scale**2)
    distances = _distances(means, variances)
    least = distances.min()
    return RankScore(float(least - np.log(np.exp(least - distances).sum())))


def _distances(means: Array, variances: Array) -> Array:
    """Return the Bhattacharyya distances of all ordered pairs, (C * (C - 1),); one class at a time, to save memory."""
    logarithms = np.log(variances)
    found = []
    for index in range(len(means)):
        others = np.arange(len(means)) != index
        pooled = (variances[index] + variances[others]) / 2
        apart = ((means[index] - means[others]) ** 2 / pooled).sum(1) / 8
        spread = np.log(pooled).sum(1) - (logarithms[index].sum() + logarithms[others].sum(1)) / 2
        found.append(apart + spread / 2)
    return np.concatenate(found)
