"""Run every check and benchmark that needs a GPU with one command, in under eight minutes.

    python benchmarks/gpu.py [--device cuda] [--images 2000] [--profile]

The script needs no network connection: the weights are in an installed package, and the images are the digits of
scikit-learn or random. With `--device cpu`, the script runs the same checks on a machine without a GPU, on fewer
images, so that you can test the script. `--profile` prints which operations of a neighbour search take most time.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import finetune
import torch
from separation import smooth_images, wrong
from torch import Tensor

from zoo import separation, separation_index
from zoo_harness.cli.main import run
from zoo_harness.compute.precision import full_precision
from zoo_harness.records.run import read_run
from zoo_harness.separation.knn.candidate_pairs import BFLOAT16, FLOAT32, FLOAT64, LARGEST_TILE
from zoo_harness.separation.knn.search import nearest_neighbours

DATA = {"wide": (50_000, 3, 32, 0.05), "grey": (60_000, 1, 28, 0.025)}  # images, channels, pixels, target in seconds
BUDGETS = {"512 MiB": 2**29, "4 GiB": 2**32}


def check_separation(device: torch.device, samples: int) -> None:
    """Check that the device finds the same neighbours as the CPU, also for ties and offsets."""
    generator = torch.Generator().manual_seed(0)
    for name, offset, dtype in (("plain", 0.0, torch.float32), ("offset 1e4", 1e4, torch.float32)):
        features = (torch.randn(samples, 512, generator=generator) + offset).to(dtype)
        labels = torch.randint(0, 10, (samples,), generator=generator)
        here, there = separation_index(features, labels), separation_index(features.to(device), labels.to(device))
        assert torch.equal(here.nearest, there.nearest.cpu()), name
        print(f"separation, {name}: {samples:,} x 512, the same {samples:,} neighbours as on the CPU")


def time_separation(device: torch.device, samples: int) -> None:
    """Print the seconds of a search for features that are already on the device."""
    features = torch.randn(samples, 1280, device=device)
    labels = torch.randint(0, 10, (samples,), device=device)
    for turn in ("first", "second"):
        started = time.perf_counter()
        separation_index(features, labels)
        print(f"separation, {samples:,} x 1,280, {turn} call: {time.perf_counter() - started:.3f} s")


def check_search(device: torch.device, samples: int) -> None:
    """Check that the device and the CPU find the same neighbours, also for duplicates, ties, offsets and references."""
    rows = smooth_images(samples, 1, 28)
    rows[: samples // 50] = rows[-(samples // 50) :]
    labels = torch.randint(0, 10, (samples,), generator=torch.Generator().manual_seed(0))
    data = {"plain": rows, "offset 1e4": rows + 1e4, "integers": (rows * 2).round(), "bfloat16": rows.bfloat16()}
    for name, features in data.items():
        for references in (None, slice(samples // 2, None)):
            here, there = (
                nearest_neighbours(
                    features.to(place),
                    labels.to(place),
                    2,
                    references=None if references is None else features[references].to(place),
                    reference_labels=None if references is None else labels[references].to(place),
                )
                for place in ("cpu", device)
            )
            assert torch.equal(here.indices, there.indices.cpu()), name
            assert torch.equal(here.squared_distances, there.squared_distances.cpu()), name
            assert torch.equal(here.last_tied, there.last_tied.cpu()), name
            assert torch.equal(here.last_tied_same_label, there.last_tied_same_label.cpu()), name
        print(f"search, {name}: {samples:,} x 784, the same neighbours, distances and ties as on the CPU")


def seconds(device: torch.device, work: Callable[[], object], turns: int = 3) -> list[float]:
    """Return the seconds of each call; the first call also compiles and loads code."""
    taken = []
    for _ in range(turns):
        synchronize(device)
        started = time.perf_counter()
        work()
        synchronize(device)
        taken.append(time.perf_counter() - started)
    return taken


def synchronize(device: torch.device) -> None:
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def cdist(features: Tensor) -> None:
    """Find the two nearest neighbours by torch.cdist and topk, 2,000 rows at a time, which is fast but not exact."""
    for part in features.split(2000):
        torch.cdist(part, features).topk(3, largest=False)


def time_search(device: torch.device, share: float, *, profile: bool) -> None:
    """Print the times of zoo's search and of torch.cdist for two neighbours, the targets, and the wrong rows."""
    for name, (count, channels, size, aim) in DATA.items():
        features = smooth_images(int(count * share), channels, size).to(device)
        labels = torch.arange(len(features), device=device) % 10
        print(f"{name}, {len(features):,} x {features.shape[1]:,}, order 2 (aim for all images: {aim} s)")
        show("torch.cdist", seconds(device, lambda features=features: cdist(features), 2))
        for budget, size_of_it in BUDGETS.items():

            def search(features=features, labels=labels, size_of_it=size_of_it) -> Tensor:
                return nearest_neighbours(features, labels, 2, memory_budget=size_of_it).indices

            def score(features=features, labels=labels, size_of_it=size_of_it) -> object:
                return separation(features, labels, 2, memory_budget=size_of_it)

            show(f"search, {budget}", seconds(device, search))
            show(f"all scores, {budget}", seconds(device, score, 2))
        print(f"  wrong, of 500 rows: {wrong(features, search())}")
        if profile:
            with torch.profiler.profile() as found:
                search()
                synchronize(device)
            by = "self_cuda_time_total" if device.type == "cuda" else "self_cpu_time_total"
            print(found.key_averages().table(sort_by=by, row_limit=25, max_name_column_width=50))


