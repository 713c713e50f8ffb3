"""The pairs of groups that a search cannot exclude: products of their vectors, held against limits, tile by tile.

Two classes do it, with one contract: :class:`TiledProducts` by torch, on any device, and
:class:`zoo_harness.survivors_triton.FusedProducts` by a kernel for CUDA. :func:`kernel_shape` chooses.
"""

from __future__ import annotations

from functools import cache

import torch

from zoo_harness.compute.triton_support import can_run, proves_itself
from zoo_harness.separation.knn.candidates import Shape

FEWEST_PAIRS = 2**24  # fewer are compared before a kernel is compiled
_HOPPER = Shape(128, 256, 64, 8, 4)
_AMPERE = Shape(128, 128, 32, 8, 3)  # 32 KiB of shared memory: in reach of every later device too
FLOAT32 = Shape(64, 64, 16, 4, 2)


def kernel_shape(device: torch.device, dtype: torch.dtype, pairs: int, *, symmetric: bool) -> Shape | None:
    """How the kernel is to cut vectors of this dtype; ``None`` where torch is to do its work.

    >>> kernel_shape(torch.device("cpu"), torch.bfloat16, 10**9, symmetric=True)
    """
    if pairs < FEWEST_PAIRS or dtype not in (torch.bfloat16, torch.float32) or not can_run(device):
        return None
    hopper = torch.cuda.get_device_capability(device)[0] == 9
    shape = FLOAT32 if dtype is torch.float32 else _HOPPER if hopper else _AMPERE
    return shape if _kernel_works(device, dtype, shape, symmetric) else None


@cache
def _kernel_works(device: torch.device, dtype: torch.dtype, shape: Shape, symmetric: bool) -> bool:
    def example() -> bool:
        from zoo_harness.separation.knn.candidates_triton import finds_what_it_must

        return finds_what_it_must(device, dtype, shape, symmetric=symmetric)

    return proves_itself("products", device, example)
