"""The Separation Index (SI) and its family: how often the nearest neighbours of a sample bear its label.

With N_r(i) the r samples nearest to sample i, itself excluded, and y the labels of n samples,

    SI       = (1/n) sum_i [the nearest other sample of i bears y_i]
    high_r   = (1/n) sum_i [all of N_r(i) bear y_i]
    soft_r   = (1/n) sum_i (share of N_r(i) that bear y_i)
    anti_r   = (1/n) sum_i [none of N_r(i) bears y_i]
    centre   = (1/n) sum_i [the nearest class mean is that of y_i]

Each lies in [0, 1]. SI = high_1 = soft_1 = 1 - anti_1 is the accuracy of leave-one-out 1-nearest-neighbour
classification; it is 1 once the classes separate, however far apart they are. In the cross variants neighbours and
class means are those of a reference set, so that SI is the accuracy of a 1-nearest-neighbour classifier made of it.

Sources: M. Kalhor, A. Kalhor and Rahmani 2020, arXiv 2012.13717; A. Kalhor et al. 2019. Other measures go by the same
letters; this is what ours means. docs/separation.md tells more.

One search serves all orders and scores; :mod:`zoo_harness.agreement` says what ties do.
"""

from __future__ import annotations

import math
from typing import Any, Unpack

from torch import Tensor

from zoo_harness.separation.inputs import (
    Comparison,
    Metric,
    Options,
    checked_budget,
    checked_order,
    checked_seed,
    comparison,
)
from zoo_harness.separation.knn.search import MEMORY_BUDGET
from zoo_harness.separation.label_agreement import Family, with_centres, with_neighbours
from zoo_harness.separation.result import Separation, SeparationIndex
from zoo_harness.separation.score import Classes, Score, score
from zoo_harness.separation.validation import Array


def separation(
    features: Array | Tensor,
    labels: Array | Tensor,
    order: int = 2,
    *,
    references: Array | Tensor | None = None,
    reference_labels: Array | Tensor | None = None,
    metric: Metric = "euclidean",
    normalize: bool = False,
    per_class: int | None = None,
    seed: int = 0,
    memory_budget: int = MEMORY_BUDGET,
) -> Separation:
    """Return SI, high-order, soft and anti SI of orders 1 to ``order`` and centre SI, with errors, from one search.

    ``features``: (N, D), real and finite; any strides, any device. ``labels``: (N,) integers from 0, gaps allowed:
    the classes are the labels found. ``order``: at most N - 1, or M. ``references``: (M, D), with
    ``reference_labels`` (M,): compare the samples with these, not with each other; labels that only one of the two
    sets has are allowed and never agree. ``metric``: "euclidean", or "cosine", which scales rows to unit length.
    ``normalize``: z-score each feature first, by mean and deviation of the references, or of the samples where there
    are none; a constant feature becomes 0. ``per_class``: score a subset of so many samples of each class, chosen by
    ``seed``, which seeds the bootstrap too. ``memory_budget``: bytes to work in, beyond the input, its copies in
    float64 (which metric "cosine", ``normalize`` and integers of 32 bits or more need) and the result.

    Raises :class:`UsageError` for shapes, types and orders that cannot be meant, :class:`DataError` for values.

    >>> import numpy as np
    >>> result = separation(np.array([[0.0], [1.0], [4.0], [6.0], [6.5]]), np.array([0, 0, 0, 1, 1]))
    >>> result.si.value, result.high[2].value, result.soft[2].value, result.anti[2].value, result.centre.value
    (0.8, 0.4, 0.6, 0.2, 0.8)
    """
    compared = comparison(
        features,
        labels,
        references=references,
        reference_labels=reference_labels,
        metric=metric,
        normalize=normalize,
        per_class=per_class,
        seed=checked_seed(seed),
    )
    order = checked_order(order, compared)
    agreement = with_neighbours(compared, order, checked_budget(memory_budget))
    centres = with_centres(compared, memory_budget)
    classes = Classes.of(compared.labels)
    paired = references is None
    orders = range(1, order + 1)
    high = {r: score("high", r, agreement, classes, seed=seed, paired=paired) for r in orders}
    return Separation(
        n=len(compared.labels),
        classes=dict(zip(classes.labels, classes.sizes, strict=True)),
        references=None if compared.references is None else len(compared.references),
        order=order,
        metric=metric,
        normalize=normalize,
        per_class=per_class,
        seed=seed,
        si=high[1],
        high=high,
        soft={r: score("soft", r, agreement, classes, seed=seed, paired=paired) for r in orders},
        anti={r: score("anti", r, agreement, classes, seed=seed, paired=paired) for r in orders},
        centre=score("high", 1, centres, classes, seed=seed, paired=False, centre=True),
        ties=agreement.ties,
        duplicates=agreement.equal,
        duplicates_unlike=agreement.equal_unlike,
        nearest=agreement.nearest,
        rows=compared.rows,
    )


