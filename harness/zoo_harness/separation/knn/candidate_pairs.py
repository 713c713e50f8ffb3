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

    ``vectors``: dtype in which vectors are kept. ``products``: dtype in which they are multiplied. ``slack``: t in
    docs/exact-neighbours.md. ``matmul_precision``: torch's setting for float32 products.
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

    ``ids``: (G,), the groups. ``vectors``: theirs, kept if they fit in ``memory`` bytes. ``half_norms``: (G,),
    half of each squared norm minus bounds of the rounding errors (c in docs/exact-neighbours.md), in the dtype of the
    products.
    """

    def __init__(
        self, rows: Rows, groups: Groups, ids: Tensor, projection: Projection | None, precision: Precision, memory: int
    ) -> None:
        basis = None
        if projection is not None:
            ids = ids[projection.arrange(rows, groups.first[ids], LARGEST_TILE)]
            if projection.rank:  # a part of a non-expansive basis is one too
                basis = projection.basis[:, : projection.rank]
        self.ids, self.precision = ids, precision
        self.vectors = ProjectedRows(rows, groups.first[ids], basis, precision.vectors, memory)
        self.half_norms = _half_norms(self.vectors, precision)

    def tiles(self, size: int) -> list[slice]:
        """Return the rows of each tile."""
        count = len(self.ids)
        return [slice(start, min(start + size, count)) for start in range(0, count, size)]


class TiledProducts:
    """Products of all pairs of two operands, a tile at a time, in ``memory`` bytes for a tile and a list of pairs.

    If the operands are one, only pairs above the diagonal are computed. ``radius``: (G,) float64, of all groups. A pair
    is a candidate if its distance may be at most the radius of its left group, or, if the operands are one, of either
    group. A negative radius excludes every pair.
    """

    def __init__(self, left: Operand, right: Operand, radius: Tensor, memory: int) -> None:
        self.left, self.right, self.radius, self._memory = left, right, radius, memory
        self.symmetric = left is right
        width, item = min(left.vectors.width, PIECE), left.half_norms.itemsize
        self.tile = LARGEST_TILE
        while self.tile > SMALLEST_TILE and self.tile * width * 2 * item + self.tile**2 * (item + 34) > memory:
            self.tile //= 2
        self._products = left.half_norms.new_empty(min(self.tile, len(left.ids)) * min(self.tile, len(right.ids)))

    def candidates(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield the candidate pairs, each once, in lists of bounded length: left groups, right groups and products.

        The next list overwrites a list. Radii that the caller lowers in between count from then on.
        """
        full = max(min(self._memory // 128, len(self.left.ids) * len(self.right.ids)), 1)
        room = full + len(self._products)
        buffer = [part.new_empty(room) for part in (self.left.ids, self.right.ids, self._products)]
        count = 0
        for tile in self._nearest_first():
            found = self._of_tile(*tile)
            for part, values in zip(buffer, found, strict=True):
                part[count : count + len(values)] = values
            count += len(found[0])
            if count > full:
                yield buffer[0][:count], buffer[1][:count], buffer[2][:count]
                count = 0
        yield buffer[0][:count], buffer[1][:count], buffer[2][:count]

    def nearest_tiles(self) -> Iterator[tuple[slice, slice]]:
        """Yield each tile's rows with the columns of the tile that is nearest to these."""
        rows, columns, distances = self._tiles()
        yield from zip(rows, (columns[index] for index in distances.argmin(1).tolist()), strict=True)

    def lower_bounds(self, rows: slice, columns: slice) -> Tensor:
        """Return the products of a tile, c_i + c_j - w_i w_j, (rows, columns); the next call overwrites them."""
        height, width = rows.stop - rows.start, columns.stop - columns.start
        products = self._products[: height * width].view(height, width)
        torch.add(self.left.half_norms[rows, None], self.right.half_norms[columns], out=products)
        for start in range(0, self.left.vectors.width, PIECE):
            piece = slice(start, start + PIECE)
            one, other = self.left.vectors.of(rows, piece), self.right.vectors.of(columns, piece)
            products.addmm_(one.to(products.dtype), other.to(products.dtype).T, alpha=-1)
        return products

    def _of_tile(self, rows: slice, columns: slice) -> tuple[Tensor, Tensor, Tensor]:
        """Return the candidate pairs of a tile."""
        left, right = self.left.ids[rows], self.right.ids[columns]
        reach = torch.cat([left, right]) if self.symmetric else left
        if float(self.radius[reach].max()) < 0:
            return left[:0], right[:0], self._products[:0]
        products = self.lower_bounds(rows, columns)
        kept = products <= self._thresholds(left)[:, None]
        if self.symmetric:
            kept |= products <= self._thresholds(right)
            if rows == columns:
                kept.triu_(1)
        row, column = kept.nonzero(as_tuple=True)
        return left[row], right[column], products[row, column]

    def _thresholds(self, ids: Tensor) -> Tensor:
        """Return the largest product at which a pair of each group is a candidate, rounded upwards."""
        radius = self.radius[ids]
        exact = radius.square().mul_((1 + self.left.precision.slack) / 2).to(self._products.dtype)
        return exact.nextafter(exact.new_tensor(math.inf)).masked_fill_(radius < 0, -math.inf)

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
            torch.stack([operand.vectors.of(tile, slice(PIECE)).to(torch.float64).mean(0) for tile in tiles])
            for operand, tiles in ((self.left, rows), (self.right, columns))
        )
        return rows, columns, torch.cdist(one, other)


def _half_norms(vectors: ProjectedRows, precision: Precision) -> Tensor:
    """Return half of each squared norm minus bounds of the rounding errors, (G,): c in docs/exact-neighbours.md."""
    terms = vectors.width + 2
    unit = torch.finfo(precision.products).eps / 2
    accumulated = 4 * terms * unit
    relative = accumulated / (1 - accumulated) + 3 * unit + terms * 2.0**-52
    absolute = 16 * terms * torch.finfo(precision.products).tiny
    half = vectors.norms * (0.5 - relative) - absolute / 2
    half -= 1.25 * (1 + 1 / precision.slack) * vectors.error.square()
    return half.to(precision.products)
