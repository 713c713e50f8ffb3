"""List the candidate pairs of a search: those whose lower bound does not exclude them, computed tile by tile.

The bounds come from matrix products, with an allowance for rounding errors. docs/exact-neighbours.md derives the
numbers used here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from zoo_harness.separation.knn.duplicates import Groups
from zoo_harness.separation.knn.exact_distances import Rows
from zoo_harness.separation.knn.lower_bounds import ProjectedRows, Projection

LARGEST_TILE, SMALLEST_TILE = 2048, 16
PIECE = 2048  # columns of the vectors that are multiplied at a time


class Precision(NamedTuple):
    """The arithmetic of a pass.

    ``vectors``: dtype in which vectors are kept. ``products``: dtype in which they are multiplied. ``slack``: t of the
    proof. ``matmul_precision``: torch's setting for float32 products.
    """

    vectors: torch.dtype
    products: torch.dtype
    slack: float
    matmul_precision: str


BFLOAT16 = Precision(torch.bfloat16, torch.float32, 2.0**-7, "medium")
FLOAT32 = Precision(torch.float32, torch.float32, 2.0**-10, "highest")
FLOAT64 = Precision(torch.float64, torch.float64, 2.0**-10, "highest")


class Operand:
    """Groups on one side of the products, ordered so that groups near each other share a tile.

    ``ids``: (G,), the groups. ``coarse``: their vectors for all pairs, kept if they fit in ``memory`` bytes. ``fine``:
    longer vectors for the pairs that pass, or ``None``. ``half_norms``: (G,), c of the proof, about half the squared
    norm. ``threshold``: (G,), the largest product at which a pair of the group is kept; at first none is.
    """

    def __init__(
        self, rows: Rows, groups: Groups, ids: Tensor, projection: Projection | None, precision: Precision, memory: int
    ) -> None:
        basis, coarse, fine = projection or (None, 0, 0)
        if projection is not None:
            ids = ids[projection.arrange(rows, groups.first[ids], LARGEST_TILE)]
        first = groups.first[ids]
        room = memory // len(ids)  # bytes of a row that may be kept
        size = (coarse + 1 if coarse else rows.width) * precision.vectors.itemsize
        self.ids, self.precision, self.fine = ids, precision, None
        in_use = basis[:, :coarse] if coarse and basis is not None else None
        self.coarse = ProjectedRows(rows, first, in_use, precision.vectors, keep=size <= room)
        fine = min(fine, (room - size) // 4 - 1)  # a part of a non-expansive basis is one too
        if basis is not None and fine > coarse:
            self.fine = ProjectedRows(rows, first, basis[:, :fine], torch.float32, keep=True)
        self.half_norms = _half_norms(self.coarse, precision)
        self.threshold = torch.full_like(self.half_norms, -math.inf)

    def set_thresholds(self, radius: Tensor) -> None:
        """Compute the thresholds from the radii of all groups, float64; a negative radius excludes every pair."""
        exact = radius[self.ids].square().mul_((1 + self.precision.slack) / 2)
        self.threshold = exact.to(self.threshold.dtype).nextafter(self.threshold.new_tensor(math.inf))
        self.threshold[radius[self.ids] < 0] = -math.inf

    def tiles(self, size: int) -> list[slice]:
        """Return the rows of each tile."""
        count = len(self.ids)
        return [slice(start, min(start + size, count)) for start in range(0, count, size)]


class CandidatePairs(NamedTuple):
    """Candidate pairs: their positions in the left and the right operand, (P,) int64, and their products, (P,)."""

    rows: Tensor
    columns: Tensor
    products: Tensor


class TiledProducts:
    """Products of all pairs of two operands, a tile at a time, in ``memory`` bytes for a tile and a list of pairs.

    If the operands are one, only pairs above the diagonal are computed.
    """

    def __init__(self, left: Operand, right: Operand, memory: int) -> None:
        self.left, self.right, self._memory = left, right, memory
        self.symmetric = left is right
        width, item = min(left.coarse.width, PIECE), left.half_norms.itemsize
        self.tile = LARGEST_TILE
        while self.tile > SMALLEST_TILE and self.tile * width * 2 * item + self.tile**2 * (item + 34) > memory:
            self.tile //= 2
        self._products = left.half_norms.new_empty(min(self.tile, len(left.ids)) * min(self.tile, len(right.ids)))

    def candidates(self) -> Iterator[CandidatePairs]:
        """Yield the pairs whose product is at most the threshold of either group, each once, in bounded lists.

        The next list overwrites a list. Thresholds that the caller lowers in between count from then on.
        """
        full = max(min(self._memory // 128, len(self.left.ids) * len(self.right.ids)), 1)
        room = full + len(self._products)
        rows, columns = (torch.empty(room, dtype=torch.int64, device=self._products.device) for _ in range(2))
        buffer = CandidatePairs(rows, columns, self._products.new_empty(room))
        count = 0
        for tile in self._nearest_first():
            found = self._of_tile(*tile)
            for part, values in zip(buffer, found, strict=True):
                part[count : count + len(values)] = values
            count += len(found.rows)
            if count > full:
                yield CandidatePairs(*(part[:count] for part in buffer))
                count = 0
        yield CandidatePairs(*(part[:count] for part in buffer))

    def nearest_tiles(self) -> Iterator[tuple[slice, slice]]:
        """Yield each tile's rows with the columns of the tile that is nearest to these."""
        rows, columns, distances = self._tiles()
        yield from zip(rows, (columns[index] for index in distances.argmin(1).tolist()), strict=True)

    def lower_bounds(self, rows: slice, columns: slice) -> Tensor:
        """Return the products of a tile, c_i + c_j - w_i w_j, (rows, columns); the next call overwrites them."""
        height, width = rows.stop - rows.start, columns.stop - columns.start
        products = self._products[: height * width].view(height, width)
        torch.add(self.left.half_norms[rows, None], self.right.half_norms[columns], out=products)
        for start in range(0, self.left.coarse.width, PIECE):
            piece = slice(start, start + PIECE)
            one, other = self.left.coarse.of(rows, piece), self.right.coarse.of(columns, piece)
            products.addmm_(one.to(products.dtype), other.to(products.dtype).T, alpha=-1)
        return products

    def _of_tile(self, rows: slice, columns: slice) -> CandidatePairs:
        """Return the candidate pairs of a tile."""
        of_rows, of_columns = self.left.threshold[rows], self.right.threshold[columns]
        if max(float(of_rows.max()), float(of_columns.max())) == -math.inf:
            return CandidatePairs(self.left.ids[:0], self.right.ids[:0], self._products[:0])
        products = self.lower_bounds(rows, columns)
        kept = products <= of_rows[:, None]
        if self.symmetric:
            kept |= products <= of_columns
            if rows == columns:
                kept.triu_(1)
        row, column = kept.nonzero(as_tuple=True)
        return CandidatePairs(row + rows.start, column + columns.start, products[row, column])

    def _nearest_first(self) -> Iterator[tuple[slice, slice]]:
        """Yield every tile, those with rows and columns near each other first."""
        rows, columns, distances = self._tiles()
        for index in distances.flatten().argsort().tolist():
            one, other = divmod(index, len(columns))
            if not self.symmetric or one <= other:
                yield rows[one], columns[other]

    def _tiles(self) -> tuple[list[slice], list[slice], Tensor]:
        """Return the rows and the columns of the tiles, and the distances between the means of their vectors."""
        rows, columns = self.left.tiles(self.tile), self.right.tiles(self.tile)
        one, other = (
            torch.stack([operand.coarse.of(tile, slice(PIECE)).to(torch.float64).mean(0) for tile in tiles])
            for operand, tiles in ((self.left, rows), (self.right, columns))
        )
        return rows, columns, torch.cdist(one, other)


def _half_norms(vectors: ProjectedRows, precision: Precision) -> Tensor:
    """Return the numbers c of the proof, (G,)."""
    terms = vectors.width + 2
    unit = torch.finfo(precision.products).eps / 2
    accumulated = 4 * terms * unit
    relative = accumulated / (1 - accumulated) + 3 * unit + terms * 2.0**-52
    absolute = 16 * terms * torch.finfo(precision.products).tiny
    half = vectors.norms * (0.5 - relative) - absolute / 2
    half -= 1.25 * (1 + 1 / precision.slack) * vectors.error.square()
    return half.to(precision.products)