def separation_index(
    features: Array | Tensor, labels: Array | Tensor, *, memory_budget: int = MEMORY_BUDGET
) -> SeparationIndex:
    """Return the share of samples whose nearest other sample, in Euclidean distance, has the same label.

    ``features``: (N, D), real and finite, two rows and one column or more; any strides, any device. ``labels``:
    (N,) integers from 0, gaps allowed. A sample whose class has no other sample counts as a miss. Of several
    equally near samples the one with the lowest index counts. :func:`separation` tells more, and takes references.

    ``memory_budget``: bytes, beyond the input, to work in. About 300 bytes a sample and a few rows are needed
    however little is allowed, and features other than 16 to 64 bit floats and 8 or 16 bit integers are first
    copied to float64.

    Raises :class:`UsageError` for shapes and types that cannot be meant, :class:`DataError` for values.

    >>> import numpy as np
    >>> features = np.array([[0.0], [1.0], [4.0], [6.0], [6.5]])
    >>> separation_index(features, np.array([0, 0, 0, 1, 1])).value
    0.8
    """
    checked_budget(memory_budget)
    agreement = with_neighbours(comparison(features, labels), 1, memory_budget)
    n = len(agreement.alike)
    value = int(agreement.alike.sum()) / n
    return SeparationIndex(
        value=value,
        standard_error=math.sqrt(value * (1 - value) / n),
        n=n,
        ties=agreement.ties,
        tied_disagreements=agreement.tied[0].soft,
        nearest=agreement.nearest[:, 0],
    )


def high_order_si(
    features: Array | Tensor, labels: Array | Tensor, order: int = 2, **options: Unpack[Options]
) -> Score:
    """Return the share of samples of which all ``order`` nearest neighbours bear their label; order 1 is SI.

    Takes what :func:`separation` takes; so do the functions below.

    >>> import numpy as np
    >>> high_order_si(np.array([[0], [1], [3], [7], [8], [9]]), np.array([0, 0, 0, 1, 1, 1])).value
    1.0
    """
    return _of_neighbours("high", features, labels, order, options)


def soft_si(features: Array | Tensor, labels: Array | Tensor, order: int = 2, **options: Unpack[Options]) -> Score:
    """Return the mean share of the ``order`` nearest neighbours that bear the sample's label; order 1 is SI.

    >>> import numpy as np
    >>> soft_si(np.array([[0], [1], [3], [7]]), np.array([0, 0, 1, 1])).value
    0.375
    """
    return _of_neighbours("soft", features, labels, order, options)


def anti_si(features: Array | Tensor, labels: Array | Tensor, order: int = 2, **options: Unpack[Options]) -> Score:
    """Return the share of samples of which none of the ``order`` nearest neighbours bears their label.

    >>> import numpy as np
    >>> anti_si(np.array([[0], [1], [3], [7]]), np.array([0, 0, 1, 1])).per_class
    {0: 0.0, 1: 0.5}
    """
    return _of_neighbours("anti", features, labels, order, options)


def centre_si(features: Array | Tensor, labels: Array | Tensor, **options: Unpack[Options]) -> Score:
    """Return the share of samples whose nearest class mean is that of their class.

    A sample counts towards the mean of its class; with references the means are theirs.

    >>> import numpy as np
    >>> centre_si(np.array([[0], [1], [2], [7]]), np.array([0, 0, 1, 1])).value
    0.75
    """
    compared, seed, memory_budget = _compared(features, labels, options)
    agreement = with_centres(compared, memory_budget)
    return score("high", 1, agreement, Classes.of(compared.labels), seed=seed, paired=False, centre=True)


def _of_neighbours(
    family: Family, features: Array | Tensor, labels: Array | Tensor, order: int, options: Options
) -> Score:
    compared, seed, memory_budget = _compared(features, labels, options)
    order = checked_order(order, compared)
    agreement = with_neighbours(compared, order, memory_budget)
    classes = Classes.of(compared.labels)
    return score(family, order, agreement, classes, seed=seed, paired=compared.references is None)


def _compared(features: Array | Tensor, labels: Array | Tensor, options: Options) -> tuple[Comparison, int, int]:
    """Return what is compared, the seed and the memory budget."""
    memory_budget = checked_budget(options.get("memory_budget", MEMORY_BUDGET))
    seed = checked_seed(options.get("seed", 0))
    given: dict[str, Any] = {name: value for name, value in options.items() if name != "memory_budget"}
    return comparison(features, labels, **given), seed, memory_budget
