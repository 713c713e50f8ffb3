"""Measure how much faster zoo fine-tunes a network than a plain training loop, on the same data.

    python benchmarks/finetune.py [NAME ...] [--images 500] [--epochs 20] [--device cpu] [--seeds 1]

The plain loop is the loop of the two reports: every epoch runs the whole network in fp32, with a DataLoader, PIL
transforms, batches of 32 and Adam, and the frozen part is in inference mode. Every epoch of the plain loop takes
equally long, so the script measures one epoch and multiplies. The engine, which is the training loop of zoo, runs all
epochs.

The column `floor` is a lower bound of the engine's time: one pass of the frozen part, and all epochs of the trained
part, at the speed at which this machine multiplies float32 matrices of size 2,048. A backward pass counts as two
forward passes. The column `again` is the time until training starts in a second run on the same data. All weights are
random except those of efficientnet_lite0. The images are Fashion-MNIST, or the digits of scikit-learn if Fashion-MNIST
is not installed.

With --seeds 5, both loops train for all epochs with five seeds, and the script compares their accuracies.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset as Samples
from torchvision.transforms import v2

from zoo import RandomWeights, load_registry
from zoo.backbone import Preprocessing
from zoo.dataset import Dataset, DatasetRequest, ImageSplit, LoadedDataset
from zoo_harness.compute.allocator import keep_freed_memory
from zoo_harness.compute.context import ComputeContext
from zoo_harness.data.decoding import ImageData
from zoo_harness.evaluation.split_evaluation import evaluate_split
from zoo_harness.frozen.cache.placement import CachePolicy
from zoo_harness.frozen.partition.partition import partition_network
from zoo_harness.frozen.partition.summary import count_flops
from zoo_harness.models.tuned_network import TunedNetwork
from zoo_harness.records.subset import Subset
from zoo_harness.runs.frozen_features import open_trainable_model
from zoo_harness.runs.plan import Request, RunPlan, prepare_run
from zoo_harness.training.loop import Trainer, starting_state
from zoo_harness.util.progress import Silence

DEFAULT = ("efficientnet_lite0", "resnet18", "densenet201", "coat_lite_small", "cait_s24", "deit_base_distilled")


@dataclass
class Pictures(Samples[tuple[Tensor, int]]):
    """A torch dataset that passes PIL images through torchvision transforms, as tutorials do."""

    data: ImageData
    preprocessing: Preprocessing

    def __post_init__(self) -> None:
        chosen = self.preprocessing
        mode = {"bilinear": v2.InterpolationMode.BILINEAR, "bicubic": v2.InterpolationMode.BICUBIC}
        size = [round(side / chosen.crop_fraction) for side in chosen.input_size]
        self._transform = v2.Compose(
            [
                v2.Resize(size if chosen.crop_mode == "squash" else min(size), mode[chosen.interpolation]),
                v2.CenterCrop(chosen.input_size),
                v2.ToImage(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(chosen.mean, chosen.std),
            ]
        )

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        from PIL import Image

        picture = Image.fromarray(self.data.images[index]).convert("RGB")
        return self._transform(picture), int(self.data.labels[index])


def plain_epoch(tuned: TunedNetwork, loader: DataLoader, optimizer: torch.optim.Optimizer, device: str) -> None:
    """Train for one epoch over the training images."""
    tuned.train()
    for images, labels in loader:
        logits = tuned.logits(images.to(device))
        loss = sum(nn.functional.cross_entropy(part, labels.to(device)) for part in logits)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def plain_accuracy(tuned: TunedNetwork, loader: DataLoader, device: str) -> float:
    """Return the accuracy on the evaluation images."""
    tuned.eval()
    with torch.no_grad():
        right = [(tuned.logits(images.to(device))[0].argmax(1).cpu() == labels).sum() for images, labels in loader]
    return int(sum(right)) / len(loader.dataset)  # type: ignore[arg-type]


def plain(planned: RunPlan, epochs: int, seed: int) -> tuple[float, float]:
    """Run the plain loop; return the seconds of an epoch with its evaluation, and the accuracy after the last epoch."""
    torch.manual_seed(seed)
    device = str(planned.request.compute.device)
    preprocessing = planned.record.settings.preprocessing
    train = DataLoader(Pictures(planned.data.train, preprocessing), batch_size=32, shuffle=True)
    evaluation = DataLoader(Pictures(planned.data.evaluation, preprocessing), batch_size=32)
    optimizer = torch.optim.Adam(planned.tuned.trained_parameters().values(), lr=1e-4)
    started, accuracy = time.perf_counter(), 0.0
    for _ in range(epochs):
        plain_epoch(planned.tuned, train, optimizer, device)
        accuracy = plain_accuracy(planned.tuned, evaluation, device)
    return (time.perf_counter() - started) / epochs, accuracy


def engine(planned: RunPlan, folder: Path) -> tuple[float, float, float]:
    """Run zoo's engine; return the seconds until training starts, the seconds of the run, and the final accuracy."""
    request = planned.request
    started = time.perf_counter()
    with open_trainable_model(planned, CachePolicy(folder=folder), Silence(), lambda _line: None) as (trainable, _made):
        begun = time.perf_counter()
        state = starting_state(planned.tuned, request.training)
        tuning = Trainer(trainable, request.training, request.compute, state, None, lambda *_: None, Silence())
        tuning.run()
        accuracy = evaluate_split(trainable, trainable.evaluation, request.compute, None, Silence()).accuracy.value
    return begun - started, time.perf_counter() - started, accuracy


