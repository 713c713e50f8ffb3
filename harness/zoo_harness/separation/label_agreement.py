"""Which of the nearest neighbours of each sample bear its label, and for how many samples a tie decides that.

Every score is a function of this table: one search serves them all.

A tie: of the samples at exactly the distance of the last neighbour counted, only some may be among the neighbours.
The lowest indices are taken. Let ``inner`` neighbours be nearer, so that ``places = order - inner`` are left for
``tied`` samples, ``tied_alike`` of them alike. Any choice is possible, so the number alike among those taken could be
anything from max(0, places - (tied - tied_alike)) to min(places, tied_alike); a score depends on the tie if it is not
the same over this range. Ties among nearer neighbours change nothing: these are counted whatever their order.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from zoo_harness.separation.inputs import Comparison
from zoo_harness.separation.knn.expansion import Neighbours
from zoo_harness.separation.knn.search import nearest_neighbours

Family = Literal["high", "soft", "anti"]


@dataclass(frozen=True)
class Tied:
    """For how many samples a tie at one order decides the high-order, the soft and the anti SI."""

    high: int
    soft: int
    anti: int


@dataclass(frozen=True, eq=False)
class Agreement:
    """The nearest neighbours and whether they agree.

    ``nearest``: (N, order) int64, row numbers of the neighbours. ``alike``: (N, order), whether each bears the label
    of the sample. ``tied``: for each order from 1, how many samples depend on a tie. ``ties``: samples whose nearest
    distance is that of several neighbours. ``equal``: samples at distance 0 from a neighbour. ``equal_unlike``:
    those of them of which one such neighbour has another label.
    """

    nearest: Tensor
    alike: Tensor
    tied: tuple[Tied, ...]
    ties: int
    equal: int
    equal_unlike: int


def with_neighbours(compared: Comparison, order: int, memory_budget: int) -> Agreement:
    """Find the ``order`` nearest neighbours of each sample and whether they bear its label.

    >>> from zoo_harness.comparison import comparison
    >>> compared = comparison(torch.tensor([[0.0], [1.0], [3.0]]), torch.tensor([0, 0, 1]))
    >>> with_neighbours(compared, 2, MEMORY_BUDGET).alike
    tensor([[ True, False],
            [ True, False],
            [False, False]])
    """
    found = nearest_neighbours(
        compared.features,
        compared.labels,
        order,
        references=compared.references,
        reference_labels=compared.reference_labels,
        memory_budget=memory_budget,
    )
    others = compared.labels if compared.reference_labels is None else compared.reference_labels
    return _agreement(found, compared.labels, others, memory_budget)


def with_centres(compared: Comparison, memory_budget: int) -> Agreement:
    """Find the nearest class centre of each sample and whether it is that of its class; order 1.

    The centre of a class is the mean, in float64, of its references, or of its samples where there are none. Of
    equally near centres that of the lowest label counts. ``nearest`` are numbers of the classes, in their order.

    >>> from zoo_harness.comparison import comparison
    >>> compared = comparison(torch.tensor([[0.0], [1.0], [3.0]]), torch.tensor([0, 0, 1]))
    >>> with_centres(compared, MEMORY_BUDGET).nearest.tolist()
    [[0], [0], [1]]
    """
    members, labels = compared.features, compared.labels
    if compared.references is not None and compared.reference_labels is not None:
        members, labels = compared.references, compared.reference_labels
    names, classes = labels.unique(return_inverse=True)
    origin = _typical_row(members, memory_budget)
    centres = torch.zeros(len(names), members.shape[1], dtype=torch.float64, device=members.device)
    for part, place in _slices(members, memory_budget):
        centres.index_add_(0, classes[place], part.to(torch.float64) - origin)
    centres /= classes.bincount()[:, None]
    found = [
        nearest_neighbours(
            part.to(torch.float64) - origin,
            compared.labels[place],
            references=centres,
            reference_labels=names,
            memory_budget=memory_budget,
        )
        for part, place in _slices(compared.features, memory_budget)
    ]
    return _agreement(_joined(found), compared.labels, names, memory_budget)


def _typical_row(rows: Tensor, memory_budget: int) -> Tensor:
    """One of the rows, in float64, to see the others from: of some of them, the nearest to their median.

    Seen from a row, a mean of equal rows is exactly their own place, and an offset costs no digits; seen from an
    extreme one all the others would be one.
    """
    most = max(1, min(1024, memory_budget // (64 * rows.shape[1])))
    some = rows[:: -(-len(rows) // most)].to(torch.float64)
    return some[(some - some.median(0).values).abs().amax(1).argmin()]


def _slices(features: Tensor, memory_budget: int) -> Iterator[tuple[Tensor, slice]]:
    step = max(1, memory_budget // (32 * features.shape[1]))
    for start in range(0, len(features), step):
        place = slice(start, start + step)
        yield features[place], place


def _joined(found: list[Neighbours]) -> Neighbours:
    return Neighbours(
        torch.cat([part.indices for part in found]),
        torch.cat([part.squared_distances for part in found]),
        torch.cat([part.last_tied for part in found]),
        torch.cat([part.last_tied_same_label for part in found]),
    )


def _agreement(found: Neighbours, labels: Tensor, other_labels: Tensor, memory_budget: int) -> Agreement:
    n, order = found.indices.shape
    alike = torch.empty_like(found.indices, dtype=torch.bool)
    counts = torch.zeros(3, order, dtype=torch.int64, device=alike.device)
    first = torch.zeros(3, dtype=torch.int64, device=alike.device)
    step = max(1, memory_budget // (128 * order))
    for start in range(0, n, step):
        rows = slice(start, start + step)
        alike[rows] = other_labels[found.indices[rows]] == labels[rows, None]
        tied, tied_alike, inner, inner_alike = _ties(found, alike, rows)
        counts += _dependent(tied, tied_alike, inner, inner_alike)
        equal = found.squared_distances[rows, 0] == 0
        unlike = tied_alike[:, 0] < tied[:, 0]
        first += torch.stack([tied[:, 0] > 1, equal, equal & unlike]).sum(1)
    ties, equals, equals_unlike = first.tolist()
    tied_at = tuple(Tied(*column) for column in counts.T.tolist())
    return Agreement(found.indices, alike, tied_at, ties, equals, equals_unlike)


def _ties(found: Neighbours, alike: Tensor, rows: slice) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return tied, tied_alike, inner and the alike among the inner (see the module) of rows at every order."""
    distances = found.squared_distances[rows].contiguous()
    order = distances.shape[1]
    inner = torch.searchsorted(distances, distances)
    through = torch.searchsorted(distances, distances, right=True)
    alike_before = torch.nn.functional.pad(alike[rows].cumsum(1), (1, 0))
    inner_alike = alike_before.gather(1, inner)
    # At the last distance there may be more samples than were asked for; at smaller ones all are among the found.
    last = through == order
    tied = torch.where(last, found.last_tied[rows, None], through - inner)
    tied_alike = torch.where(
        last, found.last_tied_same_label[rows, None], alike_before.gather(1, through) - inner_alike
    )
    return tied, tied_alike, inner, inner_alike


def _dependent(tied: Tensor, tied_alike: Tensor, inner: Tensor, inner_alike: Tensor) -> Tensor:
    """Return how many rows depend on a tie: (3, order), for high-order, soft and anti SI."""
    places = torch.arange(1, tied.shape[1] + 1, device=tied.device) - inner
    least = (places - (tied - tied_alike)).clamp(min=0)
    most = torch.minimum(places, tied_alike)
    soft = least < most
    high = soft & (inner_alike == inner) & (most == places)
    anti = soft & (inner_alike == 0) & (least == 0)
    return torch.stack([high, soft, anti]).sum(1)
