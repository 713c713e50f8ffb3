"""List the pairs of rows that may be neighbours, by computing a lower bound of the distance of every pair.

A matrix product computes the lower bounds of one tile, which is a block in the matrix of all pairs. The bounds allow
for rounding errors. The page docs/exact-neighbours.md derives the constants in this module.
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
PIECE = 2048  # number of vector columns in one matrix product


class Precision(NamedTuple):
    """The floating-point formats in which one pass of the neighbour search computes lower bounds.

    ``vectors``: the dtype in which vectors are stored. ``products``: the dtype in which vectors are multiplied.
    ``slack``: the constant t in Theorem 3 of docs/exact-neighbours.md. ``matmul_precision``: the argument of
    ``torch.set_float32_matmul_precision``.
    """

    vectors: torch.dtype
    products: torch.dtype
    slack: float
    matmul_precision: str


BFLOAT16 = Precision(torch.bfloat16, torch.float32, 2.0**-7, "medium")
FLOAT32 = Precision(torch.float32, torch.float32, 2.0**-10, "highest")
FLOAT64 = Precision(torch.float64, torch.float64, 2.0**-10, "highest")


class Operand:
    """The groups of equal rows on one side of the matrix products, ordered so that groups near each other share a tile.

    ``ids``: (G,), the group indices. ``vectors``: one vector per group, stored if all vectors fit in ``memory`` bytes.
    ``half_norms``: (G,), half of each vector's squared norm, reduced by bounds of the rounding errors. Theorem 3 of
    docs/exact-neighbours.md calls this number c. The dtype of ``half_norms`` is the dtype of the products.
    """

    def __init__(
        self, rows: Rows, groups: Groups, ids: Tensor, projection: Projection | None, precision: Precision, memory: int
    ) -> None:
        basis = None
        if projection is not None:
            ids = ids[projection.arrange(rows, groups.first[ids], LARGEST_TILE)]
            if projection.rank:  # a subset of the columns of a non-expansive basis is also non-expansive
                basis = projection.basis[:, : projection.rank]
        self.ids, self.precision = ids, precision
        self.vectors = ProjectedRows(rows, groups.first[ids], basis, precision.vectors, memory)
        self.half_norms = _half_norms(self.vectors, precision)

    def tiles(self, size: int) -> list[slice]:
        """Divide the groups into tiles of ``size`` successive groups, and return the slice of each tile."""
        count = len(self.ids)
        return [slice(start, min(start + size, count)) for start in range(0, count, size)]


class TiledProducts:
    """Compute a lower bound for every pair of a left and a right group, one tile of pairs at a time.

    One tile and one list of candidate pairs together take at most ``memory`` bytes. ``radius``: (G,) float64, one
    search radius per group. A pair is a candidate if its distance may be at most the radius of its left group. If both
    operands are the same object, only pairs above the diagonal are computed. In this case, a pair is also a candidate
    if its distance may be at most the radius of its right group. A group with a negative radius makes no pair a
    candidate.
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
        """Yield each candidate pair once, in batches of three tensors: left groups, right groups and lower bounds.

        Each batch overwrites the tensors of the batch before. The caller may lower radii between batches. Tiles that
        are computed afterwards use the lower radii.
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
        """Yield each slice of left groups, and the slice of right groups with the nearest mean vector."""
        rows, columns, distances = self._tiles()
        yield from zip(rows, (columns[index] for index in distances.argmin(1).tolist()), strict=True)

    def lower_bounds(self, rows: slice, columns: slice) -> Tensor:
        """Return a tile's lower bounds of half the squared distances: c_i + c_j - w_i w_j, of shape (rows, columns).

        Theorem 3 in docs/exact-neighbours.md defines c and w. The next call overwrites the returned tensor.
        """
        height, width = rows.stop - rows.start, columns.stop - columns.start
        products = self._products[: height * width].view(height, width)
        torch.add(self.left.half_norms[rows, None], self.right.half_norms[columns], out=products)
        for start in range(0, self.left.vectors.width, PIECE):
            piece = slice(start, start + PIECE)
            one, other = self.left.vectors.of(rows, piece), self.right.vectors.of(columns, piece)
            products.addmm_(one.to(products.dtype), other.to(products.dtype).T, alpha=-1)
        return products

    def _of_tile(self, rows: slice, columns: slice) -> tuple[Tensor, Tensor, Tensor]:
        """Return the left groups, the right groups and the lower bounds of the candidate pairs in one tile."""
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
        """Return, for each group, the largest lower bound that a candidate pair may have, rounded upwards."""
        radius = self.radius[ids]
        exact = radius.square().mul_((1 + self.left.precision.slack) / 2).to(self._products.dtype)
        return exact.nextafter(exact.new_tensor(math.inf)).masked_fill_(radius < 0, -math.inf)

    def _nearest_first(self) -> Iterator[tuple[slice, slice]]:
        """Yield every tile, in ascending order of the distance between its left and its right mean vector."""
        rows, columns, distances = self._tiles()
        for index in distances.flatten().argsort().tolist():
            one, other = divmod(index, len(columns))
            if not self.symmetric or one <= other:
                yield rows[one], columns[other]

    def _tiles(self) -> tuple[list[slice], list[slice], Tensor]:
        """Return the slices of left and of right groups, and the distances between their mean vectors."""
        rows, columns = self.left.tiles(self.tile), self.right.tiles(self.tile)
        one, other = (
            torch.stack([operand.vectors.of(tile, slice(PIECE)).to(torch.float64).mean(0) for tile in tiles])
            for operand, tiles in ((self.left, rows), (self.right, columns))
        )
        return rows, columns, torch.cdist(one, other)


def _half_norms(vectors: ProjectedRows, precision: Precision) -> Tensor:
    """Return half of each vector's squared norm, reduced by bounds of the rounding errors, (G,).

    Theorem 3 of docs/exact-neighbours.md calls the result c.
    """
    terms = vectors.width + 2
    unit = torch.finfo(precision.products).eps / 2
    accumulated = 4 * terms * unit
    relative = accumulated / (1 - accumulated) + 3 * unit + terms * 2.0**-52
    absolute = 16 * terms * torch.finfo(precision.products).tiny
    half = vectors.norms * (0.5 - relative) - absolute / 2
    half -= 1.25 * (1 + 1 / precision.slack) * vectors.error.square()
    return half.to(precision.products)
