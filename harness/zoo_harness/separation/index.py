"""Compute the Separation Index (SI) and related scores: how often the nearest neighbours of a sample have its label.

Let N_r(i) be the r samples nearest to sample i, without i itself, and y_i the label of sample i, for n samples:

    SI       = (1/n) sum_i [the nearest other sample of i has the label y_i]
    high_r   = (1/n) sum_i [all of N_r(i) have the label y_i]
    soft_r   = (1/n) sum_i (fraction of N_r(i) that has the label y_i)
    anti_r   = (1/n) sum_i [none of N_r(i) has the label y_i]
    centre   = (1/n) sum_i [the nearest class mean is the mean of class y_i]

Each score lies in [0, 1]. SI = high_1 = soft_1 = 1 - anti_1 is the accuracy of leave-one-out 1-nearest-neighbour
classification. The page docs/separation.md describes the scores in detail and cites the papers. A single neighbour
search is enough to compute all scores of all orders.
"""

from __future__ import annotations

import math
from typing import Unpack

import torch
from torch import Tensor

from zoo_harness.separation.inputs import Options, ScoringInputs, prepare_inputs
from zoo_harness.separation.knn.search import MEMORY_BUDGET
from zoo_harness.separation.label_agreement import LabelAgreement, agreement_with_centres, agreement_with_neighbours
from zoo_harness.separation.result import Score, Separation, SeparationIndex
from zoo_harness.separation.scores import DEFAULT_ORDER, SCORES, ScoreDefinition
from zoo_harness.separation.standard_errors import errors_of_mean
from zoo_harness.separation.validation import Array


def separation(
    features: Array | Tensor, labels: Array | Tensor, order: int = DEFAULT_ORDER, **options: Unpack[Options]
) -> Separation:
    """Compute SI, centre SI, and the high-order, soft and anti SI of orders 1 to ``order``, with standard errors.

    ``features``: (N, D), real and finite, with any strides, on any device. ``labels``: (N,) non-negative integers; the
    classes are the labels that occur. ``order``: the largest number of neighbours; at most N - 1, or at most M if there
    are references. The options:

    - ``references=None``: an (M, D) array. If references are given, the neighbours of each sample are references
      instead of other samples. Samples and references need not have the same classes.
    - ``reference_labels=None``: (M,), the labels of the references.
    - ``metric="euclidean"``: the distance between samples. The metric "cosine" scales rows to unit length.
    - ``normalize=False``: if true, z-score each feature by the mean and standard deviation of the references, or of the
      samples if there are no references. A constant feature becomes 0.
    - ``per_class=None``: the number of samples to choose at random from each class; ``None`` scores all samples.
    - ``seed=0``: the random seed for choosing samples and for the bootstrap.
    - ``memory_budget=768 * 2**20``: bytes of working memory. The input, the result and float64 copies of the input do
      not count towards the budget. The metric "cosine", ``normalize`` and integers of 32 bits or more need float64
      copies.

    Raises :class:`UsageError` for invalid shapes, types and orders, and :class:`DataError` for invalid values.

    >>> import numpy as np
    >>> result = separation(np.array([[0.0], [1.0], [4.0], [6.0], [6.5]]), np.array([0, 0, 0, 1, 1]))
    >>> result.si.value, result.high[2].value, result.soft[2].value, result.anti[2].value, result.centre.value
    (0.8, 0.4, 0.6, 0.2, 0.8)
    """
    inputs = prepare_inputs(features, labels, **options)
    order, used = inputs.checked_order(order), inputs.options
    neighbours = agreement_with_neighbours(inputs, order)
    agreements = {"samples": neighbours, "centres": agreement_with_centres(inputs)}
    return Separation(
        n=len(inputs.labels),
        classes=inputs.classes[0],
        references=None if inputs.references is None else len(inputs.references),
        order=order,
        metric=used.metric,
        normalize=used.normalize,
        per_class=used.per_class,
        seed=used.seed,
        scores={
            each.key: {r: _score(each, r, agreements[each.neighbours], inputs) for r in each.orders(order)}
            for each in SCORES
        },
        ties=neighbours.ties,
        duplicates=neighbours.duplicates,
        duplicates_unlike=neighbours.duplicates_other_label,
        nearest=neighbours.nearest,
        rows=inputs.rows,
    )


