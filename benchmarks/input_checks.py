"""Measure how much time zoo's checks of images and labels take, in comparison with code without the checks.

    git worktree add /tmp/before 7229f0c
    python benchmarks/input_checks.py --before /tmp/before [--images 10000] [--repeat 5]

The script uses two datasets of 10,000 different images, 8,000 of them for training: JPEG files of 500 x 375 pixels, and
an array of 32 x 32 pixels in memory. The network is as small as possible (timm's test network, at 32 x 32 pixels), so
that reading images takes a large share of the run. Runs of both versions take turns, each in its own process. The table
shows the smallest CPU seconds of the runs and of reading, because a busy machine only adds time. The column "added" is
the additional time of reading, as a share of the run. The target is at most 3 %.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import PIL.Image

HERE = Path(__file__).resolve().parents[1]
RUN = """
import json, resource, sys
from pathlib import Path
import numpy as np
import torch, timm  # importing them is no part of the run
import zoo
assert zoo.__file__.startswith(sys.argv[4])
from zoo_harness.runs.reporter import LoggingReporter

class Clock(LoggingReporter):
    reading = read = None
    def stage(self, name, images):
        self.reading = self.reading or (used() if name.startswith("loading I") else None)
    def log(self, line):  # the first line comes when the images are read
        self.read = self.read or used()

def used():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime

folder, kind, out = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
backbone = zoo.Backbone(
    name="tiny_resnet", weights=zoo.RandomWeights(), architecture=zoo.TimmArchitecture("test_resnet.r160_in1k"),
    preprocessing=zoo.Preprocessing(input_size=(32, 32)), unfreeze=("layer4",), head=zoo.Head("fc"),
    features=(zoo.FeatureLayer("global_pool", 96, pool="flatten"),),
    license=None, paper=None, pretrained_on=None, imagenet_top1=None,
)
dataset = f"imagefolder:{folder / 'photos'}"
if kind == "array":
    images, labels = np.load(folder / "images.npy"), np.load(folder / "labels.npy")
    train = len(images) * 4 // 5
    dataset = zoo.in_memory(images[:train], labels[:train], test=(images[train:], labels[train:]))
clock, begun = Clock(), used()
zoo.evaluate(backbone, dataset, epochs=3, out=out, progress=clock)
print(json.dumps({"run": used() - begun, "reading": clock.read - clock.reading}))
"""


def write_images(folder: Path, images: int) -> None:
    """Write smooth random images, which JPEG compresses about as well as photographs."""
    draws = np.random.default_rng(0)
    for number in range(images):
        split = "train" if number < images * 4 // 5 else "test"
        path = folder / "photos" / split / f"class{number % 10}" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse = PIL.Image.fromarray(draws.integers(0, 256, (24, 32, 3), dtype=np.uint8))
        coarse.resize((500, 375), PIL.Image.Resampling.BICUBIC).save(path, quality=90)
    np.save(folder / "images.npy", draws.integers(0, 256, (images, 32, 32, 3), dtype=np.uint8))
    np.save(folder / "labels.npy", np.arange(images) % 10)


def measured(tree: Path, folder: Path, kind: str) -> dict[str, float]:
    """Run the code of a checkout once, and return the seconds of the run and of reading."""
    parts = [tree, *(tree / name for name in ("harness", "plugins", "cards"))]
    with tempfile.TemporaryDirectory() as scratch:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, parts)), "ZOO_CACHE_DIR": scratch}
        command = [sys.executable, "-c", RUN, str(folder), kind, str(Path(scratch) / "run"), str(tree)]
        done = subprocess.run(command, env=environment, cwd=scratch, check=True, stdout=subprocess.PIPE, text=True)
    seconds: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return seconds


def main() -> None:
    """Run the code of both checkouts in turn, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, required=True, help="a checkout of the code without the checks")
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--repeat", type=int, default=5)
    options = parser.parse_args()
    trees = {"before": options.before.resolve(), "now": HERE}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_images(folder, options.images)
        print(f"{'images':8} {'run before':>10} {'now':>7} {'reading before':>15} {'now':>7} {'added':>7}", flush=True)
        for kind in ("files", "array"):
            found: dict[str, list[dict[str, float]]] = {tree: [] for tree in trees}
            for turn in range(options.repeat):
                for tree in sorted(trees, reverse=turn % 2 == 0):
                    found[tree].append(measured(trees[tree], folder, kind))
            before, now = (
                {key: min(each[key] for each in found[tree]) for key in ("run", "reading")} for tree in trees
            )
            added = (now["reading"] - before["reading"]) / before["run"]
            print(
                f"{kind:8} {before['run']:10.1f} {now['run']:7.1f} {before['reading']:15.2f} {now['reading']:7.2f} "
                f"{added:7.1%}",
                flush=True,
            )


if __name__ == "__main__":
    main()
