"""Compute a short vector w and an error bound h for each row, such that w and h bound true distances from below.

For any two rows i and j, the true distance is at least |w_i - w_j| - h_i - h_j. Lemma 2 in docs/exact-neighbours.md
proves this inequality for every non-expansive projection. The choice of the projection changes how long a search takes,
but never its result.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from zoo_harness.separation.knn.exact_distances import Rows, by_parts

UNDERFLOW = 2.0**-505  # squares of larger float64 numbers do not underflow

SAMPLE = 4096  # largest number of rows from which principal components are computed
MIN_ROWS = 4096  # with fewer rows, a projection makes the search no faster
RANKS = (32, 64, 96, 128, 192, 256, 384)
PROBES, TARGETS = 48, 8192
ORDERING_RANK = 8  # number of principal components that decide the order of the rows

# Estimated seconds per pair in a tile, per multiplied number of a pair, and per candidate pair. Only the ratios matter.
_PAIR_COST, _NUMBER_COST, _CANDIDATE_COST = 2.5e-9, 2e-11, 2e-6


class ProjectedRows:
    """Compute the vector w of each chosen row, and a bound h of the error of w.

    ``basis``: a non-expansive (D, P) float64 matrix. The vector w holds P + 1 numbers: the projection of the centred
    row u, and the length of the part of u that the projection drops. If ``basis`` is ``None``, w is u itself.

    ``kept``: the vectors, (G, width), if they fit in ``memory`` bytes. Otherwise ``kept`` is ``None``, and the vectors
    are computed again for each use. ``error``: (G,) float64, the bounds h. ``norms``: (G,) float64, the squared lengths
    of the vectors.
    """

    def __init__(self, rows: Rows, chosen: Tensor, basis: Tensor | None, dtype: torch.dtype, memory: int) -> None:
        self._rows, self._chosen, self._basis, self.dtype = rows, chosen, basis, dtype
        self.width = rows.width if basis is None else basis.shape[1] + 1
        self.error = torch.empty(len(chosen), dtype=torch.float64, device=chosen.device)
        self.norms = torch.empty_like(self.error)
        fits = len(chosen) * self.width * dtype.itemsize <= memory
        self.kept = torch.empty(len(chosen), self.width, dtype=dtype, device=chosen.device) if fits else None
        for start in range(0, len(chosen), rows.step):
            part = slice(start, start + rows.step)
            projected, earlier = self._projected(chosen[part])
            rounded = projected.to(dtype)
            if self.kept is not None:
                self.kept[part] = rounded
            back = rounded.to(torch.float64)
            moved = (projected - back).square_().sum(1).sqrt_()
            self.norms[part] = back.square_().sum(1)
            self.error[part] = (moved + earlier) * (1 + 2.0**-30) + UNDERFLOW

    def of(self, part: slice, columns: slice = slice(None)) -> Tensor:
        """Return the columns ``columns`` of the vectors w of the rows in the slice ``part``."""
        if self.kept is not None:
            return self.kept[part, columns]
        chosen = self._chosen[part]
        if self._basis is None:
            return self._rows.centred(chosen, columns).to(self.dtype)
        result = torch.empty(len(chosen), self.width, dtype=self.dtype, device=chosen.device)
        return by_parts(lambda index: self._projected(index)[0], self._rows.step, result, chosen)[:, columns]

    def _projected(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Return the projected rows in float64, before rounding to ``dtype``, and a bound of each row's error."""
        centred = self._rows.centred(index)
        squares = centred.square().sum(1)
        if self._basis is None:
            return centred, squares.sqrt() * 2.0**-51
        depth, rank = self._basis.shape
        along = centred @ self._basis
        rest = (squares - along.square().sum(1)).clamp_(min=0).sqrt_()
        error = squares * (8 * (depth + rank) * math.sqrt(rank + 1) * 2.0**-53)
        of_rest = torch.minimum(error.sqrt(), error / rest.clamp(min=UNDERFLOW))
        of_along = squares.sqrt() * ((depth * math.sqrt(rank) + 2) * 2.0**-52)
        return torch.cat([along, rest[:, None]], 1), of_rest + of_along


class Projection(NamedTuple):
    """A projection onto the principal components of the rows.

    ``basis``: the components as a non-expansive (D, P) matrix, in descending order of variance. ``rank``: the number of
    components from which vectors are computed; if ``rank`` is 0, vectors are whole rows. The first components of the
    projection also decide the order of the rows.
    """

    basis: Tensor
    rank: int = 0

    def arrange(self, rows: Rows, chosen: Tensor, leaf: int) -> Tensor:
        """Return a permutation of the chosen rows that puts rows near each other into blocks of ``leaf`` rows."""
        axes = self.basis[:, :ORDERING_RANK]
        points = torch.cat([rows.centred(part) @ axes for part in chosen.split(rows.step)])
        return torch.cat(_split_at_medians(points, torch.arange(len(chosen), device=chosen.device), leaf))


