"""Time `zoo compare` and `zoo report` on many runs, and sorting and filtering their page in Chromium.

    python benchmarks/report.py [--runs 1000] [--images 1000] [--keep FOLDER]

Targets for 1,000 runs: `zoo compare` under 3 s beyond the import of numpy, `zoo report` under 10 s and 3 MB, and 100 ms
for a sort or a filter with the layout that follows. The runs are copies of the record of one real run (10 scans of
digits, no epoch) with other names, sizes, times, scores and predictions.
"""

from __future__ import annotations

import argparse
import copy
import datetime
import json
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

import zoo
from zoo_harness.evaluation.predictions import Predictions, write_predictions

ZOO = str(Path(sys.executable).with_name("zoo"))
CLASSES = 10
FAMILIES = {"resnet": 11.7e6, "convnext": 28.6e6, "vit": 22.1e6, "efficientnet": 4.7e6, "densenet": 18.1e6}
# A sort by another column, or a filter, and then the layout; the median of several, in milliseconds.
TIMED = """() => {
  const times = { sort: [], filter: [] }, search = document.querySelector('[name=q]');
  const timed = (kind, act) => {
    const start = performance.now(); act(); document.body.offsetHeight; times[kind].push(performance.now() - start);
  };
  for (const head of [...document.querySelectorAll('#runs thead button')].slice(0, 12)) {
    timed('sort', () => head.click());
  }
  for (const text of ['vit', '', 'resnet', '', 'head', '']) {
    search.value = text;
    timed('filter', () => search.dispatchEvent(new Event('input', { bubbles: true })));
  }
  const both = (all) => [all.sort((a, b) => a - b)[all.length >> 1], all.at(-1)];
  return Object.fromEntries(Object.entries(times).map(([kind, all]) => [kind, both(all)]));
}"""


def main() -> None:
    """Make the runs, time everything and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--keep", type=Path, help="write the runs and the page there")
    given = parser.parse_args()
    folder = given.keep or Path(tempfile.mkdtemp())
    try:
        make_runs(folder / "runs", given.runs, given.images)
        print(f"{given.runs:,} runs on {given.images:,} images; {machine()}\n")
        print("| what | time | processor time |\n|---|---:|---:|")
        page, runs = folder / "report.html", str(folder / "runs")
        for name, command in {
            "import numpy": [sys.executable, "-c", "import numpy"],
            "zoo compare --json": [ZOO, "compare", runs, "--json"],
            "zoo report": [ZOO, "report", runs, "--out", str(page)],
        }.items():
            taken, used = seconds(command)
            print(f"| `{name}` | {taken:.2f} s | {used:.2f} s |")
        for kind, (median, most) in in_browser(page).items():
            print(
                f"| {kind} and layout: median | {median:.0f} ms | |\n| {kind} and layout: longest | {most:.0f} ms | |"
            )
        print(f"\nsize of the page: {page.stat().st_size / 1e6:.2f} MB")
    finally:
        if given.keep is None:
            shutil.rmtree(folder)


def machine() -> str:
    """Describe processor, versions and date."""
    versions = ", ".join(f"{name} {version(name)}" for name in ("numpy", "pydantic", "jinja2", "playwright"))
    chromium = subprocess.run(["chromium", "--version"], capture_output=True, text=True, check=True).stdout.split()[1]
    today = f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}"
    return f"{platform.machine()}, Python {platform.python_version()}, {versions}, Chromium {chromium}, {today}"


def seconds(command: list[str]) -> tuple[float, float]:
    """Return the wall time and the processor time of the fastest of three runs of a command."""
    times = []
    for _turn in range(3):
        started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        times.append((time.perf_counter() - started, used))
    return min(times)


def in_browser(page: Path) -> dict[str, list[float]]:
    """Return the milliseconds of sorts and filters, median and largest."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        path = shutil.which("chromium")
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        opened = browser.new_page(viewport={"width": 1400, "height": 900})
        opened.goto(page.as_uri())
        found: dict[str, list[float]] = opened.evaluate(TIMED)
        browser.close()
    return found


def make_runs(folder: Path, count: int, images: int) -> None:
    """Write run folders with a record and predictions each; the same arguments give the same values."""
    with tempfile.TemporaryDirectory() as made:
        run = zoo.evaluate("efficientnet_lite0", "digits", per_class=2, epochs=0, out=Path(made, "run"))
        record = json.loads(run.record.to_json())
    draws, labels = np.random.default_rng(0), (np.arange(images) % CLASSES).astype(np.int32)
    hardness = draws.random(images)
    for number in range(count):
        target = folder / f"run-{number:04}"
        target.mkdir(parents=True)
        skill = 0.98 - 0.25 * draws.random() ** 2
        hits = hardness + 0.1 * draws.standard_normal(images) < skill
        made_up = one_run(copy.deepcopy(record), number, hits, labels, target, draws)
        (target / "run.json").write_text(json.dumps(made_up))


def one_run(
    record: dict[str, Any], number: int, hits: np.ndarray, labels: np.ndarray, folder: Path, draws: np.random.Generator
) -> dict[str, Any]:
    """Return the record with other values, and write the predictions."""
    images, family = len(labels), list(FAMILIES)[number % len(FAMILIES)]
    predicted = np.where(hits, labels, (labels + draws.integers(1, CLASSES, images)) % CLASSES).astype(np.int32)
    likely = draws.uniform(0.5, 1, images).astype(np.float32)
    ranks = np.where(hits, 1, 2).astype(np.int32)
    found = Predictions("test", "f" * 64, CLASSES, labels, predicted, ranks, np.where(hits, likely, 1 - likely), likely)
    value = float(hits.mean())
    record["backbone"].update(name=f"{family}_{number // 5:03}", plugin=f"zoo_plugins.{family}")
    size = int(FAMILIES[family] * draws.uniform(0.5, 4))
    record["parameters"].update(total=size, trained=size // int(draws.choice([2, 10, 100])), trained_without_head=1)
    record["settings"].update(recipe=("default", "head", "report")[number % 3])
    record["dataset"]["evaluation"].update(
        fingerprint="f" * 64, images=images, per_class=np.bincount(labels, minlength=CLASSES).tolist()
    )
    measured = {"value": value, "standard_error": (value * (1 - value) / images) ** 0.5, "n": images}
    results = record["results"]
    results.update(accuracy=measured, mean_train_seconds=draws.uniform(0.2, 60), total_seconds=draws.uniform(5, 4000))
    results["predictions"] = write_predictions(found, folder).model_dump(mode="json")
    for when, share in (("before", 0.8), ("after", 0.95)):
        scored = results[f"separation_{when}"]["evaluation"]["si"]
        scored["value"] = min(1.0, max(0.0, share * value + 0.03 * float(draws.standard_normal())))
    for layer in results["layer_curve"]["layers"]:
        score = layer["separation"]["si"]
        score["value"] = min(1.0, max(0.0, score["value"] + 0.05 * float(draws.standard_normal())))
    return record


if __name__ == "__main__":
    main()
