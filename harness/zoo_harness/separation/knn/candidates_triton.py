"""The survivors of :mod:`zoo_harness.survivors` by one CUDA kernel: product, comparison with limits, and list in one.

A product in torch is written to memory, read again to be compared, and waited for, tile by tile. Here one launch takes
many tiles, and each block of a tile stays in registers: only pairs that survive are written.

* A block computes its part of the product, in float32, and counts its survivors.
* It reserves so many places at the end of the list with one atomic addition, and fills them. If they are more than
  there is room for it writes nothing: it notes that it failed, and so does every block that comes later.
* The blocks that failed are launched again after the list has been used, with limits that are tighter by then. The
  first to come to an empty list always has room. So nothing is lost and nothing is listed twice.

The bound of :mod:`zoo_harness.neighbours` holds for what is computed here: the inner product of w_i and w_j in float32,
c_i, c_j and this subtracted from their sum. It is the same m terms in one of the orders that the bound allows, products
of bfloat16 numbers are exact in float32, and zeros that fill up the vectors add nothing to a sum. TF32 would round the
vectors: it is ruled out for float32.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, Self

import torch
from torch import Tensor

from zoo_harness.compute.triton_support import launching_on
from zoo_harness.separation.knn.candidates import KeptSide, Pairs, Shape, Tile
from zoo_harness.separation.knn.candidates_kernel import list_survivors

FIRST_SHARE, GROWTH, MOST_TILES = 16, 4, 1024  # a launch takes a 16th of all tiles, the next four times as many


class FusedProducts:
    """The survivors among tiles of two sides whose vectors are kept, in memory for ``capacity`` pairs or a block's."""

    def __init__(self, left: KeptSide, right: KeptSide, capacity: int, shape: Shape) -> None:
        self.left, self.right, self.shape = left, right, shape
        self._vectors = _kept(left, shape), _kept(right, shape)
        # A sum of up to three parts, which are terms of the product like any other.
        self._halves = left.half.sum(1), right.half.sum(1)
        self.capacity = max(capacity, shape.rows * shape.columns)
        device = self._vectors[0].device
        self._places = [torch.empty(self.capacity, dtype=torch.int32, device=device) for _ in range(2)]
        self._lower = torch.empty(self.capacity, dtype=torch.float32, device=device)

    def survivors(self, tiles: Iterable[Tile], *, symmetric: bool) -> Iterator[Pairs]:
        """Yield as :class:`zoo_harness.survivors.Survivors` says; limits may be tightened between."""
        for some in _batches(list(tiles)):
            blocks = self._blocks(some, symmetric=symmetric)
            while len(blocks):
                found, blocks = self._launch(blocks, symmetric=symmetric)
                yield found

    def _blocks(self, tiles: Sequence[Tile], *, symmetric: bool) -> Tensor:
        """First and last row and column, each last one excluded, of every block of the tiles, (B, 4) int32."""
        edges = torch.tensor([(*_ends(rows), *_ends(columns)) for rows, columns in tiles], dtype=torch.int32)
        height, width = (int((edges[:, place + 1] - edges[:, place]).max()) for place in (0, 2))
        down = torch.arange(0, height, self.shape.rows, dtype=torch.int32)
        across = torch.arange(0, width, self.shape.columns, dtype=torch.int32)
        blocks = edges[:, None, None, :].repeat(1, len(down), len(across), 1)
        blocks[..., 0] += down[:, None]
        blocks[..., 2] += across
        blocks = blocks.flatten(0, 2)
        inside = (blocks[:, 0] < blocks[:, 1]) & (blocks[:, 2] < blocks[:, 3])
        if symmetric:  # some column is after some row
            inside &= torch.minimum(blocks[:, 3], blocks[:, 2] + self.shape.columns) - 1 > blocks[:, 0]
        return blocks[inside].to(self._lower.device)

    def _launch(self, blocks: Tensor, *, symmetric: bool) -> tuple[Pairs, Tensor]:
        """The survivors of all blocks that found room, and the other blocks."""
        taken = torch.full((len(blocks),), -1, dtype=torch.int32, device=blocks.device)
        reserved = torch.zeros(1, dtype=torch.int64, device=blocks.device)
        vectors, shape = self._vectors, self.shape
        with launching_on(blocks.device):
            list_survivors[(len(blocks),)](
                *vectors,
                *self._halves,
                self.left.limit,
                self.right.limit,
                blocks,
                taken,
                reserved,
                *self._places,
                self._lower,
                self.capacity,
                vectors[0].shape[1],
                symmetric=symmetric,
                rows=shape.rows,
                columns=shape.columns,
                depth=shape.depth,
                num_warps=shape.warps,
                num_stages=shape.stages,
                enable_fp_fusion=False,
            )
        count, failed = int(reserved), blocks[:0]
        if count > self.capacity:
            # Places are reserved one after the other, so that those before the first failure are all filled.
            count, failed = int(taken.clamp(min=0).sum()), blocks[taken < 0]
        rows, columns = (place[:count].to(torch.int64) for place in self._places)
        return Pairs(rows, columns, self._lower[:count]), failed


