"""Compute the standard error of a mean over samples, by a formula for independent samples and by a block bootstrap.

The samples' contributions to a score are not independent: if two samples are each other's nearest neighbour, SI counts
both samples as hits, or both samples as misses. In two dimensions, six samples in ten belong to a pair of mutual
nearest neighbours. The formula for independent samples then gives an error that is about a quarter too small. The
bootstrap therefore draws two mutual nearest neighbours as one block. Each remaining sample is a block of its own.

Each resample draws, with replacement, as many blocks as the samples form. A score takes few values, so that many blocks
are identical. Therefore one draw from a multinomial distribution gives the number of blocks of each kind. The
multinomial draw is equivalent to drawing single blocks, and takes almost no time.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

RESAMPLES = 4000


def errors_of_mean(counts: Tensor, max_count: int, partners: Tensor | None, seed: int) -> tuple[float, float]:
    """Return two standard errors of the mean of ``counts / max_count``: for independent samples, and by bootstrap.

    ``counts``: (N,) int64 or float64. ``partners``: (N,) int64, the nearest sample of each sample, or ``None`` if
    samples are independent. The bootstrap draws two samples together if each is the nearest sample of the other.

    >>> errors = errors_of_mean(torch.tensor([1, 1, 0, 0]), 1, torch.tensor([1, 0, 3, 2]), seed=0)
    >>> [round(error, 2) for error in errors]
    [0.25, 0.35]
    """
    return _error_of_mean(counts, max_count), _bootstrap_error(counts, max_count, partners, seed)


def _error_of_mean(counts: Tensor, max_count: int) -> float:
    values, sizes = counts.unique(return_counts=True)
    values, sizes = values.double() / max_count, sizes.double()
    n = len(counts)
    mean = (values * sizes).sum() / n
    return math.sqrt(float((sizes * (values - mean).square()).sum()) / n / n)


def _bootstrap_error(counts: Tensor, max_count: int, partners: Tensor | None, seed: int) -> float:
    if 2 * counts.sum().item() > max_count * len(counts):
        counts = max_count - counts  # so that a score s and the score 1 - s have equal errors
    sums, sizes = _blocks(counts, partners)
    kinds, occurrences = torch.stack([sums, sizes]).unique(dim=1, return_counts=True)
    total, size = kinds.cpu().numpy()
    blocks = len(sums)
    drawn = np.random.default_rng(seed).multinomial(blocks, occurrences.cpu().numpy() / blocks, size=RESAMPLES)
    return float((drawn @ total / (drawn @ size) / max_count).std())


def _blocks(counts: Tensor, partners: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the sum of the counts in each block, and the number of samples in each block.

    Both tensors have the dtype of ``counts``.
    """
    if partners is None:
        return counts, torch.ones_like(counts)
    index = torch.arange(len(counts), device=counts.device)
    mutual = partners[partners] == index
    first = ~mutual | (index < partners)
    sums = torch.where(mutual, counts + counts[partners], counts)
    return sums[first], (1 + mutual.to(counts.dtype))[first]
