"""Operand."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from zoo_harness.separation.knn.candidates_torch import LARGEST_TILE
from zoo_harness.separation.knn.duplicates import Groups
from zoo_harness.separation.knn.lower_bounds import Contraction, Frame
from zoo_harness.separation.knn.projection import Directions


class Precision(NamedTuple):
    """What vectors are kept in, what products are computed in, the t of the module's text, and torch's name for it."""

    vectors: torch.dtype
    products: torch.dtype
    slack: float
    setting: str

    @property
    def ends(self) -> int:
        """Numbers that c takes, and the ones beside it."""
        return 3 if self.vectors is torch.bfloat16 else 1


BFLOAT16 = Precision(torch.bfloat16, torch.float32, 2.0**-7, "medium")
FLOAT32 = Precision(torch.float32, torch.float32, 2.0**-10, "highest")
FLOAT64 = Precision(torch.float64, torch.float64, 2.0**-10, "highest")


class Operand:
    """Groups on one side of the products, in the order in which tiles take them.

    ``half``: c of the module's text. ``limit``: what a product may be at most for its pair to survive.
    """

    def __init__(
        self,
        frame: Frame,
        groups: Groups,
        ids: Tensor,
        directions: Directions | None,
        precision: Precision,
        keep: int,
        multiple: int = 1,
    ) -> None:
        if directions is not None:
            ids = ids[directions.arrange(frame, groups.first[ids], LARGEST_TILE)]
        first = groups.first[ids]
        coarse = directions.coarse if directions else None
        fine = directions.fine if directions else None
        width = frame.width if coarse is None else coarse.shape[1] + 1
        room = keep // len(ids)  # bytes of a row that may be kept
        self.ids, self.precision = ids, precision
        short = -(-width // multiple) * multiple * precision.vectors.itemsize
        self.coarse = Contraction(frame, first, coarse, precision.vectors, keep=short <= room, multiple=multiple)
        self.fine = None
        if fine is not None and coarse is not None:
            fitting = fine[:, : max(0, (room - short) // 4 - 1)]  # of a shorter basis all that is said holds as well
            if fitting.shape[1] > coarse.shape[1]:
                self.fine = Contraction(frame, first, fitting, torch.float32, keep=True)
        self.half = _half(self.coarse, precision)
        self.limit = torch.empty(len(ids), dtype=precision.products, device=ids.device)

    @property
    def vectors(self) -> Tensor | None:
        """The vectors w, where they are kept."""
        return self.coarse.vectors

    def tighten(self, radius: Tensor) -> None:
        """Take over the radii, (G,) float64."""
        exact = radius[self.ids].square().mul_((1 + self.precision.slack) / 2)
        self.limit = exact.to(self.limit.dtype).nextafter(self.limit.new_tensor(math.inf))
        self.limit[radius[self.ids] < 0] = -math.inf  # of those that ask for nothing

    def fill(self, side: Tensor, place: slice, *, left: bool) -> None:
        """Write the rows of one side of a product, (w, c, 1) for the left and (-w, 1, c) for the right."""
        ends, width = self.precision.ends, self.coarse.width
        side[:, :width] = self.coarse.of(place)
        halves, ones = slice(width, width + ends), slice(width + ends, None)
        side[:, halves if left else ones] = self.half[place]
        side[:, ones if left else halves] = 1
        if not left:
            side[:, :width].neg_()


def _half(vectors: Contraction, precision: Precision) -> Tensor:
    """The numbers c of the module's text, (G, 1), or (G, 3) as the parts of a sum."""
    terms = vectors.width + 2 * precision.ends
    unit = torch.finfo(precision.products).eps / 2
    accumulated = 4 * terms * unit
    relative = accumulated / (1 - accumulated) + 3 * unit + terms * 2.0**-52
    absolute = 16 * terms * torch.finfo(precision.products).tiny
    half = vectors.norms * (0.5 - relative) - absolute / 2
    half -= 1.25 * (1 + 1 / precision.slack) * vectors.error.square()
    if precision.ends == 1:
        return half.to(precision.products)[:, None]
    parts = []
    for _ in range(precision.ends):
        parts.append(half.to(torch.bfloat16))
        half = half - parts[-1].to(torch.float64)
    return torch.stack(parts, 1).to(precision.products)
