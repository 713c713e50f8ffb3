"""The CUDA kernel that compares rows in float64, with the sums of :mod:`zoo_harness.equal_rows`, bit for bit.

Torch writes each step to memory, some twenty times the size of the rows in all; here only the rows are read. In a sum
there the second half of the terms is added to the first until one is left, (w + 1) // 2 of w terms being the first
half. Here the terms are put where bit by bit of the place, the highest first, says which half of what is left they are
in. A place that no term has is 0, and adding 0 to a square changes nothing. So each step adds two equal halves.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from zoo_harness.compute.triton_support import launching_on

WIDEST = 8192  # terms that the registers of a block can hold


def squared_distances(features: Tensor, scale: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """Return the squared distance, (P,) float64, of each row in ``left`` from its partner in ``right``.

    ``features``: (N, at most ``WIDEST``), rows contiguous. ``scale``: (1,) float64, what each number is multiplied by.
    """
    result = torch.empty(len(left), dtype=torch.float64, device=features.device)
    width = features.shape[1]
    if len(left) == 0:
        return result
    with launching_on(features.device):
        compare_rows[(len(left),)](
            features,
            scale,
            left,
            right,
            result,
            width,
            features.stride(0),
            levels=(width - 1).bit_length(),
            num_warps=4,
            enable_fp_fusion=False,  # one rounding for a product and a sum would change the bits
        )
    return result


@triton.jit
def compare_rows(features, scale, left, right, result, width, stride, levels: tl.constexpr):
    """Compare the pair of this program."""
    pair = tl.program_id(0)
    place = tl.arange(0, 1 << levels)
    column = place * 0
    present = column == 0
    for step in tl.static_range(levels):  # the last halves first
        level = levels - 1 - step
        column += ((place >> step) & 1) * ((width + (2 << level) - 1) >> (level + 1))
        present &= column < ((width + (1 << level) - 1) >> level)
    factor = tl.load(scale)
    here = _row(features + tl.load(left + pair).to(tl.int64) * stride, column, present)
    there = _row(features + tl.load(right + pair).to(tl.int64) * stride, column, present)
    apart = here * factor - there * factor
    terms = apart * apart
    for step in tl.static_range(levels):
        terms = tl.sum(tl.reshape(terms, (2, 1 << (levels - 1 - step))), 0)
    tl.store(result + pair + tl.arange(0, 1), terms)


@triton.jit
def _row(start, column, present):
    values = tl.load(start + column, mask=present, other=0)
    if values.dtype == tl.bfloat16:
        values = values.to(tl.float32)
    return values.to(tl.float64)
