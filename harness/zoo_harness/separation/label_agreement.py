"""Count the nearest neighbours that have a sample's label, for the best and the worst choice among tied neighbours.

Every separation score can be computed from these counts, so that one neighbour search is enough for all scores.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from zoo_harness.separation.inputs import ScoringInputs
from zoo_harness.separation.knn.exact_distances import by_parts, chunk_rows
from zoo_harness.separation.knn.neighbours import Neighbours
from zoo_harness.separation.knn.search import nearest_neighbours
from zoo_harness.separation.scores import Neighbourhood


@dataclass(frozen=True, eq=False)
class LabelAgreement:
    """The nearest neighbours of N samples, and the number of neighbours that have the sample's label.

    ``nearest``: (N, order) int64, the indices of the neighbours. ``counts``: (N, 3, order) int32, three numbers for
    each sample and order. The first number counts the neighbours in ``nearest`` that have the sample's label. The
    second and the third number are the smallest and the largest count for any choice among equally distant candidates.
    ``partners``: (N,), the nearest sample of each sample; ``None`` if neighbours are references or class means.
    ``ties``: the number of samples with several candidates at the smallest distance. ``duplicates``: the number of
    samples at distance 0 from a neighbour. ``duplicates_other_label``: the number of samples at distance 0 from a
    neighbour whose label is not the sample's label. ``chance``: the probability that a random neighbour of a random
    sample has the sample's label.
    """

    nearest: Tensor
    counts: Tensor
    partners: Tensor | None
    ties: int
    duplicates: int
    duplicates_other_label: int
    chance: float

    def neighbourhoods(self, order: int) -> tuple[Neighbourhood, ...]:
        """Return how many of the ``order`` nearest neighbours have the sample's label, for three ways to resolve ties.

        The first result counts the neighbours that the search has found. The second and the third result are the
        smallest and the largest count for any choice among equally distant candidates.
        """
        # A view instead of a copy would keep the whole table in memory while a score exists.
        columns = (column.clone() for column in self.counts[:, :, order - 1].unbind(1))
        return tuple(Neighbourhood(column, order, self.chance) for column in columns)


def agreement_with_neighbours(inputs: ScoringInputs, order: int) -> LabelAgreement:
    """Find the ``order`` nearest neighbours of each sample, and count the neighbours that have the sample's label.

    >>> from zoo_harness.separation.inputs import prepare_inputs
    >>> inputs = prepare_inputs(torch.tensor([[0.0], [1.0], [3.0]]), torch.tensor([0, 0, 1]))
    >>> agreement_with_neighbours(inputs, 2).neighbourhoods(2)[0].same_label.tolist()
    [1, 1, 0]
    """
    found = nearest_neighbours(
        inputs.features,
        inputs.labels,
        order,
        references=inputs.references,
        reference_labels=inputs.reference_labels,
        memory_budget=inputs.options.memory_budget,
    )
    return _agreement(found, inputs, inputs.reference_labels)


def agreement_with_centres(inputs: ScoringInputs) -> LabelAgreement:
    """Find the nearest class centre of each sample, and check whether it is the centre of the sample's own class.

    The centre of a class is the mean, in float64, of its references, or of its samples if there are no references. If
    several centres are equally near, the centre with the lowest label is the nearest. ``nearest`` has shape (N, 1) and
    holds indices into the sorted labels.

    >>> from zoo_harness.separation.inputs import prepare_inputs
    >>> inputs = prepare_inputs(torch.tensor([[0.0], [1.0], [3.0]]), torch.tensor([0, 0, 1]))
    >>> agreement_with_centres(inputs).nearest.tolist()
    [[0], [0], [1]]
    """
    members, labels, memory_budget = inputs.features, inputs.labels, inputs.options.memory_budget
    if inputs.references is not None and inputs.reference_labels is not None:
        members, labels = inputs.references, inputs.reference_labels
    names, classes = labels.unique(return_inverse=True)
    origin = _typical_row(members, memory_budget)
    centres = torch.zeros(len(names), members.shape[1], dtype=torch.float64, device=members.device)
    step = chunk_rows(members, memory_budget // 32)
    for part, of_part in zip(members.split(step), classes.split(step), strict=True):
        centres.index_add_(0, of_part, part.to(torch.float64) - origin)
    centres /= classes.bincount()[:, None]
    found = [
        nearest_neighbours(
            part.to(torch.float64) - origin,
            of_part,
            references=centres,
            reference_labels=names,
            memory_budget=memory_budget,
        )
        for part, of_part in zip(inputs.features.split(step), inputs.labels.split(step), strict=True)
    ]
    return _agreement(Neighbours(*map(torch.cat, zip(*found, strict=True))), inputs, names)


def _typical_row(rows: Tensor, memory_budget: int) -> Tensor:
    """Choose a row near the median of the rows as the origin of coordinates, and return it in float64.

    If the origin is one of the rows, the mean of equal rows is exact, and an offset common to all rows costs no
    precision. If the origin were an extreme row, differences between the other rows would be lost to rounding.
    """
    largest = min(1024, chunk_rows(rows, memory_budget // 64))
    some = rows[:: -(-len(rows) // largest)].to(torch.float64)
    return some[(some - some.median(0).values).abs().amax(1).argmin()]


def _agreement(found: Neighbours, inputs: ScoringInputs, candidate_labels: Tensor | None) -> LabelAgreement:
    """Count the neighbours found that have the sample's label.

    ``candidate_labels``: the labels of the references or class means; ``None`` if samples are neighbours of each other.
    """
    n, order = found.indices.shape
    others = inputs.labels if candidate_labels is None else candidate_labels

    def count(indices: Tensor, distances: Tensor, last_tied: Tensor, last_same: Tensor, labels: Tensor) -> Tensor:
        same_label = torch.nn.functional.pad((others[indices] == labels[:, None]).cumsum(1), (1, 0))
        nearer, through = (torch.searchsorted(distances, distances, right=right) for right in (False, True))
        nearer_same = same_label.gather(1, nearer)
        # Candidates that were not found can only be tied with the last neighbour, not with nearer neighbours.
        last = through == order
        tied = torch.where(last, last_tied[:, None], through - nearer)
        tied_same = torch.where(last, last_same[:, None], same_label.gather(1, through) - nearer_same)
        # `places` is the number of tied candidates to choose after all nearer neighbours; every choice is possible.
        places = torch.arange(1, order + 1, device=tied.device) - nearer
        fewest = nearer_same + (places - (tied - tied_same)).clamp(min=0)
        return torch.stack([same_label[:, 1:], fewest, nearer_same + torch.minimum(places, tied_same)], 1)

    step = max(1, inputs.options.memory_budget // (128 * order))
    table = torch.empty(n, 3, order, dtype=torch.int32, device=found.indices.device)
    counts = by_parts(count, step, table, *found, inputs.labels)
    nearest = found.squared_distances[:, 0]
    several = found.last_tied > 1 if order == 1 else nearest == found.squared_distances[:, 1]
    other_label = (nearest == 0) & (counts[:, 1, 0] == 0)
    return LabelAgreement(
        nearest=found.indices,
        counts=counts,
        partners=found.indices[:, 0] if candidate_labels is None else None,
        ties=int(several.sum()),
        duplicates=int((nearest == 0).sum()),
        duplicates_other_label=int(other_label.sum()),
        chance=_chance(inputs.labels, others, among_themselves=candidate_labels is None),
    )


def _chance(labels: Tensor, candidate_labels: Tensor, *, among_themselves: bool) -> float:
    names, index = torch.cat([labels, candidate_labels]).unique(return_inverse=True)
    own, others = (part.bincount(minlength=len(names)) for part in index.tensor_split([len(labels)]))
    pairs = int((own * (others - int(among_themselves)).clamp(min=0)).sum())
    return pairs / (len(labels) * (len(candidate_labels) - among_themselves))
