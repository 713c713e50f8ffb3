"""The Separation Index (SI) and its family: how often the nearest neighbours of a sample have its label.

With N_r(i) the r samples nearest to sample i, itself excluded, and y the labels of n samples,

    SI       = (1/n) sum_i [the nearest other sample of i has the label y_i]
    high_r   = (1/n) sum_i [all of N_r(i) have the label y_i]
    soft_r   = (1/n) sum_i (fraction of N_r(i) that has the label y_i)
    anti_r   = (1/n) sum_i [none of N_r(i) has the label y_i]
    centre   = (1/n) sum_i [the nearest class mean is that of y_i]

Each lies in [0, 1]. SI = high_1 = soft_1 = 1 - anti_1 is the accuracy of leave-one-out 1-nearest-neighbour
classification. docs/separation.md has the details and the sources. One search serves all orders and scores.
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
    """Return SI, high-order, soft and anti SI of orders 1 to ``order`` and centre SI, with errors, from one search.

    ``features``: (N, D), real and finite; any strides, any device. ``labels``: (N,) integers from 0, gaps allowed; the
    classes are the labels that occur. ``order``: at most N - 1, or M. The options:

    - ``references=None``: (M, D), with ``reference_labels=None``, (M,): compare the samples with these instead of each
      other. Labels that only one of the two sets has are allowed and never agree.
    - ``metric="euclidean"``, or "cosine", which scales rows to unit length.
    - ``normalize=False``: if true, z-score each feature first, by mean and deviation of the references, or of the
      samples if there are no references; a constant feature becomes 0.
    - ``per_class=None``: score a subset of this number of samples of each class.
    - ``seed=0``: of the subset and of the bootstrap.
    - ``memory_budget=768 * 2**20``: bytes of working memory, beyond the input, its copies in float64 (needed for metric
      "cosine", ``normalize`` and integers of 32 bits or more) and the result.

    Raises :class:`UsageError` for invalid shapes, types and orders, :class:`DataError` for invalid values.

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
    """Return the fraction of samples whose nearest other sample, in Euclidean distance, has the same label.

    ``features``: (N, D), real and finite, at least two rows and one column; any strides, any device. ``labels``: (N,)
    integers from 0, gaps allowed. A sample whose class has no other sample counts as a miss. Of several equally near
    samples the one with the lowest index counts. :func:`separation` returns more and accepts references.

    ``memory_budget``: bytes of working memory beyond the input. The search needs about 300 bytes a sample and a few
    rows even if the budget is smaller. Features other than 16 to 64 bit floats and 8 or 16 bit integers are first
    copied to float64.

    Raises :class:`UsageError` for invalid shapes and types, :class:`DataError` for invalid values.

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
    """Return the fraction of samples whose ``order`` nearest neighbours all have their label; order 1 is SI.

    Takes the options of :func:`separation`, as do the functions below.

    >>> import numpy as np
    >>> high_order_si(np.array([[0], [1], [3], [7], [8], [9]]), np.array([0, 0, 0, 1, 1, 1])).value
    1.0
    """
    return _single_score("high", order, prepare_inputs(features, labels, **options))


def soft_si(
    features: Array | Tensor, labels: Array | Tensor, order: int = DEFAULT_ORDER, **options: Unpack[Options]
) -> Score:
    """Return the mean fraction of the ``order`` nearest neighbours that have the sample's label; order 1 is SI.

    >>> import numpy as np
    >>> soft_si(np.array([[0], [1], [3], [7]]), np.array([0, 0, 1, 1])).value
    0.375
    """
    return _single_score("soft", order, prepare_inputs(features, labels, **options))


def anti_si(
    features: Array | Tensor, labels: Array | Tensor, order: int = DEFAULT_ORDER, **options: Unpack[Options]
) -> Score:
    """Return the fraction of samples that have no sample of their label among their ``order`` nearest neighbours.

    >>> import numpy as np
    >>> anti_si(np.array([[0], [1], [3], [7]]), np.array([0, 0, 1, 1])).per_class
    {0: 0.0, 1: 0.5}
    """
    return _single_score("anti", order, prepare_inputs(features, labels, **options))


def centre_si(features: Array | Tensor, labels: Array | Tensor, **options: Unpack[Options]) -> Score:
    """Return the fraction of samples whose nearest class mean is that of their class.

    A sample counts towards the mean of its class; with references the means are theirs.

    >>> import numpy as np
    >>> centre_si(np.array([[0], [1], [2], [7]]), np.array([0, 0, 1, 1])).value
    0.75
    """
    return _single_score("centre", 1, prepare_inputs(features, labels, **options))


def _single_score(key: str, order: int, inputs: ScoringInputs) -> Score:
    """Return one score of one order, without computing the others."""
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
