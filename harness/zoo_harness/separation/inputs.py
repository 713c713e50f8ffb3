"""Prepare the inputs of a separation score: check the arguments, choose a balanced subset, and scale the features.

Scaled features are float64. If there are references, samples and references are scaled by the statistics of the
references.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypedDict, Unpack, get_args

import numpy as np
import torch
from torch import Tensor

from zoo.errors import UsageError, check_choice
from zoo_harness.separation.knn.exact_distances import by_parts, chunk_rows
from zoo_harness.separation.knn.search import MEMORY_BUDGET
from zoo_harness.separation.validation import (
    Array,
    checked_features,
    checked_integer,
    checked_labels,
    checked_references,
    refuse_rows,
)

Metric = Literal["euclidean", "cosine"]

# If the largest feature is near 2^480, sums of squares do not overflow. Squares of differences do not underflow unless
# the difference is more than 2^500 times smaller than the largest feature.
TOP_EXPONENT, LOWEST_EXPONENT = 480, -40


class Options(TypedDict, total=False):
    """The keyword arguments of every separation score.

    The documentation of :func:`zoo.separation` explains each argument.
    """

    references: Array | Tensor | None
    reference_labels: Array | Tensor | None
    metric: Metric
    normalize: bool
    per_class: int | None
    seed: int
    memory_budget: int


@dataclass(eq=False, kw_only=True)
class ScoringOptions:
    """The keyword arguments of :func:`zoo.separation` with defaults, validated as far as possible without features."""

    references: Array | Tensor | None = None
    reference_labels: Array | Tensor | None = None
    metric: Metric = "euclidean"
    normalize: bool = False
    per_class: int | None = None
    seed: int = 0
    memory_budget: int = MEMORY_BUDGET

    def __post_init__(self) -> None:
        check_choice("metric", self.metric, get_args(Metric))
        if not isinstance(self.normalize, bool):
            message = f"normalize is wrong: {self.normalize!r}; expected True or False"
            raise UsageError(message, code="option-value", option="normalize")
        if (self.references is None) != (self.reference_labels is None):
            code = "option-unused" if self.references is None else "missing-labels"
            raise UsageError("references or reference_labels are missing; expected both or neither", code=code)
        if self.per_class is not None:
            self.per_class = checked_integer("per_class", self.per_class, 1)
        self.seed = checked_integer("seed", self.seed, 0, 2**63 - 1)
        self.memory_budget = min(checked_integer("memory_budget", self.memory_budget, 1), 2**50)  # at most 1 PiB


@dataclass(frozen=True, eq=False)
class ScoringInputs:
    """Validated and scaled samples and references, from which Euclidean distances can be computed.

    ``features``: (N, D). ``labels``: (N,) int64. ``references``: (M, D). ``reference_labels``: (M,) int64. If the
    samples are compared with each other, ``references`` and ``reference_labels`` are ``None``. ``rows``: (N,) int64,
    the row numbers of a balanced subset in the user's array; ``None`` if all rows are used.
    """

    features: Tensor
    labels: Tensor
    references: Tensor | None
    reference_labels: Tensor | None
    rows: Tensor | None
    options: ScoringOptions

    def checked_order(self, order: int) -> int:
        """Return the order, or raise :class:`UsageError` if there are fewer candidate neighbours than ``order``."""
        if self.references is None:
            return checked_integer("order", order, 1, len(self.features) - 1, ", the number of other samples")
        return checked_integer("order", order, 1, len(self.references), ", the number of references")

    @cached_property
    def classes(self) -> tuple[dict[int, int], Tensor]:
        """Return a dictionary from sorted labels to numbers of samples, and the class index of each sample.

        The class index of a sample is the position of its label among the sorted labels.
        """
        labels, of_sample, sizes = self.labels.unique(return_inverse=True, return_counts=True)
        return dict(zip(labels.tolist(), sizes.tolist(), strict=True)), of_sample


def prepare_inputs(features: Array | Tensor, labels: Array | Tensor, **given: Unpack[Options]) -> ScoringInputs:
    """Check the arguments, choose the balanced subset of the samples, and scale the features.

    >>> prepare_inputs(np.array([[1], [2], [4]]), np.array([0, 0, 1]), per_class=1).labels
    tensor([0, 1])
    """
    options = ScoringOptions(**given)
    least = 2 if options.references is None else 1
    samples = checked_features(features, least=least)
    classes = checked_labels(labels, samples)
    others = other_classes = rows = None
    if options.references is not None and options.reference_labels is not None:
        samples, others = checked_references(options.references, samples)
        other_classes = checked_labels(options.reference_labels, others, "reference_labels")
    if options.per_class is not None:
        rows = balanced_subset(classes, options.per_class, options.seed)
        samples, classes = checked_features(samples[rows], least=least), classes[rows]
    if options.normalize:
        samples, others = z_scored(samples, others)
    if options.metric == "euclidean":
        samples, others = in_range(samples, others)
    else:
        samples = unit_length(samples, "z-scored features" if options.normalize else "features")
        others = None if others is None else unit_length(others, "references")
    return ScoringInputs(samples, classes, others, other_classes, rows, options)


def balanced_subset(labels: Tensor, per_class: int, seed: int) -> Tensor:
    """Choose samples at random, ``per_class`` from each class in ``labels`` (N,), and return their sorted indices.

    Raises :class:`UsageError` if a class has fewer than ``per_class`` samples.

    >>> balanced_subset(torch.tensor([0, 0, 7, 7, 7]), 2, seed=0)
    tensor([0, 1, 2, 4])
    """
    given = labels.cpu().numpy()
    classes, counts = np.unique(given, return_counts=True)
    smallest = f", because class {classes[counts.argmin()]} has no more samples"
    checked_integer("per_class", per_class, 1, int(counts.min()), smallest)
    generator = np.random.default_rng(seed)
    chosen = [generator.permutation(np.flatnonzero(given == name))[:per_class] for name in classes]
    return torch.from_numpy(np.sort(np.concatenate(chosen))).to(labels.device)


def z_scored(features: Tensor, references: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
    """Standardise each column of features and references by the mean and standard deviation of the references.

    If there are no references, the mean and standard deviation are computed from the features. A column that is
    constant among the references becomes 0. The standard deviation divides by n; dividing by n - 1 would scale all
    distances by the same factor and would not change any score.

    >>> z_scored(torch.tensor([[0, 5], [4, 5]]))[0]
    tensor([[-1.,  0.],
            [ 1.,  0.]], dtype=torch.float64)
    """
    factor, mean, deviation = _moments(features if references is None else references)

    def standardise(part: Tensor) -> Tensor:
        scores = (part * factor - mean) / deviation
        return torch.where(deviation > 0, scores, 0.0)

    samples = _converted(features, standardise)
    if references is None:
        return samples, None
    expected = "samples and references in the same units"
    refuse_rows(~samples.isfinite().all(1), "z-scores are too large for float64", expected, "z-score-range")
    return samples, _converted(references, standardise)


def unit_length(features: Tensor, what: str) -> Tensor:
    """Divide each row by its length, so that pairs of rows with a smaller Euclidean distance have a larger cosine.

    ``what``: the name of the features in error messages. Raises :class:`DataError` for rows of zeros, because a row of
    zeros has no direction.

    >>> unit_length(torch.tensor([[3, 4]]), "features")
    tensor([[0.6000, 0.8000]], dtype=torch.float64)
    """
    # Scale the largest number of each row to about 1 first, because the length of a row near 1e200 would overflow.
    converted = _converted(features, lambda part: part * _power_of_two(part.abs().amax(1, keepdim=True)))
    lengths = torch.linalg.vector_norm(converted, dim=1, keepdim=True)
    expected = "rows with a number other than 0; try to exclude these rows, or metric 'euclidean'"
    refuse_rows(lengths[:, 0] == 0, f"{what} are all 0", expected, "zero-rows")
    return converted.div_(lengths)


def in_range(features: Tensor, references: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
    """Multiply features and references by a power of two if their squared distances could overflow or underflow.

    If squared distances can neither overflow nor underflow, the function returns the given tensors. Scaling keeps the
    order of distances, because multiplying by a power of two is exact.

    >>> in_range(torch.tensor([[1e-300]], dtype=torch.float64))[0].square() > 1
    tensor([[True]])
    """
    if features.dtype != torch.float64:
        return features, references
    given = [features] if references is None else [features, references]
    exponent = math.frexp(max(float(bound.abs()) for rows in given for bound in rows.aminmax()))[1]
    if LOWEST_EXPONENT <= exponent <= TOP_EXPONENT:
        return features, references
    factor = math.ldexp(1.0, min(TOP_EXPONENT - exponent, 1000))  # without the limit, subnormal features would overflow
    return features * factor, None if references is None else references * factor


def _moments(features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Scale columns by powers of two; return these powers, and the means and standard deviations of the scaled columns.

    The standard deviation of a constant column is exactly 0.
    """
    lowest, highest = (bound.to(torch.float64) for bound in features.aminmax(dim=0))
    factor = _power_of_two(torch.maximum(lowest.abs(), highest.abs()))

    def mean_of(term: Callable[[Tensor], Tensor]) -> Tensor:
        parts = features.split(chunk_rows(features))
        return sum((term(part.to(torch.float64) * factor).sum(0) for part in parts), 0 * factor) / len(features)

    mean = mean_of(lambda scaled: scaled)
    variance = mean_of(lambda scaled: (scaled - mean).square_())
    # The variance of a constant column may differ from 0, because its mean may have a rounding error.
    return factor, mean, torch.where(lowest == highest, 0.0, variance.sqrt())


def _power_of_two(largest: Tensor) -> Tensor:
    exponents = torch.frexp(largest).exponent.clamp(-1000, 1000).to(torch.float64)
    return torch.exp2(-exponents)


def _converted(features: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
    result = torch.empty(features.shape, dtype=torch.float64, device=features.device)
    return by_parts(lambda part: function(part.to(torch.float64)), chunk_rows(features), result, features)