def separation_index(
    features: Array | Tensor, labels: Array | Tensor, *, memory_budget: int = MEMORY_BUDGET
) -> SeparationIndex:
    """Return the fraction of samples whose nearest other sample, in Euclidean distance, has the sample's label.

    ``features``: (N, D), real and finite, at least two rows and one column, with any strides, on any device.
    ``labels``: (N,) non-negative integers. If a class has only one sample, this sample counts as a miss. If several
    samples are equally near, the sample with the lowest index is the neighbour. The function :func:`separation`
    computes more scores and accepts references.

    ``memory_budget``: bytes of working memory, not counting the input. Even if the budget is smaller, the search uses
    about 300 bytes per sample, and memory for a few rows. Floating-point features of 16 to 64 bits and integers of 8 or
    16 bits are not copied. Features of other dtypes are first copied to float64.

    Raises :class:`UsageError` for invalid shapes and types, and :class:`DataError` for invalid values.

    >>> import numpy as np
    >>> features = np.array([[0.0], [1.0], [4.0], [6.0], [6.5]])
    >>> separation_index(features, np.array([0, 0, 0, 1, 1])).value
    0.8
    """
    agreement = agreement_with_neighbours(prepare_inputs(features, labels, memory_budget=memory_budget), 1)
    hits, fewest, most = agreement.counts[:, :, 0].unbind(1)
    value = int(hits.sum()) / len(hits)
    return SeparationIndex(
        value=value,
        standard_error=math.sqrt(value * (1 - value) / len(hits)),
        n=len(hits),
        ties=agreement.ties,
        tied_disagreements=int((fewest != most).sum()),
        nearest=agreement.nearest[:, 0],
    )


def high_order_si(
    features: Array | Tensor, labels: Array | Tensor, order: int = DEFAULT_ORDER, **options: Unpack[Options]
) -> Score:
    """Return the fraction of samples whose nearest neighbours all have the sample's label.

    ``order``: the number of nearest neighbours; if ``order`` is 1, the fraction is the Separation Index.

    ``options``: the keyword arguments of :func:`separation`.

    >>> import numpy as np
    >>> high_order_si(np.array([[0], [1], [3], [7], [8], [9]]), np.array([0, 0, 0, 1, 1, 1])).value
    1.0
    """
    return _single_score("high", order, prepare_inputs(features, labels, **options))


def soft_si(
    features: Array | Tensor, labels: Array | Tensor, order: int = DEFAULT_ORDER, **options: Unpack[Options]
) -> Score:
    """Return the fraction of a sample's nearest neighbours that have the sample's label, averaged over all samples.

    ``order``: the number of nearest neighbours; if ``order`` is 1, the mean is the Separation Index.

    ``options``: the keyword arguments of :func:`separation`.

    >>> import numpy as np
    >>> soft_si(np.array([[0], [1], [3], [7]]), np.array([0, 0, 1, 1])).value
    0.375
    """
    return _single_score("soft", order, prepare_inputs(features, labels, **options))


def anti_si(
    features: Array | Tensor, labels: Array | Tensor, order: int = DEFAULT_ORDER, **options: Unpack[Options]
) -> Score:
    """Return the fraction of samples whose nearest neighbours all have other labels than the sample.

    ``order``: the number of nearest neighbours. ``options``: the keyword arguments of :func:`separation`.

    >>> import numpy as np
    >>> anti_si(np.array([[0], [1], [3], [7]]), np.array([0, 0, 1, 1])).per_class
    {0: 0.0, 1: 0.5}
    """
    return _single_score("anti", order, prepare_inputs(features, labels, **options))


def centre_si(features: Array | Tensor, labels: Array | Tensor, **options: Unpack[Options]) -> Score:
    """Return the fraction of samples whose nearest class mean is the mean of their own class.

    The mean of a class includes the sample itself. If references are given, the class means are computed from the
    references. ``options``: the keyword arguments of :func:`separation`.

    >>> import numpy as np
    >>> centre_si(np.array([[0], [1], [2], [7]]), np.array([0, 0, 1, 1])).value
    0.75
    """
    return _single_score("centre", 1, prepare_inputs(features, labels, **options))


def _single_score(key: str, order: int, inputs: ScoringInputs) -> Score:
    """Compute one score for one number of neighbours. ``key``: the score's key in ``SCORES``."""
    definition = next(each for each in SCORES if each.key == key)
    if definition.neighbours == "centres":
        return _score(definition, 1, agreement_with_centres(inputs), inputs)
    order = inputs.checked_order(order)
    return _score(definition, order, agreement_with_neighbours(inputs, order), inputs)


def _score(definition: ScoreDefinition, order: int, agreement: LabelAgreement, inputs: ScoringInputs) -> Score:
    (counts, max_count), (fewest, _), (most, _) = map(definition.function, agreement.neighbourhoods(order))
    numbers = counts.to(torch.float64 if counts.is_floating_point() else torch.int64)
    classes, of_sample = inputs.classes
    sums = numbers.new_zeros(len(classes)).index_add_(0, of_sample, numbers).tolist()
    errors = definition.errors or errors_of_mean
    standard_error, bootstrap_error = errors(numbers, max_count, agreement.partners, inputs.options.seed)
    return Score(
        name=definition.title,
        order=order,
        value=numbers.sum().item() / (max_count * len(numbers)),
        standard_error=standard_error,
        bootstrap_error=bootstrap_error,
        tied=int((fewest != most).sum()),
        per_class={label: total / (max_count * classes[label]) for label, total in zip(classes, sums, strict=True)},
        counts=counts,
        max_count=max_count,
    )
