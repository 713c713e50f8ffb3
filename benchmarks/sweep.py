"""What a sweep costs beside its runs, and what a second worker gains.

    python benchmarks/sweep.py --runs 50 --pairs 3

Overhead: ``zoo.sweep`` of tiny runs in this process, against ``zoo.evaluate`` of the same runs in a loop. Throughput:
the same sweep with two workers against one worker, runs of one thread each, after both workers have imported torch.
The two sides of each pair follow each other, so that other load on the machine falls on both.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import torch

import zoo
from zoo_harness.sweeps.display import SweepDisplay
from zoo_harness.sweeps.estimates import estimate_runs
from zoo_harness.sweeps.plan import read_plan
from zoo_harness.sweeps.pools import LocalWorkers
from zoo_harness.sweeps.scheduler import Scheduler

TINY = {"weights": "random", "per_class": 2, "epochs": 0, "layer_curve": False}
LONGER = {**TINY, "per_class": 10, "epochs": 4, "cache": "off"}
BACKBONE, DATASET = "timm:test_vit", "digits"


def main() -> None:
    """Measure and print a table."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--runs", type=int, default=50)
    options.add_argument("--pairs", type=int, default=3)
    given = options.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        os.environ["ZOO_CACHE_DIR"] = f"{name}/cache"
        overheads = [overhead(Path(name) / f"overhead{pair}", given.runs) for pair in range(given.pairs)]
        gains = [gain(Path(name) / f"gain{pair}") for pair in range(given.pairs)]
    packages = ", ".join(f"{each} {importlib.metadata.version(each)}" for each in ("torch", "timm"))
    print(f"{platform.platform(terse=True)}, {os.cpu_count()} cores, Python {platform.python_version()}, {packages}")
    print(f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}, load {os.getloadavg()[0]:.1f}\n")
    print("| what | measured | target |\n|---|---:|---:|")
    print(f"| overhead of a run, {given.runs} runs, median | {statistics.median(overheads):.3f} s | < 1 s |")
    print(f"| throughput of two workers, median | {statistics.median(gains):.2f} x one | >= 1.6 x |")
    print(f"\noverheads: {overheads}\ngains: {gains}")


def overhead(folder: Path, runs: int) -> float:
    """Return the seconds that a sweep takes for a run beyond the run itself."""
    zoo.evaluate(BACKBONE, DATASET, **TINY, out=folder / "warm")  # type: ignore[arg-type]
    started = time.perf_counter()
    for seed in range(runs):
        zoo.evaluate(BACKBONE, DATASET, seed=seed, **TINY, out=folder / "loop" / str(seed))  # type: ignore[arg-type]
    alone = time.perf_counter() - started
    plan = {"backbones": BACKBONE, "datasets": DATASET, "seeds": list(range(runs)), **TINY}
    started = time.perf_counter()
    assert len(zoo.sweep(plan, out=folder / "sweep").finished) == runs
    return round((time.perf_counter() - started - alone) / runs, 4)


def gain(folder: Path) -> float:
    """Return the throughput of two workers relative to that of one."""
    one, two = (workers_seconds(folder / str(count), count) for count in (1, 2))
    return round(one / two, 3)


def workers_seconds(out: Path, count: int) -> float:
    """Return the seconds of eight runs in workers that have imported everything."""
    plan = {"backbones": BACKBONE, "datasets": DATASET, **LONGER}
    pool = LocalWorkers(count, 1, out / ".sweep")
    try:
        for seeds in (range(100, 100 + 2 * count), range(8)):
            runs = read_plan({**plan, "seeds": list(seeds)}, {}, out)
            started = time.perf_counter()
            scheduler = Scheduler(runs, estimate_runs(runs), pool, SweepDisplay(shown=False), None)
            scheduler.run()
            assert {outcome.status for outcome in scheduler.outcomes.values()} == {"finished"}
        return time.perf_counter() - started
    finally:
        pool.close()


if __name__ == "__main__":
    main()
