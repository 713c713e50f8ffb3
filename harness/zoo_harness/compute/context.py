"""The device, the precision, the seed and the processes of a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from zoo_harness.compute.distributed import ALONE, Processes
from zoo_harness.records.option_checks import CacheDtype


@dataclass(frozen=True)
class ComputeContext:
    """The settings that determine the results of a run in addition to its data and its training settings."""

    device: torch.device
    precision: str = "fp32"
    predict: Literal["cls", "mean"] = "cls"
    seed: int = 0
    deterministic: bool = False
    compiled: bool = False
    cache_dtype: CacheDtype = "exact"
    processes: Processes = ALONE
