"""Compute H-scores: the variance of the features between classes, relative to their total variance."""

from __future__ import annotations

import numpy as np

from zoo_harness.ranking.moments import Array, Moments
from zoo_harness.ranking.score import RankScore


def h_score(moments: Moments) -> RankScore:
    """Return ``tr(cov(F)^+ cov(E[F | y]))`` of features F and labels y, in [0, C - 1] for C classes; higher is better.

    For N images of D features with N <= D + 1, the score has no value, because all backbones would get C - 1. Source:
    Bao et al., ICIP 2019 (arXiv 2212.10082).

    >>> features = np.array([[0.0], [1.0], [2.0], [3.0]])
    >>> round(h_score(Moments.of(features, np.array([0, 0, 1, 1]))).value, 6)
    0.8
    """
    if moments.constant:
        return RankScore.blank("all images have the same features")
    if moments.count <= moments.width + 1:
        return RankScore.blank(f"{moments.count} images for {moments.width} features: every backbone has C - 1")
    return RankScore(float(_between(moments).sum()))


def shrunk_h_score(moments: Moments) -> RankScore:
    """Return the H-score with the covariance shrunk towards a multiple of the identity matrix; higher is better.

    The shrinkage ``alpha`` in [0, 1] follows Ledoit and Wolf (2004). For C classes the value lies in [0, C - 1], or
    slightly above if there are few images. Source: Ibrahim et al., arXiv 2110.06893; this code uses a closed form
    without a matrix inverse.

    >>> features = np.array([[0.0], [1.0], [2.0], [3.0]])
    >>> round(shrunk_h_score(Moments.of(features, np.array([0, 0, 1, 1]))).value, 6)
    1.066667
    """
    if moments.constant:
        return RankScore.blank("all images have the same features")
    n, width = moments.count, moments.width
    variances = moments.centred.variances / n
    level, squared = variances.sum() / width, float(variances @ variances)
    distance = (squared - width * level**2) / width
    error = (moments.sum_of_fourth_powers() / n - squared) / (width * n)
    # If all directions have equal variance, the distance is 0, and the covariance needs no shrinkage.
    alpha = min(error, distance) / distance if distance > np.finfo(float).eps * squared else 0.0
    kept = (1 - alpha) * variances
    value = (kept * n / (n - 1) * _between(moments) / (kept + alpha * level)).sum()
    return RankScore(float(value), {"alpha": float(alpha)})


def _between(moments: Moments) -> Array:
    """Return the between-class share of the variance along each principal direction of the features, (k,).

    The share is a sum over classes: the class size times the squared class mean of the left singular vector.
    """
    shares: Array = (moments.centred.targets**2 / moments.sizes).sum(1)
    return shares
