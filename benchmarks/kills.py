"""Kill runs at random moments, resume them, and compare their results with the results of an uninterrupted run.

    python benchmarks/kills.py --kills 100

Each attempt is a new process, which is forked from a process that has imported all modules. The script sends SIGKILL or
SIGTERM to the attempt after a random part of the time of an uninterrupted run. The next attempt resumes the run, until
the run ends and the next run begins. The script stops after the given number of kills. The script prints a line for
each finished run and a table, and exits with status 1 if a result differs.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # threads do not survive a fork

import zoo_harness.layer_run
import zoo_harness.session  # noqa: F401

from zoo_harness.cli.main import run
from zoo_harness.util.digests import sha256_of

EVAL = ["eval", "efficientnet_lite0", "--dataset", "digits", "--per-class", "6", "--epochs", "8", "--device", "cpu"]
EVAL += ["--schedule", "cosine", "--warmup-epochs", "1", "--label-smoothing", "0.1", "--keep", "best", "--quiet"]


def main() -> None:
    """Kill, resume, compare."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--kills", type=int, default=100)
    options.add_argument("--seed", type=int, default=0)
    given = options.parse_args()
    chance = random.Random(given.seed)  # noqa: S311 - moments, not secrets
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["ZOO_CACHE_DIR"] = str(folder / "cache")
        started = time.perf_counter()
        attempt([*EVAL, "--out", str(folder / "straight")], None, signal.SIGKILL, folder)
        whole = time.perf_counter() - started
        expected = outcome(folder / "straight")
        found: Counter[str] = Counter()
        number = 0
        while found["kills"] < given.kills:
            number += 1
            ended = broken_run(folder, folder / f"run{number}", whole, chance, found)
            other = [f"{where}: {one} instead of {expected.get(where)}" for where, one in ended.items()]
            other = [line for line, where in zip(other, ended, strict=True) if ended[where] != expected.get(where)]
            found["RUNS THAT DIFFER" if other else "runs that ended the same"] += 1
            told = f"DIFFERS: {'; '.join(other)[:1000]}" if other else "the same"
            print(f"run {number}: {told} after {found['kills']} kills", flush=True)
    print(f"\n| what | number |\n|---|---|\n| seconds of a run | {whole:.1f} |")
    for what, count in sorted(found.items()):
        print(f"| {what} | {count} |")
    sys.exit(1 if found["RUNS THAT DIFFER"] else 0)


def broken_run(folder: Path, out: Path, whole: float, chance: random.Random, found: Counter[str]) -> dict[str, object]:
    """Kill and resume one run until an attempt finishes it, and return the results of the run."""
    while True:
        if chance.random() < 0.2:  # remove the cache, so that some kills happen while the frozen part runs
            for store in (folder / "cache").glob("*"):
                shutil.rmtree(store)
        resumable = (out / "run.json").is_file() and (out / "options.json").is_file()
        if out.exists() and not resumable:  # killed before the run had written a state to resume
            shutil.rmtree(out)
            found["kills before there was a run"] += 1
        command = ["eval", "--resume", str(out), "--quiet"] if resumable else [*EVAL, "--out", str(out)]
        number = chance.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM])
        ended = attempt(command, chance.uniform(0, whole), number, folder)
        if ended is None:
            found["kills"] += 1
            found[f"kills with {number.name}"] += 1
        elif ended == 0:
            return outcome(out)
        else:
            return {"exit status": ended, "said": (folder / "said").read_text()[-500:]}


def attempt(command: list[str], seconds: float | None, number: signal.Signals, folder: Path) -> int | None:
    """Run a command in a forked process; return its exit status, or ``None`` if it was killed after ``seconds``."""
    child = os.fork()
    if child == 0:
        said = os.open(folder / "said", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(said, 1)
        os.dup2(said, 2)
        os._exit(run(command))
    deadline = float("inf") if seconds is None else time.perf_counter() + seconds
    while time.perf_counter() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(child, number)
    _done, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    return None if code in (-number, 128 + number) else code


def outcome(out: Path) -> dict[str, object]:
    """Return the results that must not differ: digests, scores, and the history without seconds."""
    record = json.loads((out / "run.json").read_text())
    history = [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]
    for line in history:
        del line["train_seconds"], line["evaluation_seconds"]
    changing = {"mean_train_seconds", "mean_evaluation_seconds", "total_seconds", "peak_memory_gib", "frozen_part"}
    results = {name: value for name, value in record["results"].items() if name not in changing}
    files = {name: sha256_of(out / name) for name in ("model.safetensors", "config.json", "confusion.json")}
    return {"status": record["status"], "history": history, **results, **files}


if __name__ == "__main__":
    main()