def _kept(side: KeptSide, shape: Shape) -> Tensor:
    """The vectors with the zeros that fill up each, (G, a multiple of the shape's depth)."""
    vectors = side.vectors
    assert vectors is not None  # noqa: S101 - the caller chooses this class for vectors that are kept
    width = -(-vectors.shape[1] // shape.depth) * shape.depth
    if vectors.stride(0) == width:
        return vectors.as_strided((len(vectors), width), (width, 1))
    raise AssertionError(f"vectors of {vectors.shape[1]} numbers lie {vectors.stride(0)} apart, not {width}")


def _batches(tiles: Sequence[Tile]) -> Iterator[Sequence[Tile]]:
    """The tiles, few at first: what the first leave of the radii spares survivors later."""
    start, size = 0, max(1, len(tiles) // FIRST_SHARE)
    while start < len(tiles):
        yield tiles[start : start + size]
        start, size = start + size, min(size * GROWTH, MOST_TILES)


def _ends(place: slice) -> tuple[int, int]:
    return place.start, place.stop


def finds_what_it_must(device: torch.device, dtype: torch.dtype, shape: Shape, *, symmetric: bool) -> bool:
    """Whether the kernel agrees with torch on small integers, whose products are exact in any arithmetic."""
    count = 2 * shape.columns + 3
    sides = [_Integers.of(seed, count, shape.depth, dtype, device) for seed in range(1 if symmetric else 2)]
    left, right = sides[0], sides[-1]
    whole = slice(0, count)
    (found,) = FusedProducts(left, right, count**2, shape).survivors([(whole, whole)], symmetric=symmetric)
    lower = left.half + right.half.T - (left.vectors.float() @ right.vectors.float().T)
    survives = lower <= left.limit[:, None]
    if symmetric:
        survives = (survives | (lower <= right.limit)).triu(1)
    seen = torch.zeros_like(survives)
    seen[found.rows, found.columns] = True
    right_bounds = torch.equal(found.lower, lower[found.rows, found.columns])
    return right_bounds and len(found.rows) == int(survives.sum()) and torch.equal(seen, survives)


class _Integers(NamedTuple):
    vectors: Tensor
    half: Tensor
    limit: Tensor

    @classmethod
    def of(cls, seed: int, count: int, depth: int, dtype: torch.dtype, device: torch.device) -> Self:
        generator = torch.Generator("cpu").manual_seed(seed)

        def draw(*shape: int) -> Tensor:
            return torch.randint(-4, 5, shape, generator=generator, device="cpu").to(device, dtype)

        return cls(draw(count, 2 * depth), draw(count, 1).float() + 60, draw(count).float())
