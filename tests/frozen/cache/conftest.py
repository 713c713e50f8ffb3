"""A cache that is filled, and other processes that fill one."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from .caches import fill, key_of, opened

PROGRAM = """
import os, resource, signal, sys, time
import torch
from zoo import ZooError
from zoo_harness.frozen.cache.activation_cache import ActivationCache
from zoo_harness.frozen.cache.key import CacheKey, EntryTitle
from zoo_harness.frozen.cache.placement import CachePolicy

def note(name, line):
    with (folder / name).open("a") as file:
        file.write(f"{{line}}\\n")

def wait():
    while not (folder / "go").exists():
        time.sleep(0.01)

title, policy = EntryTitle(backbone="tiny", dataset="made up", split="train"), CachePolicy(cache, folder=folder)
say = lambda line: note("said", line)
key = CacheKey.model_validate_json(key)
with ActivationCache(key, title, policy, torch.device("cpu"), say) as opened:
    for start, stop in opened.missing(100):
        {before}
        note("computed", start)
        opened.write(start, (torch.arange(start * 16, stop * 16, dtype=torch.float32).view(-1, 16).sin(),))
    opened.finish()
    note("read", (opened.place, opened.read([7, 1299])[0].sum(1).tolist()))
    {after}
"""

# Each process is forked off one that has torch already, which none of these tests is about.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["torch", "zoo_harness.frozen.cache.activation_cache"])


@pytest.fixture
def begin() -> Iterator[Callable[..., Any]]:
    """Begin another process that fills the cache and notes what it computes, says and reads."""
    begun = []

    def begin_one(folder: Path, cache: str = "disk", before: str = "pass", after: str = "pass") -> Any:
        source = PROGRAM.format(before=before, after=after)
        names = {"folder": folder, "cache": cache, "key": key_of().model_dump_json()}
        begun.append(PROCESSES.Process(target=exec, args=(source, names), daemon=True))
        begun[-1].start()
        return begun[-1]

    yield begin_one
    for process in begun:
        process.kill()
        process.join()


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """Return a cache folder with a complete entry."""
    with opened(tmp_path) as cache:
        fill(cache)
    return tmp_path
