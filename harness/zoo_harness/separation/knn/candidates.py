"""Candidates."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple, Protocol

from torch import Tensor

from zoo_harness.separation.knn.lower_bounds import Contraction

Tile = tuple[slice, slice]  # of rows and of columns


class KeptSide(Protocol):
    """Groups on one side of the products, in the order in which tiles take them.

    ``half``: (G, 1 or 3), c of :mod:`zoo_harness.neighbours`, as the parts of a sum. ``limit``: (G,), what a product
    may be at most for its pair to survive.
    """

    @property
    def half(self) -> Tensor:
        """Each group's own part of a product."""

    @property
    def limit(self) -> Tensor:
        """As of now: it may be another tensor later."""

    @property
    def vectors(self) -> Tensor | None:
        """The vectors w, (G, width), where they are kept."""


class Side(KeptSide, Protocol):
    """The same, whether the vectors are kept or not."""

    @property
    def coarse(self) -> Contraction:
        """The vectors, or what computes them."""

    def fill(self, side: Tensor, place: slice, *, left: bool) -> None:
        """Write the rows of one side of a product."""


class Pairs(NamedTuple):
    """Pairs that survive: their places on either side, (P,) int64, and their lower bounds, (P,)."""

    rows: Tensor
    columns: Tensor
    lower: Tensor


class Survivors(Protocol):
    """What finds the pairs that survive."""

    def survivors(self, tiles: Iterable[Tile], *, symmetric: bool) -> Iterator[Pairs]:
        """Yield the pairs of the tiles whose product is at most the limit of the row, each once, as they are found.

        If ``symmetric`` the two sides are one: a pair also survives by the limit of its column, and of a pair and
        its mirror image, and of nothing but these, only the one above the diagonal is seen. What is yielded is
        overwritten later. Limits that are lowered in between count from then on.
        """


class Shape(NamedTuple):
    """How the kernel cuts the work: pairs of a block, numbers of a step of its product, warps, steps in flight."""

    rows: int
    columns: int
    depth: int
    warps: int
    stages: int
