"""List the candidate pairs of a search: those whose lower bound does not exclude them, computed tile by tile.

The bounds are entries of matrix products, with an allowance for rounding errors. docs/exact-neighbours.md derives the
numbers used here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from zoo_harness.separation.knn.duplicates import Groups
from zoo_harness.separation.knn.lower_bounds import Frame, ProjectedRows
from zoo_harness.separation.knn.projection import Projection

LARGEST_TILE, SMALLEST_TILE = 2048, 16
PIECE = 2048  # columns at a time of whole rows that are too many to be kept


class Precision(NamedTuple):
    """The arithmetic of a pass.

    ``vectors``: dtype in which vectors are kept. ``products``: dtype in which they are multiplied. ``slack``: t of the
    proof. ``matmul_precision``: torch's setting for float32 products. ``norm_columns``: the number of columns for c,
    three as a sum of bfloat16 numbers.
    """

    vectors: torch.dtype
    products: torch.dtype
    slack: float
    matmul_precision: str
    norm_columns: int = 1


BFLOAT16 = Precision(torch.bfloat16, torch.float32, 2.0**-7, "medium", 3)
FLOAT32 = Precision(torch.float32, torch.float32, 2.0**-10, "highest")
FLOAT64 = Precision(torch.float64, torch.float64, 2.0**-10, "highest")


class Operand:
    """Groups on one side of the products, ordered so that groups near each other share a tile.

    ``ids``: (G,), the groups. ``coarse``: their vectors for all pairs, kept if they fit in ``memory`` bytes. ``fine``:
    longer vectors for the pairs that pass, or ``None``. ``half_norms``: (G, 1 or 3), c of the proof, about half the
    squared norm. ``threshold``: (G,), the largest product at which a pair of the group is kept.
    """

    def __init__(
        self,
        frame: Frame,
        groups: Groups,
        ids: Tensor,
        projection: Projection | None,
        precision: Precision,
        memory: int,
    ) -> None:
        coarse = fine = None
        self.ordered = projection is not None
        if projection is not None:
            ids = ids[projection.arrange(frame, groups.first[ids], LARGEST_TILE)]
            coarse, fine = projection.coarse, projection.fine
        first = groups.first[ids]
        width = frame.width if coarse is None else coarse.shape[1] + 1
        room = memory // len(ids)  # bytes of a row that may be kept
        size = width * precision.vectors.itemsize
        self.ids, self.precision = ids, precision
        self.coarse = ProjectedRows(frame, first, coarse, precision.vectors, keep=size <= room)
        self.fine = None
        if fine is not None and coarse is not None:
            fitting = fine[:, : max(0, (room - size) // 4 - 1)]  # a part of a non-expansive basis is one too
            if fitting.shape[1] > coarse.shape[1]:
                self.fine = ProjectedRows(frame, first, fitting, torch.float32, keep=True)
        self.half_norms = _half_norms(self.coarse, precision)
        self.threshold = torch.empty(len(ids), dtype=precision.products, device=ids.device)

    def set_thresholds(self, radius: Tensor) -> None:
        """Compute the thresholds from the radii of all groups, float64; a negative radius excludes every pair."""
        exact = radius[self.ids].square().mul_((1 + self.precision.slack) / 2)
        self.threshold = exact.to(self.threshold.dtype).nextafter(self.threshold.new_tensor(math.inf))
        self.threshold[radius[self.ids] < 0] = -math.inf

    def fill(self, factor: Tensor, rows: slice, *, left: bool) -> None:
        """Write rows of a factor of the product: (w, c, 1) for the left one and (-w, 1, c) for the right one."""
        columns, width = self.precision.norm_columns, self.coarse.width
        factor[:, :width] = self.coarse.of(rows)
        first, second = slice(width, width + columns), slice(width + columns, None)
        factor[:, first if left else second] = self.half_norms[rows]
        factor[:, second if left else first] = 1
        if not left:
            factor[:, :width].neg_()

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
        width, item = left.coarse.width + 2 * left.half_norms.shape[1], left.threshold.itemsize
        self._in_pieces = left.coarse.in_pieces or right.coarse.in_pieces
        if self._in_pieces:
            width = min(width, PIECE)
        tile = LARGEST_TILE
        while tile > SMALLEST_TILE and tile * width * 2 * item + tile**2 * (item + 34) > memory:
            tile //= 2
        self.tile = tile
        sizes = [min(tile, len(operand.ids)) for operand in (left, right)]
        self._factors = [left.threshold.new_empty(0 if self._in_pieces else size, width) for size in sizes]
        self._products = left.threshold.new_empty(sizes[0] * sizes[1])

    def candidates(self) -> Iterator[CandidatePairs]:
        """Yield the pairs whose product is at most the threshold of the row, each once, in lists of bounded length.

        If the operands are one, a pair is also kept by the threshold of its column. The next list overwrites a list.
        Thresholds that the caller lowers in between count from then on.
        """
        full = max(min(self._memory // 128, len(self.left.ids) * len(self.right.ids)), 1)
        room = full + len(self._products)
        rows, columns = (torch.empty(room, dtype=torch.int64, device=self._products.device) for _ in range(2))
        buffer = CandidatePairs(rows, columns, self._products.new_empty(room))
        count = 0
        for tile in self._tiles():
            count += self._list(*tile, CandidatePairs(*(part[count:] for part in buffer)))
            if count > full:
                yield CandidatePairs(*(part[:count] for part in buffer))
                count = 0
        yield CandidatePairs(*(part[:count] for part in buffer))

    def nearest_tiles(self) -> Iterator[tuple[slice, slice]]:
        """Yield each tile's rows with the columns of the tile that is nearest to these."""
        rows, columns = self.left.tiles(self.tile), self.right.tiles(self.tile)
        nearest = self._distances_of_tiles(rows, columns).argsort(1)[:, 0].tolist()
        yield from zip(rows, (columns[index] for index in nearest), strict=True)

    def lower_bounds(self, rows: slice, columns: slice) -> Tensor:
        """Return the products of a tile, (rows, columns); the next call overwrites them."""
        height, width = rows.stop - rows.start, columns.stop - columns.start
        products = self._products[: height * width].view(height, width)
        if self._in_pieces:
            return self._sum_of_pieces(rows, columns, products)
        one, other = self._factors[0][:height], self._factors[1][:width]
        self.left.fill(one, rows, left=True)
        self.right.fill(other, columns, left=False)
        return torch.mm(one, other.T, out=products)

    def _sum_of_pieces(self, rows: slice, columns: slice, products: Tensor) -> Tensor:
        """Compute the same from some columns of whole rows at a time: a large tile of wide rows would not fit."""
        torch.add(self.left.half_norms[rows].sum(1)[:, None], self.right.half_norms[columns].sum(1), out=products)
        for start in range(0, self.left.coarse.width, PIECE):
            piece = slice(start, start + PIECE)
            one = self.left.coarse.piece(rows, piece).to(products.dtype)
            products.addmm_(one, self.right.coarse.piece(columns, piece).to(products.dtype).T, alpha=-1)
        return products

    def _list(self, rows: slice, columns: slice, room: CandidatePairs) -> int:
        """Write the candidate pairs of a tile to the beginning of ``room``; return their number."""
        of_rows, of_columns = self.left.threshold[rows], self.right.threshold[columns]
        if max(float(of_rows.max()), float(of_columns.max())) == -torch.inf:
            return 0
        products = self.lower_bounds(rows, columns)
        kept = products <= of_rows[:, None]
        if self.symmetric:
            kept |= products <= of_columns
        if self.symmetric and rows == columns:
            kept.triu_(1)
        row, column = kept.nonzero(as_tuple=True)
        torch.add(row, rows.start, out=room.rows[: len(row)])
        torch.add(column, columns.start, out=room.columns[: len(row)])
        room.products[: len(row)] = products[row, column]
        return len(row)

    def _tiles(self) -> Iterator[tuple[slice, slice]]:
        """Yield every tile, those with rows and columns near each other first."""
        rows, columns = self.left.tiles(self.tile), self.right.tiles(self.tile)
        for index in self._distances_of_tiles(rows, columns).flatten().argsort().tolist():
            one, other = divmod(index, len(columns))
            if not self.symmetric or one <= other:
                yield rows[one], columns[other]

    def _distances_of_tiles(self, rows: list[slice], columns: list[slice]) -> Tensor:
        if not self.left.ordered:  # any order will do in which each tile of rows meets another one each time
            apart = (torch.arange(len(columns)) - torch.arange(len(rows))[:, None]) % len(columns)
            return torch.minimum(apart, len(columns) - apart) if self.symmetric else apart
        one, other = (
            torch.stack([operand.coarse.of(tile).to(torch.float64).mean(0) for tile in tiles])
            for operand, tiles in ((self.left, rows), (self.right, columns))
        )
        return torch.cdist(one, other)


def _half_norms(vectors: ProjectedRows, precision: Precision) -> Tensor:
    """Return the numbers c of the proof, (G, 1), or (G, 3) as the parts of a sum."""
    terms = vectors.width + 2 * precision.norm_columns
    unit = torch.finfo(precision.products).eps / 2
    accumulated = 4 * terms * unit
    relative = accumulated / (1 - accumulated) + 3 * unit + terms * 2.0**-52
    absolute = 16 * terms * torch.finfo(precision.products).tiny
    half = vectors.norms * (0.5 - relative) - absolute / 2
    half -= 1.25 * (1 + 1 / precision.slack) * vectors.error.square()
    if precision.norm_columns == 1:
        return half.to(precision.products)[:, None]
    parts = []
    for _ in range(precision.norm_columns):
        parts.append(half.to(torch.bfloat16))
        half = half - parts[-1].to(torch.float64)
    return torch.stack(parts, 1).to(precision.products)
