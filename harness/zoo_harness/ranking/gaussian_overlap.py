"""Compute GBC, the Gaussian Bhattacharyya coefficient: how little the classes overlap as normal distributions."""

from __future__ import annotations

import numpy as np

from zoo_harness.ranking.moments import Array, Moments
from zoo_harness.ranking.score import RankScore

SMALLEST_VARIANCE = 1e-4


def gbc(moments: Moments) -> RankScore:
    """Return ``-log sum exp(-B_ij)`` over all ordered pairs (i, j) of classes, in nats; higher is better.

    ``B_ij`` is the Bhattacharyya distance between normal distributions of classes i and j with diagonal covariances.
    Feature variances below 1e-4 are raised to 1e-4. The published score is ``-exp(-value)``, which ranks backbones
    equally but underflows to 0 for common feature widths. Source: Pandy et al., CVPR 2022 (arXiv 2111.12780).

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
    """Return the Bhattacharyya distances of all ordered pairs of C classes, (C * (C - 1),).

    A loop over the classes needs less memory than a single array operation.
    """
    logarithms = np.log(variances)
    found = []
    for index in range(len(means)):
        others = np.arange(len(means)) != index
        pooled = (variances[index] + variances[others]) / 2
        apart = ((means[index] - means[others]) ** 2 / pooled).sum(1) / 8
        spread = np.log(pooled).sum(1) - (logarithms[index].sum() + logarithms[others].sum(1)) / 2
        found.append(apart + spread / 2)
    return np.concatenate(found)
