"""Choose the principal components on which a search projects rows, by the time it would take on these data.

The choice changes the time of a search, never its result: any non-expansive projection gives lower bounds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from zoo_harness.separation.knn.lower_bounds import Frame

SAMPLE = 4096  # rows from which principal components are computed
MIN_ROWS = 4096  # below, whole rows are as fast
RANKS = (32, 64, 96, 128, 192, 256, 384)
PROBES, TARGETS = 48, 8192
ORDERING_RANK = 8  # components by which rows are ordered

# Seconds (only their ratios matter): a pair in a tile, each number in its product, a pair that passes it.
_PAIR_COST, _NUMBER_COST, _CANDIDATE_COST = 2.5e-9, 2e-11, 2e-6
_FEW_CANDIDATES = 16.0  # of a row: fewer are not worth a longer projection


@dataclass(frozen=True, eq=False)
class Projection:
    """Non-expansive matrices (D, P): ``coarse`` for all pairs, ``fine``, if any, for those that pass the coarse bound.

    ``coarse`` is ``None`` if all pairs are compared as whole rows. ``ordering``: (D, at most 8), for :meth:`arrange`.
    """

    ordering: Tensor
    coarse: Tensor | None
    fine: Tensor | None

    @classmethod
    def of(cls, coarse: Tensor, fine: Tensor | None = None) -> Projection:
        """Return the projection on a basis whose first columns have the most variance."""
        return cls(coarse[:, :ORDERING_RANK].contiguous(), coarse.contiguous(), fine)

    @property
    def whole(self) -> Projection:
        """The same order of rows, but whole rows for all pairs."""
        return Projection(self.ordering, None, None)

    def arrange(self, frame: Frame, chosen: Tensor, leaf: int) -> Tensor:
        """Return an order of these rows in which each run of ``leaf`` holds rows near each other."""
        points = torch.cat([frame.centred(part) @ self.ordering for part in chosen.split(frame.rows.step)])
        return torch.cat(_split_at_medians(points, torch.arange(len(chosen), device=chosen.device), leaf))


def choose_projection(
    frame: Frame, queries: Tensor, references: Tensor, order: int, memory_budget: int
) -> Projection | None:
    """Return the projection for a search of ``queries`` among ``references``; ``None`` if none is worth computing.

    The sample and the components take at most a part of the budget, so very wide rows have fewer ranks to choose from.
    """
    room = memory_budget // (32 * frame.width)
    ranks = [rank for rank in RANKS if rank <= min(frame.width // 2, room // 4)]  # from a sample of `room` rows
    if not ranks or min(len(queries), len(references)) < MIN_ROWS:
        return None
    basis = principal_components(frame, references, ranks[-1], sample=room)
    candidates = _estimate_candidates(frame, queries, references, basis, ranks, order)

    def cost(rank: int, candidates_of_row: float) -> float:
        return len(references) / 2 * (_PAIR_COST + _NUMBER_COST * rank) + _CANDIDATE_COST * candidates_of_row

    best = min(range(len(ranks)), key=lambda index: cost(ranks[index], candidates[index]))
    if cost(frame.width, 2.0 * order) <= cost(ranks[best], candidates[best]):
        return Projection.of(basis).whole
    fine = next((rank for rank, few in zip(ranks, candidates, strict=True) if few <= _FEW_CANDIDATES), ranks[-1])
    longer = basis[:, :fine].contiguous() if fine > ranks[best] else None
    return Projection.of(basis[:, : ranks[best]], longer)


def principal_components(frame: Frame, chosen: Tensor, rank: int, sample: int = SAMPLE) -> Tensor:
    """Return a non-expansive (D, rank) float64 matrix whose columns are the directions of most variance.

    They are computed by subspace iteration from at most ``sample`` of the rows, and at most 4,096.
    """
    sample = min(sample, SAMPLE)
    chosen = chosen[:: max(1, len(chosen) // sample)][:sample]
    centred = torch.cat([frame.centred(part).to(torch.float32) for part in chosen.split(frame.rows.step)])
    centred -= centred.mean(0)
    generator = torch.Generator("cpu").manual_seed(0)
    start = torch.randn(frame.width, rank, generator=generator, dtype=torch.float32, device="cpu").to(centred.device)
    basis = torch.linalg.qr(start).Q
    for _ in range(3):
        basis = torch.linalg.qr(centred.T @ (centred @ basis)).Q
    order = (centred @ basis).square().sum(0).argsort(descending=True)
    return make_non_expansive(basis[:, order].to(torch.float64))


def make_non_expansive(basis: Tensor) -> Tensor:
    """Divide an orthonormal basis by a bound of its largest singular value, so that it lengthens no vector.

    Columns that are not orthonormal are made so first.

    >>> bool(torch.linalg.matrix_norm(make_non_expansive(torch.ones(3, 2, dtype=torch.float64)), ord=2) <= 1)
    True
    """
    depth, rank = basis.shape
    basis = torch.linalg.qr(basis).Q if depth >= rank else basis
    defect = basis.T @ basis - torch.eye(rank, dtype=basis.dtype, device=basis.device)
    largest = 1 + float(defect.norm()) + depth * rank * 2.0**-52
    return basis / (math.sqrt(largest) * (1 + 2.0**-40))


def _estimate_candidates(
    frame: Frame, queries: Tensor, references: Tensor, basis: Tensor, ranks: list[int], order: int
) -> list[float]:
    """Estimate from a few rows, for each rank, the number of pairs of a row that its bound would not exclude."""
    probes = frame.centred(queries[:: max(1, len(queries) // PROBES)][:PROBES]).float()
    targets = references[:: max(1, len(references) // TARGETS)]
    parts = [_squared(probes, frame.centred(part).float()) for part in references.split(frame.rows.step)]
    # A probe may be one of the references: a distance of almost nothing is its own.
    distances = torch.cat(parts, 1)
    distances[distances < 1e-6 * distances.median()] = torch.inf
    radius = distances.topk(min(order, distances.shape[1]), largest=False).values[:, -1:]
    components = basis.float()
    of_probes, counts = probes @ components, torch.zeros(len(ranks), dtype=torch.float64, device=probes.device)
    for part in targets.split(frame.rows.step):
        centred = frame.centred(part).float()
        along = centred @ components
        for index, rank in enumerate(ranks):
            bound = _squared(_with_rest(of_probes, probes, rank), _with_rest(along, centred, rank))
            counts[index] += (bound <= radius).sum()
    return (counts * (len(references) / len(targets) / len(probes))).tolist()


def _with_rest(along: Tensor, whole: Tensor, rank: int) -> Tensor:
    kept = along[:, :rank]
    rest = (whole.square().sum(1) - kept.square().sum(1)).clamp(min=0).sqrt()
    return torch.cat([kept, rest[:, None]], 1)


def _squared(left: Tensor, right: Tensor) -> Tensor:
    product = left @ right.T
    return (left.square().sum(1)[:, None] + right.square().sum(1)).sub_(product, alpha=2)


def _split_at_medians(points: Tensor, rows: Tensor, leaf: int) -> list[Tensor]:
    """Split rows at the median of the coordinate of most variance until no part has more than ``leaf``."""
    if len(rows) <= leaf:
        return [rows]
    inside = points[rows]
    order = inside[:, int(inside.var(0).argmax())].argsort()
    half = -(-len(rows) // leaf) // 2 * leaf
    return _split_at_medians(points, rows[order[:half]], leaf) + _split_at_medians(points, rows[order[half:]], leaf)
