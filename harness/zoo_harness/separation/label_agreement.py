"""Which of the nearest neighbours of each sample have its label, and for how many samples a tie decides a score.

Every score is a function of this table, so one search serves them all.

In a tie, ``tied`` candidates lie at the distance of the last neighbour counted, and those of lowest index count. Let
``inner`` neighbours be nearer, so that ``open_slots = order - inner`` are left. With another choice, the number of
neighbours that have the sample's label could be anything

    from  inner_same_label + max(0, open_slots - (tied - tied_same_label))
    to    inner_same_label + min(open_slots, tied_same_label).

A score of a sample depends on the tie if it differs between these two ends.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from zoo_harness.separation.inputs import ScoringInputs
from zoo_harness.separation.knn.exact_distances import chunk_rows
from zoo_harness.separation.knn.neighbours import Neighbours
from zoo_harness.separation.knn.search import nearest_neighbours
from zoo_harness.separation.scores import SCORES, Neighbourhood


@dataclass(frozen=True, eq=False)
class LabelAgreement:
    """The nearest neighbours of N samples and whether they have the sample's label.

    ``nearest``: (N, order) int64, indices of the neighbours. ``same_label``: (N, order) bool. ``partners``: (N,), the
    nearest sample of each sample; ``None`` if neighbours are references or class means. ``tied``: by key of a score,
    the number of samples whose score depends on a tie, for each order from 1. ``ties``: number of samples that have
    several neighbours at the smallest distance. ``duplicates``: number of samples at distance 0 from a neighbour;
    ``duplicates_other_label``: number of those for which one such neighbour has another label. ``chance``: probability
    that a random neighbour of a random sample has its label.
    """

    nearest: Tensor
    same_label: Tensor
    partners: Tensor | None
    tied: dict[str, list[int]]
    ties: int
    duplicates: int
    duplicates_other_label: int
    chance: float

    def neighbourhood(self, order: int) -> Neighbourhood:
        """Return the labels among the ``order`` nearest neighbours of each sample."""
        return Neighbourhood(self.same_label[:, :order].sum(1, dtype=torch.int32), order, self.chance)


def agreement_with_neighbours(inputs: ScoringInputs, order: int) -> LabelAgreement:
    """Find the ``order`` nearest neighbours of each sample and whether they have its label.

    >>> from zoo_harness.separation.inputs import prepare_inputs
    >>> inputs = prepare_inputs(torch.tensor([[0.0], [1.0], [3.0]]), torch.tensor([0, 0, 1]))
    >>> agreement_with_neighbours(inputs, 2).same_label
    tensor([[ True, False],
            [ True, False],
            [False, False]])
    """
    found = nearest_neighbours(
        inputs.features,
        inputs.labels,
        order,
        references=inputs.references,
        reference_labels=inputs.reference_labels,
        memory_budget=inputs.options.memory_budget,
    )
    candidate_labels = inputs.labels if inputs.reference_labels is None else inputs.reference_labels
    return _agreement("samples", found, inputs, candidate_labels, among_themselves=inputs.references is None)


def agreement_with_centres(inputs: ScoringInputs) -> LabelAgreement:
    """Find the nearest class centre of each sample and whether it is that of its class; the order is 1.

    The centre of a class is the mean, in float64, of its references, or of its samples if there are no references. Of
    equally near centres the one with the lowest label counts. ``nearest`` are numbers of classes, in their order.

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
    joined = Neighbours(*map(torch.cat, zip(*found, strict=True)))
    return _agreement("centres", joined, inputs, names, among_themselves=False)


def _typical_row(rows: Tensor, memory_budget: int) -> Tensor:
    """Return one of the rows, in float64, as the origin: among some of them, the nearest to their median.

    Relative to a row, the mean of equal rows is exact, and an offset costs no digits. Relative to an extreme row, all
    others would coincide.
    """
    largest = min(1024, chunk_rows(rows, memory_budget // 64))
    some = rows[:: -(-len(rows) // largest)].to(torch.float64)
    return some[(some - some.median(0).values).abs().amax(1).argmin()]


def _agreement(
    kind: str, found: Neighbours, inputs: ScoringInputs, candidate_labels: Tensor, *, among_themselves: bool
) -> LabelAgreement:
    n, order = found.indices.shape
    labels = inputs.labels
    definitions = [each for each in SCORES if each.neighbours == kind]
    chance = _chance(labels, candidate_labels, among_themselves=among_themselves)
    same_label = torch.empty_like(found.indices, dtype=torch.bool)
    decided = {each.key: labels.new_zeros(len(each.orders(order))) for each in definitions}
    first = labels.new_zeros(3)
    step = max(1, inputs.options.memory_budget // (128 * order))
    for start in range(0, n, step):
        rows = slice(start, start + step)
        same_label[rows] = candidate_labels[found.indices[rows]] == labels[rows, None]
        tied, tied_same, fewest, most = _ties(found, same_label, rows)
        for each in definitions:
            for number in each.orders(order):
                ends = (Neighbourhood(end[:, number - 1], number, chance) for end in (fewest, most))
                one, other = (each.function(end)[0] for end in ends)
                decided[each.key][number - 1] += (one != other).sum()
        equal = found.squared_distances[rows, 0] == 0
        first += torch.stack([tied[:, 0] > 1, equal, equal & (tied_same[:, 0] < tied[:, 0])]).sum(1)
    partners = found.indices[:, 0] if among_themselves else None
    tied_samples = {key: numbers.tolist() for key, numbers in decided.items()}
    ties, duplicates, other_label = first.tolist()
    return LabelAgreement(found.indices, same_label, partners, tied_samples, ties, duplicates, other_label, chance)


def _ties(found: Neighbours, same_label: Tensor, rows: slice) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return ``tied``, ``tied_same_label`` and both ends of the range (see the module), each (rows, order)."""
    distances = found.squared_distances[rows].contiguous()
    order = distances.shape[1]
    inner = torch.searchsorted(distances, distances)
    through = torch.searchsorted(distances, distances, right=True)
    same_before = torch.nn.functional.pad(same_label[rows].cumsum(1), (1, 0))
    inner_same = same_before.gather(1, inner)
    # At the last distance there may be more candidates than the neighbours found; at smaller ones there are not.
    last = through == order
    tied = torch.where(last, found.last_tied[rows, None], through - inner)
    tied_same = torch.where(last, found.last_tied_same_label[rows, None], same_before.gather(1, through) - inner_same)
    open_slots = torch.arange(1, order + 1, device=tied.device) - inner
    fewest = (open_slots - (tied - tied_same)).clamp(min=0)
    return tied, tied_same, inner_same + fewest, inner_same + torch.minimum(open_slots, tied_same)


def _chance(labels: Tensor, candidate_labels: Tensor, *, among_themselves: bool) -> float:
    names, index = torch.cat([labels, candidate_labels]).unique(return_inverse=True)
    own, others = (part.bincount(minlength=len(names)) for part in index.tensor_split([len(labels)]))
    pairs = int((own * (others - int(among_themselves)).clamp(min=0)).sum())
    return pairs / (len(labels) * (len(candidate_labels) - among_themselves))
