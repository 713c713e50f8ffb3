"""A subset with equally many samples of each class, chosen by a seed."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from zoo.errors import UsageError


def balanced_subset(labels: Tensor, per_class: int, seed: int) -> Tensor:
    """Return the indices, ascending, of ``per_class`` samples of each class that ``labels`` (N,) name.

    Raises :class:`UsageError` where a class has fewer.

    >>> balanced_subset(torch.tensor([0, 0, 7, 7, 7]), 2, seed=0)
    tensor([0, 1, 2, 4])
    """
    if isinstance(per_class, bool) or not isinstance(per_class, int) or per_class < 1:
        raise UsageError(f"per_class {per_class!r} is not a positive number of samples")
    given = labels.cpu().numpy()
    classes, counts = np.unique(given, return_counts=True)
    if counts.min() < per_class:
        raise UsageError(
            f"per_class {per_class}: class {classes[counts.argmin()]} has {counts.min()} samples; "
            f"{counts.min()} is the most that keeps the classes balanced"
        )
    generator = np.random.default_rng(seed)
    chosen = [generator.permutation(np.flatnonzero(given == name))[:per_class] for name in classes]
    return torch.from_numpy(np.sort(np.concatenate(chosen))).to(labels.device)
