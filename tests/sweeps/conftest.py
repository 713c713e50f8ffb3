"""Sweeps of tiny networks with random weights on a few digits; a run takes half a second."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from zoo_harness.sweeps.plan import Plan, read_plan

TINY = {"backbones": ["timm:test_vit"], "datasets": ["digits"], "weights": "random", "per_class": 2, "epochs": 2}
TINY |= {"layer_curve": False}


@pytest.fixture
def tiny(tmp_path: Path) -> Callable[..., Plan]:
    """Return the plan of a sweep into a folder of the test, with the given keys in place of those of ``TINY``."""
    return lambda **keys: read_plan({**TINY, **keys}, {}, tmp_path / "sweep")


@pytest.fixture
def table() -> dict[str, Any]:
    return dict(TINY)
