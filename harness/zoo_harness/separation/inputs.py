"""What is compared with what: samples with each other, or with references, once everything given has been checked."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Literal, TypedDict, get_args

import numpy as np
import torch
from torch import Tensor

from zoo.errors import UsageError, check_choice
from zoo_harness.separation.scaling import in_range, unit_length, z_scored
from zoo_harness.separation.validation import Array, checked_features, checked_labels, checked_references

Metric = Literal["euclidean", "cosine"]


class Options(TypedDict, total=False):
    """What every score can be asked with, besides features, labels and order (see :func:`zoo.separation`)."""

    references: Array | Tensor | None
    reference_labels: Array | Tensor | None
    metric: Metric
    normalize: bool
    per_class: int | None
    seed: int
    memory_budget: int


@dataclass(frozen=True, eq=False)
class Comparison:
    """Samples and what their neighbours are looked for in, ready for Euclidean distances.

    ``features``: (N, D). ``labels``: (N,) int64. ``references``: (M, D) and ``reference_labels``: (M,) int64, or
    ``None`` twice: then each sample is compared with the others. ``rows``: (N,) int64, which of the rows given
    these are; ``None`` if all.
    """

    features: Tensor
    labels: Tensor
    references: Tensor | None
    reference_labels: Tensor | None
    rows: Tensor | None

    @property
    def largest_order(self) -> int:
        """How many neighbours a sample has."""
        return len(self.features) - 1 if self.references is None else len(self.references)


def comparison(
    features: Array | Tensor,
    labels: Array | Tensor,
    *,
    references: Array | Tensor | None = None,
    reference_labels: Array | Tensor | None = None,
    metric: Metric = "euclidean",
    normalize: bool = False,
    per_class: int | None = None,
    seed: int = 0,
) -> Comparison:
    """Check what was given, take the balanced subset of the samples, and scale the features.

    >>> import numpy as np
    >>> comparison(np.array([[1], [2], [4]]), np.array([0, 0, 1]), per_class=1).labels
    tensor([0, 1])
    """
    check_choice("metric", metric, get_args(Metric))
    if not isinstance(normalize, bool):
        raise UsageError(f"normalize {normalize!r} is neither True nor False")
    if (references is None) != (reference_labels is None):
        raise UsageError("references and reference_labels belong together: give both or neither")
    samples = checked_features(features, least=2 if references is None else 1)
    classes = checked_labels(labels, samples)
    others = other_classes = rows = None
    if references is not None and reference_labels is not None:
        samples, others = checked_references(references, samples)
        other_classes = checked_labels(reference_labels, others, "reference_labels")
    if per_class is not None:
        rows = balanced_subset(classes, per_class, seed)
        samples, classes = checked_features(samples[rows], least=2 if others is None else 1), classes[rows]
    samples, others = _scaled(samples, others, metric, normalize)
    return Comparison(samples, classes, others, other_classes, rows)


def _scaled(
    samples: Tensor, references: Tensor | None, metric: Metric, normalize: bool
) -> tuple[Tensor, Tensor | None]:
    what = "z-scored features" if normalize else "features"
    if normalize:
        samples, scored = z_scored(samples, references)
        references = None if references is None else scored
    if metric == "euclidean":
        return in_range(samples, references)
    return unit_length(samples, what), None if references is None else unit_length(references, "references")


def checked_order(order: int, compared: Comparison) -> int:
    """The order, if every sample has that many neighbours.

    Raises :class:`UsageError` for anything else, and says which is the largest.
    """
    try:
        number = 0 if isinstance(order, bool) else operator.index(order)
    except TypeError:
        number = 0
    if number < 1:
        raise UsageError(f"order {order!r} is not a number of neighbours: expected an integer from 1")
    if number > compared.largest_order:
        whose = "other samples" if compared.references is None else "references"
        raise UsageError(
            f"order {number} asks for more neighbours than the {compared.largest_order} {whose} there are; "
            f"the largest order is {compared.largest_order}"
        )
    return number


def checked_seed(seed: int) -> int:
    """The seed, if random generators take it."""
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**63:
        raise UsageError(f"seed {seed!r} is not an integer from 0 to 2^63 - 1")
    return seed


def checked_budget(memory_budget: int) -> int:
    """The memory budget, if it is a number of bytes; more than any machine has is as good as any."""
    if isinstance(memory_budget, bool) or not isinstance(memory_budget, int) or memory_budget < 1:
        raise UsageError(f"memory_budget {memory_budget!r} is not a positive number of bytes")
    return min(memory_budget, 2**50)


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
