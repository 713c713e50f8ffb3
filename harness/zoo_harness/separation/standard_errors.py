"""Standard errors of a mean over samples: for independent samples, and by a bootstrap that keeps neighbours together.

The terms of a score are not independent: two samples that are each other's nearest neighbour agree or disagree
together. In two dimensions six samples in ten have such a partner, and the formula for independent samples gives an
error about a quarter too small. The bootstrap therefore draws such pairs as one block.

It draws with replacement as many blocks as there are. Because a score takes few values, only the number of blocks of
each kind is drawn, from a multinomial distribution. The result is exact and takes almost no time.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

RESAMPLES = 4000


def errors_of_mean(counts: Tensor, max_count: int, partners: Tensor | None, seed: int) -> tuple[float, float]:
    """Return the standard error of the mean of ``counts / max_count``: for independent samples, and by bootstrap.

    ``counts``: (N,) int64 or float64. ``partners``: (N,) int64, the nearest sample of each sample; two samples that are
    each other's nearest are drawn together. ``None`` if samples are independent.

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
        counts = max_count - counts  # so that SI and 1 - SI have the same error, from the same draws
    sums, sizes = _blocks(counts, partners)
    kinds, occurrences = torch.stack([sums, sizes]).unique(dim=1, return_counts=True)
    total, size = kinds.cpu().numpy()
    blocks = len(sums)
    drawn = np.random.default_rng(seed).multinomial(blocks, occurrences.cpu().numpy() / blocks, size=RESAMPLES)
    return float((drawn @ total / (drawn @ size) / max_count).std())


def _blocks(counts: Tensor, partners: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the sum of the counts and the number of samples of each block, both in the dtype of the counts."""
    if partners is None:
        return counts, torch.ones_like(counts)
    index = torch.arange(len(counts), device=counts.device)
    mutual = partners[partners] == index
    first = ~mutual | (index < partners)
    sums = torch.where(mutual, counts + counts[partners], counts)
    return sums[first], (1 + mutual.to(counts.dtype))[first]
