"""Compute N-LEEP: the LEEP score that uses components of a Gaussian mixture of features as source classes."""

from __future__ import annotations

import numpy as np

from zoo_harness.ranking.moments import Moments
from zoo_harness.ranking.score import RankScore
from zoo_harness.ranking.source_classes import leep

COMPONENTS_PER_CLASS, SMALLEST_COMPONENT, ENERGY, SEEDS = 5, 10, 0.8, (0, 1, 2)


def n_leep(moments: Moments) -> RankScore:
    """Return the mean N-LEEP over three seeds, in [-H(Y), 0] nats, where H(Y) is the entropy of the labels.

    Higher is better. The features are projected onto the principal directions that hold 80 % of the variance. The
    mixture has diagonal covariances and 5 components per class, but at most one component per 10 images. The details
    contain ``components``, the number of components, and ``spread``, the range of the values over the seeds. Source: Li
    et al., CVPR 2021 (arXiv 2011.11200).
    """
    from sklearn.mixture import GaussianMixture

    components = min(COMPONENTS_PER_CLASS * len(moments.sizes), moments.count // SMALLEST_COMPONENT)
    if moments.constant:
        return RankScore.blank("all images have the same features")
    if components < 2:
        return RankScore.blank(f"{moments.count} images are too few for a mixture; expected 20 or more")
    variances, _targets, directions = moments.centred
    energy = np.cumsum(variances[::-1]) / variances.sum()
    kept = directions[:, ::-1][:, : int((energy < ENERGY).sum()) + 1]
    reduced = np.concatenate([(rows - moments.mean) @ kept for rows, _labels in moments.chunks()])
    reduced /= reduced.std()
    values = []
    for seed in SEEDS:
        mixture = GaussianMixture(components, covariance_type="diag", random_state=seed, max_iter=200).fit(reduced)
        with np.errstate(divide="ignore"):
            logits = np.maximum(np.log(mixture.predict_proba(reduced)), -700)
        values.append(leep(logits, moments.labels).value or 0.0)
    return RankScore(float(np.mean(values)), {"spread": max(values) - min(values), "components": components})
