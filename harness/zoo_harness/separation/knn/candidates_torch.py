"""Candidates torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from zoo_harness.separation.knn.candidates import Pairs, Side, Tile

LARGEST_TILE, SMALLEST_TILE = 2048, 16
PIECE = 2048  # columns at a time of whole rows that are too many to be kept


class TiledProducts:
    """The survivors by torch: each tile's products are one matrix in memory.

    ``memory``: bytes for a tile and, if pairs are ``listed`` at all, for lists of them.
    """

    def __init__(self, left: Side, right: Side, memory: int, *, listed: bool = True) -> None:
        self.left, self.right, self._memory = left, right, memory
        width, item = left.coarse.width + 2 * left.half.shape[1], left.limit.itemsize
        self._in_pieces = left.coarse.in_pieces or right.coarse.in_pieces
        if self._in_pieces:
            width = min(width, PIECE)
        per_pair = item + (34 if listed else 2)
        tile = LARGEST_TILE
        while tile > SMALLEST_TILE and tile * width * 2 * item + tile**2 * per_pair > memory:
            tile //= 2
        self.tile = tile
        self._most = tuple(min(tile, len(side.limit)) for side in (left, right))
        self._sides = tuple(left.limit.new_empty(0 if self._in_pieces else size, width) for size in self._most)
        self._products = left.limit.new_empty(self._most[0] * self._most[1])

    def lower_bounds(self, rows: slice, columns: slice) -> Tensor:
        """The products of a tile, (rows, columns); the next overwrite them."""
        height, width = rows.stop - rows.start, columns.stop - columns.start
        products = self._products[: height * width].view(height, width)
        if self._in_pieces:
            return self._sum_of_pieces(rows, columns, products)
        one, other = self._sides[0][:height], self._sides[1][:width]
        self.left.fill(one, rows, left=True)
        self.right.fill(other, columns, left=False)
        return torch.mm(one, other.T, out=products)

    def _sum_of_pieces(self, rows: slice, columns: slice, products: Tensor) -> Tensor:
        """The same of whole rows, some of their columns at a time: of wide ones a large tile would not fit."""
        torch.add(self.left.half[rows].sum(1)[:, None], self.right.half[columns].sum(1), out=products)
        for start in range(0, self.left.coarse.width, PIECE):
            piece = slice(start, min(start + PIECE, self.left.coarse.width))
            one = self.left.coarse.piece(rows, piece).to(products.dtype)
            other = self.right.coarse.piece(columns, piece).to(products.dtype)
            products.addmm_(one, other.T, alpha=-1)
        return products

    def survivors(self, tiles: Iterable[Tile], *, symmetric: bool) -> Iterator[Pairs]:
        """Yield as :class:`Survivors` says, once there are many and at the end."""
        full = max(min(self._memory // 128, len(self.left.limit) * len(self.right.limit)), 1)
        room = full + self._most[0] * self._most[1]
        device = self._products.device
        rows, columns = (torch.empty(room, dtype=torch.int64, device=device) for _ in range(2))
        listed = Pairs(rows, columns, self._products.new_empty(room))
        count = 0
        for tile in tiles:
            count += self._list(tile, Pairs(*(part[count:] for part in listed)), symmetric=symmetric)
            if count > full:
                yield Pairs(*(part[:count] for part in listed))
                count = 0
        yield Pairs(*(part[:count] for part in listed))

    def _list(self, tile: Tile, room: Pairs, *, symmetric: bool) -> int:
        """Write the survivors of a tile to the beginning of ``room``; return how many they are."""
        rows, columns = tile
        row_limit, column_limit = self.left.limit[rows], self.right.limit[columns]
        if max(float(row_limit.max()), float(column_limit.max())) == -torch.inf:
            return 0
        lower = self.lower_bounds(rows, columns)
        survives = lower <= row_limit[:, None]
        if symmetric:
            survives |= lower <= column_limit
        if symmetric and rows == columns:
            survives.triu_(1)
        row, column = survives.nonzero(as_tuple=True)
        torch.add(row, rows.start, out=room.rows[: len(row)])
        torch.add(column, columns.start, out=room.columns[: len(row)])
        room.lower[: len(row)] = lower[row, column]
        return len(row)
