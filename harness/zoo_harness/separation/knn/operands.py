"""Prepare one operand of the matrix products whose entries bound distances, with an allowance for rounding errors.

docs/exact-neighbours.md derives the numbers used here.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from zoo_harness.separation.knn.duplicates import Groups
from zoo_harness.separation.knn.lower_bounds import Frame, ProjectedRows
from zoo_harness.separation.knn.projection import Projection

LARGEST_TILE = 2048


class Precision(NamedTuple):
    """The arithmetic of a pass.

    ``vectors``: dtype in which vectors are kept. ``products``: dtype in which they are multiplied. ``slack``: t of the
    proof. ``matmul_precision``: torch's setting for float32 products.
    """

    vectors: torch.dtype
    products: torch.dtype
    slack: float
    matmul_precision: str

    @property
    def norm_columns(self) -> int:
        """The number of columns for c: three, as a sum of bfloat16 numbers, or one."""
        return 3 if self.vectors is torch.bfloat16 else 1


BFLOAT16 = Precision(torch.bfloat16, torch.float32, 2.0**-7, "medium")
FLOAT32 = Precision(torch.float32, torch.float32, 2.0**-10, "highest")
FLOAT64 = Precision(torch.float64, torch.float64, 2.0**-10, "highest")


class Operand:
    """Groups on one side of the products, ordered so that groups near each other share a tile.

    ``ids``: (G,), the groups. ``coarse``: their vectors for all pairs. ``fine``: longer vectors for the pairs that
    pass, or ``None``. ``half_norms``: (G, 1 or 3), c of the proof, about half the squared norm. ``threshold``: (G,),
    the largest product at which a pair of the group is kept.
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
        """Compute the vectors, and keep them if they fit in ``memory`` bytes."""
        self.ordered = projection is not None
        if projection is not None:
            ids = ids[projection.arrange(frame, groups.first[ids], LARGEST_TILE)]
        first = groups.first[ids]
        coarse = projection.coarse if projection else None
        fine = projection.fine if projection else None
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