def time_products(device: torch.device) -> None:
    """Print the speed of torch's matrix product of one tile, 3,072 wide, in each number format of the search."""
    for name, precision in {"bfloat16": BFLOAT16, "float32": FLOAT32, "float64": FLOAT64}.items():
        left, right = (torch.randn(LARGEST_TILE, 3072, device=device).bfloat16().to(precision.products) for _ in "12")
        products = left.new_empty(LARGEST_TILE, LARGEST_TILE)

        def multiply(left=left, right=right, products=products) -> None:
            torch.mm(left, right.T, out=products)

        with full_precision(device, precision.matmul_precision):
            taken = min(seconds(device, multiply, 10)[1:])
        rate = 2 * LARGEST_TILE**2 * 3072 / taken
        print(f"  product of a tile, {name} vectors: {1000 * taken:.2f} ms, {rate / 1e12:.2f} TFLOP/s", flush=True)


def show(what: str, taken: list[float]) -> None:
    """Print the first time, and the smallest of the other times."""
    print(f"  {what}: {min(taken[1:]):.4f} s (first {taken[0]:.3f} s)", flush=True)


def evaluate(device: str, per_class: int, *more: str) -> str | None:
    """Run ``zoo eval efficientnet_lite0``, print its results and times, and return the digest of its checkpoint."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        options = ["--per-class", str(per_class), "--epochs", "3", "--device", device, *more]
        assert run(["eval", "efficientnet_lite0", "--dataset", "digits", *options, "--out", str(out), "--quiet"]) == 0
        record = read_run(out)
    results = record.results
    assert results.accuracy is not None
    assert results.mean_train_seconds is not None
    rate = 10 * per_class / results.mean_train_seconds
    print(f"eval {' '.join(more) or 'as it is'}: {rate:.0f} training images/s, accuracy {results.accuracy.value:.4f}, ")
    print(f"  {results.total_seconds:.1f} s in all", flush=True)
    return record.checkpoint_sha256


def check_repeats(device: str, per_class: int) -> None:
    """Print whether two runs with --deterministic, and a run without the cache, end with the same bits."""
    digests = [evaluate(device, per_class, "--deterministic", *more) for more in ((), (), ("--cache", "off"))]
    print(f"deterministic: two runs {'agree' if digests[0] == digests[1] else 'DIFFER'}, ", end="")
    print(f"the whole network {'too' if digests[0] == digests[2] else 'differs in its bits'}")


def time_fine_tuning(device: str, images: int) -> None:
    """Compare zoo's engine with the plain loop for 20 epochs; benchmarks/finetune.py explains the columns."""
    names = ["deit_base_distilled", "cait_s24"] if device != "cpu" else ["efficientnet_lite0"]
    for precision in ("fp32", "bf16") if device != "cpu" else ("fp32",):
        print(f"fine-tuning, {precision}:")
        finetune.compare_times(
            argparse.Namespace(
                names=names, images=images, epochs=20, device=device, precision=precision, dataset="synthetic", seeds=1
            )
        )


def main() -> None:
    """Run all checks and benchmarks; a failed assertion ends the script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--profile", action="store_true")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise SystemExit("no CUDA device here; --device cpu runs the same checks without one")
    print(f"{torch.cuda.get_device_name(device) if device.type == 'cuda' else 'CPU'}, torch {torch.__version__}")
    check_separation(device, arguments.images)
    time_separation(device, arguments.images * 10)
    check_search(device, 4 * arguments.images)
    time_search(device, 1.0 if device.type == "cuda" else 0.04, profile=arguments.profile)
    time_products(device)
    per_class = min(120, arguments.images // 10)
    for precision in ("fp32", "bf16") if device.type == "cuda" else ("fp32",):
        evaluate(arguments.device, per_class, "--precision", precision)
        evaluate(arguments.device, per_class, "--precision", precision, "--compile")
    evaluate(arguments.device, per_class, "--cache-dtype", "fp16")
    check_repeats(arguments.device, per_class)
    time_fine_tuning(arguments.device, arguments.images if device.type == "cuda" else 40)


if __name__ == "__main__":
    main()
