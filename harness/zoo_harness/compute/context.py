"""Define the settings of a run's computation: device, precision, seed and processes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from zoo_harness.compute.distributed import ALONE, Processes
from zoo_harness.records.option_checks import CacheDtype


@dataclass(frozen=True)
class ComputeContext:
    """Hold the settings that affect a run's results besides the data and the training settings."""

    device: torch.device
    precision: str = "fp32"
    predict: Literal["cls", "mean"] = "cls"
    seed: int = 0
    deterministic: bool = False
    compiled: bool = False
    cache_dtype: CacheDtype = "exact"
    processes: Processes = ALONE
