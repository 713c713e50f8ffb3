"""Products in full precision, whatever the caller has set."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch


@contextmanager
def full_precision(device: torch.device, setting: str = "highest") -> Iterator[None]:
    """Rule out TF32, bfloat16 and autocast inside the block; afterwards the settings are what they were.

    With the setting ``"medium"`` float32 products may be computed in bfloat16, for numbers that fit into it.

    >>> with torch.autocast("cpu"), full_precision(torch.device("cpu")):
    ...     (torch.ones(1, 1) @ torch.ones(1, 1)).dtype
    torch.float32
    """
    backends: Any = torch.backends
    # Before torch 2.9 there is one setting for all; since then it sets a switch of each backend too.
    switches = (backends.cuda.matmul, backends.mkldnn.matmul) if hasattr(backends.mkldnn, "matmul") else ()
    before = [switch.fp32_precision for switch in switches]
    former = "highest"
    with suppress(RuntimeError):  # raised where the user set a switch to something else than the setting
        former = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision(setting)
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(former)
        for switch, precision in zip(switches, before, strict=True):
            switch.fp32_precision = precision
