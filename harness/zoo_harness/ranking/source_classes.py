"""Compute LEEP and NCE: how well a backbone's original classes predict the classes of the data."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from zoo.errors import DataError
from zoo_harness.ranking.moments import Array
from zoo_harness.ranking.score import RankScore

_CHUNK = 4096  # the number of images whose probabilities are in memory together


def leep(logits: Array, labels: Array) -> RankScore:
    """Return the mean log-likelihood of the labels given the source classes, in [-H(Y), 0] nats; higher is better.

    H(Y) is the entropy of the labels. ``logits``, (N, S), are the outputs of the original classifier for its S source
    classes, before softmax. ``labels``, (N,), are integers, and may have gaps. A source class with zero probability for
    every image contributes nothing. The details contain ``relative``, which is 1 plus the score divided by H(Y), in
    [0, 1]. Source: Nguyen et al., ICML 2020 (arXiv 2002.12462).

    >>> leep(np.array([[9.0, -9.0], [9.0, -9.0], [-9.0, 9.0]]), np.array([0, 0, 1])).value > -1e-6
    True
    """
    _check(logits)
    _names, classes, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    joint = np.zeros((len(sizes), logits.shape[1]))
    for theta, of_rows in _probabilities(logits, classes):
        joint += np.eye(len(sizes))[of_rows].T @ theta
    reached = joint.sum(0)
    conditional = np.divide(joint, reached, out=np.zeros_like(joint), where=reached > 0)
    total = sum(
        float(np.log((theta * conditional[of_rows]).sum(1)).sum()) for theta, of_rows in _probabilities(logits, classes)
    )
    return _with_entropy(total / len(labels), sizes)


def nce(logits: Array, labels: Array) -> RankScore:
    """Return minus the conditional entropy of the labels given the predicted source class, in nats; higher is better.

    The value lies in [-H(Y), 0], where H(Y) is the entropy of the labels. :func:`leep` describes the arguments.
    Source: Tran et al., ICCV 2019 (arXiv 1908.08142).

    >>> round(nce(np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), np.array([0, 1, 1])).value, 4)
    -0.4621
    """
    _check(logits)
    _names, classes, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    counts = np.zeros((len(sizes), logits.shape[1]))
    np.add.at(counts, (classes, logits.argmax(1)), 1)
    share = np.divide(counts, counts.sum(0), out=np.ones_like(counts), where=counts > 0)
    return _with_entropy(float((counts * np.log(share)).sum()) / len(labels), sizes)


def _check(logits: Array) -> None:
    if not np.isfinite(logits).all():
        raise DataError("logits contain NaN or infinite values; expected finite numbers", code="not-finite")


def _probabilities(logits: Array, classes: Array) -> Iterator[tuple[Array, Array]]:
    for start in range(0, len(logits), _CHUNK):
        part = logits[start : start + _CHUNK].astype(np.float64)
        part = np.exp(part - part.max(1, keepdims=True))
        yield part / part.sum(1, keepdims=True), classes[start : start + _CHUNK]


def _with_entropy(value: float, sizes: Array) -> RankScore:
    share = sizes / sizes.sum()
    entropy = -float((share * np.log(share)).sum())
    return RankScore(min(value, 0.0), {"relative": value / entropy + 1})