def synthetic_images(_request: DatasetRequest) -> LoadedDataset:
    """Return random images of the number and size of CIFAR-10, with a faint pattern for each of ten classes."""
    generator = np.random.default_rng(0)
    patterns = generator.normal(size=(10, 32, 32, 3))
    splits = {}
    for split, count in (("train", 50_000), ("test", 10_000)):
        labels = np.arange(count) % 10
        noise = generator.normal(size=(count, 32, 32, 3)).astype(np.float32)
        images = (128 + 40 * noise + 20 * patterns[labels]).clip(0, 255).astype(np.uint8)
        splits[split] = ImageSplit(images, labels)
    return LoadedDataset(tuple(f"class {number}" for number in range(10)), splits, source="random numbers")


SYNTHETIC = Dataset(
    name="synthetic",
    title="Random images",
    loader="finetune:synthetic_images",
    classes=None,
    license=None,
    citation=None,
)


def planned_run(name: str, options: argparse.Namespace, seed: int) -> RunPlan:
    """Return a planned run whose network and data are loaded."""
    registry = load_registry()
    backbone = registry.backbone(name)
    tuning = backbone.tuning("default")
    request = Request(
        backbone=backbone,
        dataset=SYNTHETIC if options.dataset == "synthetic" else registry.dataset(options.dataset)[0],
        argument=None,
        tuning=tuning,
        unfreeze=None,
        layer=tuning.features[-1],
        weights=backbone.weights if name == "efficientnet_lite0" else RandomWeights(),
        training=replace(tuning.training, epochs=options.epochs),
        subset=Subset(limit=options.images),
        compute=ComputeContext(torch.device(options.device), precision=options.precision, seed=seed),
        data_dir=None,
        command=(),
    )
    return prepare_run(request, Silence())


def floor(planned: RunPlan, epochs: int) -> tuple[float, float]:
    """Return the GFLOP of training on cached outputs, and of training the whole network in every epoch."""
    images, _labels = planned.data.train.batch(np.arange(2), planned.request.compute.device)
    prefix, suffix = (flops / 2e9 for flops in count_flops(partition_network(planned.tuned, images), images))
    train, held = len(planned.data.train), len(planned.data.evaluation)
    once = prefix * (train + held) + epochs * suffix * (3 * train + held)
    return once, epochs * ((prefix + 3 * suffix) * train + (prefix + suffix) * held)


def matrix_rate(device: str) -> float:
    """Return the GFLOP per second of a product of float32 matrices of size 2,048."""
    matrix = torch.randn(2048, 2048, device=device)
    times = []
    for _ in range(8):
        started = time.perf_counter()
        float((matrix @ matrix)[0, 0])
        times.append(time.perf_counter() - started)
    return 2 * 2048**3 / 1e9 / min(times)


def compare_times(options: argparse.Namespace) -> None:
    """Print a row of times for each backbone."""
    rate = matrix_rate(options.device)
    print(
        f"{rate:,.0f} GFLOP/s in float32 products; {options.images} + {options.images} images, {options.epochs} epochs"
    )
    _row("backbone", "plain/epoch", "plain", "engine", "ratio", "by FLOPs", "share", "floor", "again")
    for name in options.names:
        with tempfile.TemporaryDirectory() as folder:
            planned = planned_run(name, options, 0)
            once, always = floor(planned, options.epochs)
            _before, total, _accuracy = engine(planned, Path(folder))
            again, _total, _accuracy = engine(planned_run(name, _with_epochs(options, 0), 0), Path(folder))
            each, _accuracy = plain(planned_run(name, options, 0), 1, 0)
        ratio, by_flops = each * options.epochs / total, always / once
        cells = (f"{each:.1f} s", f"{each * options.epochs:.0f} s", f"{total:.1f} s", f"{ratio:.1f} x")
        share = f"{ratio / by_flops:.0%}"
        _row(name, *cells, f"{by_flops:.1f} x", share, f"{once / rate:.1f} s", f"{again:.1f} s")


def compare_accuracies(options: argparse.Namespace) -> None:
    """Print the accuracies of the plain loop and of the engine with several seeds."""
    _row("backbone", "plain", "spread", "engine", "spread")
    for name in options.names:
        with tempfile.TemporaryDirectory() as folder:
            ours = [engine(planned_run(name, options, seed), Path(folder))[2] for seed in range(options.seeds)]
        theirs = [plain(planned_run(name, options, seed), options.epochs, seed)[1] for seed in range(options.seeds)]
        _row(name, *(f"{value:.4f}" for seeds in (theirs, ours) for value in _mean_and_spread(seeds)))


def _mean_and_spread(values: list[float]) -> tuple[float, float]:
    return statistics.mean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def _with_epochs(options: argparse.Namespace, epochs: int) -> argparse.Namespace:
    return argparse.Namespace(**{**vars(options), "epochs": epochs})


def _row(first: str, *cells: str) -> None:
    print(first.ljust(20), " ".join(cell.rjust(11) for cell in cells), flush=True)


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=DEFAULT)
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--dataset", choices=("fashion_mnist", "digits", "synthetic"))
    parser.add_argument("--seeds", type=int, default=1)
    options = parser.parse_args()
    keep_freed_memory()
    installed = Path("/usr/share/datasets/fashion-mnist").is_dir()
    options.dataset = options.dataset or ("fashion_mnist" if installed else "digits")
    (compare_accuracies if options.seeds > 1 else compare_times)(options)


if __name__ == "__main__":
    main()
