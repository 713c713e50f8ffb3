"""List the candidate pairs of a search: those whose lower bound does not exclude them, computed tile by tile."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from zoo_harness.separation.knn.operands import LARGEST_TILE, Operand

SMALLEST_TILE = 16
PIECE = 2048  # columns at a time of whole rows that are too many to be kept
Tile = tuple[slice, slice]  # rows and columns of the matrix of all pairs


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
        self._sizes = tuple(min(tile, len(operand.ids)) for operand in (left, right))
        self._factors = tuple(left.threshold.new_empty(0 if self._in_pieces else size, width) for size in self._sizes)
        self._products = left.threshold.new_empty(self._sizes[0] * self._sizes[1])

    def candidates(self) -> Iterator[CandidatePairs]:
        """Yield the pairs whose product is at most the threshold of the row, each once, in lists of bounded length.

        If the operands are one, a pair is also kept by the threshold of its column. The next list overwrites a list.
        Thresholds that the caller lowers in between count from then on.
        """
        full = max(min(self._memory // 128, len(self.left.ids) * len(self.right.ids)), 1)
        room = full + self._sizes[0] * self._sizes[1]
        rows, columns = (torch.empty(room, dtype=torch.int64, device=self._products.device) for _ in range(2))
        buffer = CandidatePairs(rows, columns, self._products.new_empty(room))
        count = 0
        for tile in self._tiles():
            count += self._list(tile, CandidatePairs(*(part[count:] for part in buffer)))
            if count > full:
                yield CandidatePairs(*(part[:count] for part in buffer))
                count = 0
        yield CandidatePairs(*(part[:count] for part in buffer))

    def nearest_tiles(self, count: int) -> Iterator[tuple[slice, list[slice]]]:
        """Yield each tile's rows with the columns of the ``count`` tiles that are nearest to these."""
        rows, columns = self._slices(self.left), self._slices(self.right)
        nearest = self._distances_of_tiles(rows, columns).argsort(1)[:, :count].tolist()
        for row, near in zip(rows, nearest, strict=True):
            yield row, [columns[index] for index in near]

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
            piece = slice(start, min(start + PIECE, self.left.coarse.width))
            one = self.left.coarse.piece(rows, piece).to(products.dtype)
            other = self.right.coarse.piece(columns, piece).to(products.dtype)
            products.addmm_(one, other.T, alpha=-1)
        return products

    def _list(self, tile: Tile, room: CandidatePairs) -> int:
        """Write the candidate pairs of a tile to the beginning of ``room``; return their number."""
        rows, columns = tile
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

    def _slices(self, operand: Operand) -> list[slice]:
        count = len(operand.ids)
        return [slice(start, min(start + self.tile, count)) for start in range(0, count, self.tile)]

    def _tiles(self) -> Iterator[Tile]:
        """Yield every tile, those with rows and columns near each other first."""
        rows, columns = self._slices(self.left), self._slices(self.right)
        for index in self._distances_of_tiles(rows, columns).flatten().argsort().tolist():
            one, other = divmod(index, len(columns))
            if not self.symmetric or one <= other:
                yield rows[one], columns[other]

    def _distances_of_tiles(self, rows: list[slice], columns: list[slice]) -> Tensor:
        if not self.left.ordered:  # any order will do in which each tile of rows meets another one each time
            apart = (torch.arange(len(columns)) - torch.arange(len(rows))[:, None]) % len(columns)
            return torch.minimum(apart, len(columns) - apart) if self.symmetric else apart

        def centres(operand: Operand, tiles: list[slice]) -> Tensor:
            return torch.stack([operand.coarse.of(tile).to(torch.float64).mean(0) for tile in tiles])

        return torch.cdist(centres(self.left, rows), centres(self.right, columns))
