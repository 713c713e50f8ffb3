"""The inputs of a score: samples to compare with each other or with references, checked and scaled."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypedDict, get_args

import numpy as np
import torch
from torch import Tensor

from zoo.errors import UsageError, check_choice
from zoo_harness.separation.scaling import in_range, unit_length, z_scored
from zoo_harness.separation.validation import Array, checked_features, checked_labels, checked_references

Metric = Literal["euclidean", "cosine"]


class Options(TypedDict, total=False):
    """The options of every score, besides features, labels and order (see :func:`zoo.separation`)."""

    references: Array | Tensor | None
    reference_labels: Array | Tensor | None
    metric: Metric
    normalize: bool
    per_class: int | None
    seed: int
    memory_budget: int


@dataclass(frozen=True, eq=False)
class Classes:
    """The classes of samples: their labels, ascending, their sizes, and the index of each sample's class, (N,)."""

    labels: list[int]
    sizes: list[int]
    of_sample: Tensor


@dataclass(frozen=True, eq=False)
class ScoringInputs:
    """Samples and the candidates for their neighbours, ready for Euclidean distances.

    ``features``: (N, D). ``labels``: (N,) int64. ``references``: (M, D) and ``reference_labels``: (M,) int64, or
    ``None`` for both if each sample is compared with the others. ``rows``: (N,) int64, the rows chosen from those
    given; ``None`` for all rows.
    """

    features: Tensor
    labels: Tensor
    references: Tensor | None
    reference_labels: Tensor | None
    rows: Tensor | None

    @property
    def largest_order(self) -> int:
        """The number of neighbours that a sample has."""
        return len(self.features) - 1 if self.references is None else len(self.references)

    @cached_property
    def classes(self) -> Classes:
        """The classes that occur among the samples."""
        labels, of_sample, sizes = self.labels.unique(return_inverse=True, return_counts=True)
        return Classes(labels.tolist(), sizes.tolist(), of_sample)


def prepare_inputs(
    features: Array | Tensor,
    labels: Array | Tensor,
    *,
    references: Array | Tensor | None = None,
    reference_labels: Array | Tensor | None = None,
    metric: Metric = "euclidean",
    normalize: bool = False,
    per_class: int | None = None,
    seed: int = 0,
) -> ScoringInputs:
    """Check the arguments, choose the balanced subset of the samples, and scale the features.

    >>> import numpy as np
    >>> prepare_inputs(np.array([[1], [2], [4]]), np.array([0, 0, 1]), per_class=1).labels
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
    return ScoringInputs(samples, classes, others, other_classes, rows)


def _scaled(
    samples: Tensor, references: Tensor | None, metric: Metric, normalize: bool
) -> tuple[Tensor, Tensor | None]:
    name = "z-scored features" if normalize else "features"
    if normalize:
        samples, scored = z_scored(samples, references)
        references = None if references is None else scored
    if metric == "euclidean":
        return in_range(samples, references)
    return unit_length(samples, name), None if references is None else unit_length(references, "references")


def checked_order(order: int, inputs: ScoringInputs) -> int:
    """Return the order if every sample has that many neighbours.

    Raises :class:`UsageError` for anything else; the message states the largest order.
    """
    try:
        number = 0 if isinstance(order, bool) else operator.index(order)
    except TypeError:
        number = 0
    if number < 1:
        raise UsageError(f"order {order!r} is not a number of neighbours: expected an integer from 1")
    if number > inputs.largest_order:
        candidates = "other samples" if inputs.references is None else "references"
        raise UsageError(
            f"order {number} asks for more neighbours than the {inputs.largest_order} {candidates} there are; "
            f"the largest order is {inputs.largest_order}"
        )
    return number


def checked_seed(seed: int) -> int:
    """Return the seed if random generators accept it."""
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**63:
        raise UsageError(f"seed {seed!r} is not an integer from 0 to 2^63 - 1")
    return seed


def checked_budget(memory_budget: int) -> int:
    """Return the memory budget if it is a number of bytes, at most 2^50: no machine has more."""
    if isinstance(memory_budget, bool) or not isinstance(memory_budget, int) or memory_budget < 1:
        raise UsageError(f"memory_budget {memory_budget!r} is not a positive number of bytes")
    return min(memory_budget, 2**50)


def checked_per_class(per_class: int) -> int:
    """Return the number of samples of each class if it is one."""
    if isinstance(per_class, bool) or not isinstance(per_class, int) or per_class < 1:
        raise UsageError(f"per_class {per_class!r} is not a positive number of samples")
    return per_class


def balanced_subset(labels: Tensor, per_class: int, seed: int) -> Tensor:
    """Return the indices, ascending, of ``per_class`` samples of each class that occurs in ``labels`` (N,).

    Raises :class:`UsageError` if a class has fewer.

    >>> balanced_subset(torch.tensor([0, 0, 7, 7, 7]), 2, seed=0)
    tensor([0, 1, 2, 4])
    """
    checked_per_class(per_class)
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