def choose_projection(
    rows: Rows, queries: Tensor, references: Tensor, order: int, memory_budget: int
) -> Projection | None:
    """Return the projection with the shortest estimated search time, or ``None`` if no projection saves time.

    ``queries`` and ``references``: row numbers; the search looks for the nearest references of each query. The estimate
    uses only a part of the memory budget. Therefore only projections to few components are available for very wide
    rows.
    """
    room = memory_budget // (32 * rows.width)  # number of rows in the sample
    ranks = [rank for rank in RANKS if rank <= min(rows.width // 2, room // 4)]
    if not ranks or min(len(queries), len(references)) < MIN_ROWS:
        return None
    basis = principal_components(rows, references, ranks[-1], sample=room)
    candidates = {rows.width: 2.0 * order, **_estimate_candidates(rows, queries, references, basis, ranks, order)}

    def cost(rank: int) -> float:
        return len(references) / 2 * (_PAIR_COST + _NUMBER_COST * rank) + _CANDIDATE_COST * candidates[rank]

    rank = min(candidates, key=cost)
    return Projection(basis, 0 if rank == rows.width else rank)


def principal_components(rows: Rows, chosen: Tensor, rank: int, sample: int = SAMPLE) -> Tensor:
    """Return a non-expansive (D, rank) float64 matrix whose columns are the directions of most variance.

    Subspace iteration computes the columns from some of the chosen rows: at most ``sample`` rows, and at most 4,096.
    """
    sample = min(sample, SAMPLE)
    chosen = chosen[:: max(1, len(chosen) // sample)][:sample]
    centred = torch.cat([rows.centred(part).to(torch.float32) for part in chosen.split(rows.step)])
    centred -= centred.mean(0)
    generator = torch.Generator("cpu").manual_seed(0)
    start = torch.randn(rows.width, rank, generator=generator, dtype=torch.float32, device="cpu").to(centred.device)
    basis = torch.linalg.qr(start).Q
    for _ in range(3):
        basis = torch.linalg.qr(centred.T @ (centred @ basis)).Q
    order = (centred @ basis).square().sum(0).argsort(descending=True)
    return make_non_expansive(basis[:, order].to(torch.float64))


def make_non_expansive(basis: Tensor) -> Tensor:
    """Divide an orthonormal basis by an upper bound of its largest singular value, so that it lengthens no vector.

    If the columns are not orthonormal, a QR decomposition orthonormalises the columns first.

    >>> bool(torch.linalg.matrix_norm(make_non_expansive(torch.ones(3, 2, dtype=torch.float64)), ord=2) <= 1)
    True
    """
    depth, rank = basis.shape
    basis = torch.linalg.qr(basis).Q if depth >= rank else basis
    defect = basis.T @ basis - torch.eye(rank, dtype=basis.dtype, device=basis.device)
    largest = 1 + float(defect.norm()) + depth * rank * 2.0**-52
    return basis / (math.sqrt(largest) * (1 + 2.0**-40))


def _estimate_candidates(
    rows: Rows, queries: Tensor, references: Tensor, basis: Tensor, ranks: list[int], order: int
) -> dict[int, float]:
    """Estimate from a few rows, for each rank, the average number of candidate pairs per row."""
    probes = rows.centred(queries[:: max(1, len(queries) // PROBES)][:PROBES]).float()
    distances = torch.cat([torch.cdist(probes, rows.centred(p).float()) for p in references.split(rows.step)], 1)
    # A probe may also be a reference. A distance of almost 0 is taken to be the probe's distance to itself.
    distances[distances < 1e-3 * distances.median()] = torch.inf
    radius = distances.topk(min(order, distances.shape[1]), largest=False).values[:, -1:]
    targets = references[:: max(1, len(references) // TARGETS)]
    counts = torch.zeros(len(ranks), dtype=torch.float64, device=probes.device)
    components = basis.float()
    of_probes = probes @ components
    for part in targets.split(rows.step):
        centred = rows.centred(part).float()
        along = centred @ components
        for index, rank in enumerate(ranks):
            bound = torch.cdist(_with_rest(of_probes, probes, rank), _with_rest(along, centred, rank))
            counts[index] += (bound <= radius).sum()
    of_a_row = counts * (len(references) / len(targets) / len(probes))
    return dict(zip(ranks, of_a_row.tolist(), strict=True))


def _with_rest(along: Tensor, whole: Tensor, rank: int) -> Tensor:
    kept = along[:, :rank]
    rest = (whole.square().sum(1) - kept.square().sum(1)).clamp(min=0).sqrt()
    return torch.cat([kept, rest[:, None]], 1)


def _split_at_medians(points: Tensor, rows: Tensor, leaf: int) -> list[Tensor]:
    """Split rows recursively at the median of the coordinate of most variance, into parts of at most ``leaf`` rows."""
    if len(rows) <= leaf:
        return [rows]
    inside = points[rows]
    order = inside[:, int(inside.var(0).argmax())].argsort()
    half = -(-len(rows) // leaf) // 2 * leaf
    return _split_at_medians(points, rows[order[:half]], leaf) + _split_at_medians(points, rows[order[half:]], leaf)
