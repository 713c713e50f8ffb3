"""Every check and benchmark that needs a GPU, in one command, in under eight minutes.

    python benchmarks/gpu.py [--device cuda] [--images 2000]

It needs no network: weights come with a package, images are the digits of scikit-learn, or random ones. With
`--device cpu` it runs the same on a machine without a GPU, to see that it works.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import torch

from zoo import separation_index
from zoo_harness.cli import run
from zoo_harness.run_record import read_run


def check_separation(device: torch.device, samples: int) -> None:
    """The device's neighbours must be the CPU's, ties and offsets included."""
    generator = torch.Generator().manual_seed(0)
    for name, offset, dtype in (("plain", 0.0, torch.float32), ("offset 1e4", 1e4, torch.float32)):
        features = (torch.randn(samples, 512, generator=generator) + offset).to(dtype)
        labels = torch.randint(0, 10, (samples,), generator=generator)
        here, there = separation_index(features, labels), separation_index(features.to(device), labels.to(device))
        assert torch.equal(here.nearest, there.nearest.cpu()), name
        print(f"separation, {name}: {samples:,} x 512, the same {samples:,} neighbours as on the CPU")


def time_separation(device: torch.device, samples: int) -> None:
    """Seconds for features that lie on the device already."""
    features = torch.randn(samples, 1280, device=device)
    labels = torch.randint(0, 10, (samples,), device=device)
    for turn in ("first", "second"):
        started = time.perf_counter()
        separation_index(features, labels)
        print(f"separation, {samples:,} x 1,280, {turn} call: {time.perf_counter() - started:.3f} s")


def evaluate(device: str, precision: str, per_class: int) -> None:
    """A whole run of the embedded default; its figures and where its time went."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        options = ["--per-class", str(per_class), "--epochs", "3", "--device", device, "--precision", precision]
        assert run(["eval", "efficientnet_lite0", "--dataset", "digits", *options, "--out", str(out), "--quiet"]) == 0
        results = read_run(out).results
    assert results.accuracy is not None
    assert results.mean_train_seconds is not None
    rate = 10 * per_class / results.mean_train_seconds
    print(f"eval {precision}: {rate:.0f} training images/s, accuracy {results.accuracy.value:.4f}, ", end="")
    print(f"{results.total_seconds:.1f} s in all")


def main() -> None:
    """Run everything; an assertion that fails ends it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--images", type=int, default=2000)
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise SystemExit("no CUDA device here; --device cpu runs the same checks without one")
    print(f"{torch.cuda.get_device_name(device) if device.type == 'cuda' else 'CPU'}, torch {torch.__version__}")
    check_separation(device, arguments.images)
    time_separation(device, arguments.images * 10)
    per_class = min(120, arguments.images // 10)
    for precision in ("fp32", "bf16") if device.type == "cuda" else ("fp32",):
        evaluate(arguments.device, precision, per_class)


if __name__ == "__main__":
    main()
