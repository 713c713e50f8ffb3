"""Standard errors of a mean over samples: as if they were independent, and with mutual nearest neighbours as one.

The terms of a score are not independent: two samples that are each other's nearest neighbour agree or disagree
together, and in two dimensions six samples in ten have such a partner. The formula for independent samples therefore
comes out too small (by about a quarter for SI in two dimensions). The bootstrap here draws such pairs as one.

It draws with replacement as many pairs and single samples as there are. Since a score takes few values, it is enough
to draw how often each kind of pair and single occurs: a multinomial variable, exact, at no cost worth naming.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

RESAMPLES = 4000


def error_of_mean(points: Tensor, most: int) -> float:
    """Return the standard error of the mean of ``points / most`` over independent samples.

    ``points``: (N,) int64 from 0 to ``most``. With ``most`` 1 it is the binomial sqrt(p (1 - p) / n).

    >>> round(error_of_mean(torch.tensor([1, 1, 0, 0]), 1), 6)
    0.25
    """
    values, counts = points.unique(return_counts=True)
    values, counts = values.double() / most, counts.double()
    n = len(points)
    mean = (values * counts).sum() / n
    return math.sqrt(float((counts * (values - mean).square()).sum()) / n / n)


def bootstrap_error(points: Tensor, most: int, partners: Tensor | None, seed: int) -> float:
    """Return the standard error of the mean of ``points / most`` over samples drawn with replacement.

    ``points``: (N,) int64 from 0 to ``most``. ``partners``: (N,) int64, the nearest sample of each; those that are
    each other's are drawn together. ``None`` if samples are independent.

    >>> round(bootstrap_error(torch.tensor([1, 1, 0, 0]), 1, torch.tensor([1, 0, 3, 2]), seed=0), 2)
    0.35
    """
    if 2 * int(points.sum()) > most * len(points):
        points = most - points  # so that the errors of SI and of 1 - SI are the same number, from the same draws
    sums, sizes = _blocks(points, partners)
    kinds, counts = torch.stack([sums, sizes]).unique(dim=1, return_counts=True)
    total, size = kinds.cpu().numpy()
    blocks = len(sums)
    generator = np.random.default_rng(seed)
    drawn = generator.multinomial(blocks, counts.cpu().numpy() / blocks, size=RESAMPLES)
    return float((drawn @ total / (drawn @ size) / most).std())


def _blocks(points: Tensor, partners: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return for each pair or single sample the sum of its points and how many samples it is."""
    if partners is None:
        return points, torch.ones_like(points)
    here = torch.arange(len(points), device=points.device)
    mutual = partners[partners] == here
    first = ~mutual | (here < partners)
    return torch.where(mutual, points + points[partners], points)[first], (1 + mutual.long())[first]
