"""What the tests of the cache share: a key, its outputs, and a cache that is opened and filled with them."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo import Preprocessing
from zoo_harness.frozen.cache.activation_cache import ActivationCache
from zoo_harness.frozen.cache.key import CacheKey, EntryRecord, EntryTitle, TensorSpec
from zoo_harness.frozen.cache.placement import CachePolicy

IMAGES = 1300  # three chunks, the last one shorter
WIDTH = 16
ROW_BYTES = 4 * WIDTH
TITLE = EntryTitle(backbone="tiny", dataset="made up", split="train")
KEPT = TensorSpec(name="block", shape=(WIDTH,), dtype="float32", order=(0, 1))


def key_of(*kept: TensorSpec, images: int = IMAGES, **changes: Any) -> CacheKey:
    given = {
        "network": "test_resnet",
        "weights": "a" * 64,
        "kept": kept or (KEPT,),
        "preprocessing": Preprocessing((32, 32)),
        "images": images,
        "fingerprint": "b" * 64,
        "precision": "fp32",
        "device": "cpu",
    }
    return CacheKey(**{**given, **changes})


def digest_of(key: CacheKey | None = None, title: EntryTitle = TITLE) -> str:
    return EntryRecord(title=title, key=key or key_of()).digest


def outputs(start: int, stop: int) -> tuple[Tensor]:
    """Return what the frozen part puts out for these images."""
    return (torch.arange(start * WIDTH, stop * WIDTH, dtype=torch.float32).view(-1, WIDTH).sin(),)


def opened(folder: Path, cache: str = "disk", key: CacheKey | None = None, **options: Any) -> ActivationCache:
    policy = CachePolicy(cache, folder=folder, **options.pop("policy", {}))  # type: ignore[arg-type]
    return ActivationCache(key or key_of(), options.pop("title", TITLE), policy, torch.device("cpu"), **options)


def fill(cache: ActivationCache, prefix: Callable[[int, int], Any] = outputs, batch_size: int = 100) -> list[int]:
    """Run the pass and return the first images of the batches that it computed."""
    starts = []
    for start, stop in cache.missing(batch_size):
        cache.write(start, prefix(start, stop))
        starts.append(start)
    cache.finish()
    return starts


def is_right(cache: ActivationCache) -> bool:
    everything = np.random.default_rng(0).permutation(IMAGES)
    return torch.equal(cache.read(everything)[0], outputs(0, IMAGES)[0][everything])


def chunk_file(folder: Path, number: int) -> Path:
    return folder / digest_of() / f"{number:06d}.chunk"


def until(condition: Callable[[], object]) -> None:
    give_up = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.01)
