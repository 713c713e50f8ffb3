"""The cost of the checks of images and labels: whole runs with them, against the code from before.

    git worktree add /tmp/before 7229f0c
    python benchmarks/input_checks.py --before /tmp/before [--images 10000] [--repeat 5]

Two data sets of 10,000 different images, 8,000 of them for training: JPEG files of 500 x 375 pixels, and an array of
32 x 32 pixels in memory. The network is as small as one can be (timm's test network, at 32 x 32 pixels), so that
reading takes the largest share of the run that it ever takes. Runs take turns, each in a process of its own; the table
has the medians of their CPU seconds, which a busy machine changes less than wall-clock time, and of the seconds until
the images are read. Target: at most 3 % more CPU time for a run.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import PIL.Image

HERE = Path(__file__).resolve().parents[1]
RUN = """
import json, resource, sys, time
from pathlib import Path
import numpy as np
import zoo
assert zoo.__file__.startswith(sys.argv[4])
from zoo_harness.runs.reporter import LoggingReporter

class Clock(LoggingReporter):
    read = None
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
clock, begun, started = Clock(), used(), time.perf_counter()
zoo.evaluate(backbone, dataset, epochs=3, out=out, progress=clock)
print(json.dumps({"run": used() - begun, "reading": clock.read - begun, "wall": time.perf_counter() - started}))
"""


def write_images(folder: Path, images: int) -> None:
    """Write smooth random pictures, which JPEG compresses as it does photographs."""
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
    """Run the code of a tree once; return its seconds."""
    parts = [tree, *(tree / name for name in ("harness", "plugins", "cards"))]
    with tempfile.TemporaryDirectory() as scratch:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, parts)), "ZOO_CACHE_DIR": scratch}
        command = [sys.executable, "-c", RUN, str(folder), kind, str(Path(scratch) / "run"), str(tree)]
        done = subprocess.run(command, env=environment, cwd=scratch, check=True, stdout=subprocess.PIPE, text=True)
    seconds: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return seconds


def main() -> None:
    """Let both trees take turns, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, required=True, help="a checkout of the code without the checks")
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--repeat", type=int, default=5)
    options = parser.parse_args()
    trees = {"before": options.before.resolve(), "now": HERE}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_images(folder, options.images)
        print(
            f"{'images':8} {'CPU s before':>13} {'now':>7} {'ratio':>6} {'reading before':>15} {'now':>7} {'wall':>7}"
        )
        for kind in ("files", "array"):
            found: dict[str, list[dict[str, float]]] = {tree: [] for tree in trees}
            for _turn in range(options.repeat):
                for tree, path in trees.items():
                    found[tree].append(measured(path, folder, kind))
            before, now = (
                {key: statistics.median(each[key] for each in found[tree]) for key in ("run", "reading", "wall")}
                for tree in trees
            )
            print(
                f"{kind:8} {before['run']:13.1f} {now['run']:7.1f} {now['run'] / before['run']:6.3f} "
                f"{before['reading']:15.1f} {now['reading']:7.1f} {now['wall']:7.1f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
