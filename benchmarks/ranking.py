"""Measure the time and memory of the scores of ``zoo rank``, and the forward passes that successive halving saves.

    python benchmarks/ranking.py [--part scores peers share halving]

``scores`` measures the time and memory of all default scores for 5,000 x 1,280 and 50,000 x 2,048 features.
``peers`` compares LogME and H-score with the time of their usual implementations: an SVD of the features for LogME, and
the pseudo-inverse of the covariance for H-score. This script contains those implementations only to measure their time.
``share`` measures the share of forward passes in the time of a process that ranks one or three networks.
``halving`` measures, on ten fields, whether successive halving keeps all backbones of tier 1, and how many forward
passes it saves. A field is a set of candidates to rank: the features of several layers of EfficientNet-Lite0, 1 and 2,
where each layer counts as a backbone.
"""

from __future__ import annotations

import argparse
import functools
import gzip
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

import zoo
from zoo_harness.compute.allocator import keep_freed_memory
from zoo_harness.ranking.h_score import shrunk_h_score
from zoo_harness.ranking.halving import rounds_of, worse_for_certain
from zoo_harness.ranking.log_me import log_me
from zoo_harness.ranking.moments import Array, Moments
from zoo_harness.ranking.neighbour_votes import nearest_labels, si
from zoo_harness.ranking.paired_tests import tiers
from zoo_harness.ranking.scores import RANK_SCORES, Evidence

LITE = ("efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2")
FASHION = Path("/usr/share/datasets/fashion-mnist")


def main() -> None:
    """Run the parts that ``--part`` names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts: dict[str, Callable[[], None]] = {"scores": scores, "peers": peers, "share": share, "halving": halving}
    parser.add_argument("--part", nargs="+", choices=list(parts), default=list(parts))
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    keep_freed_memory()
    given = parser.parse_args()
    if given.child:
        _rank_and_print_seconds(int(given.child[0]), given.child[1:])
        return
    print(f"torch {torch.__version__}, numpy {np.__version__}, {torch.get_num_threads()} threads")
    for part in given.part:
        print(f"\n## {part}\n")
        parts[part]()


def scores() -> None:
    """Print the time of each default score, and the memory in addition to the features."""
    print("| features | score | seconds |\n|---|---|---|")
    for count, width, classes, sources in ((5_000, 1_280, 10, 1_000), (50_000, 2_048, 10, 1_000)):
        evidence = _evidence(count, width, classes, sources)
        before, total = _peak_mib(), 0.0
        for definition in (each for each in RANK_SCORES if each.default):
            seconds = _seconds(functools.partial(definition.compute, evidence))
            total += seconds
            print(f"| {count:,} x {width:,} | {definition.heading} | {seconds:.2f} |")
        print(f"| {count:,} x {width:,} | **all**, {_peak_mib() - before:,.0f} MiB more at the peak | {total:.2f} |")


def peers() -> None:
    """Print the times of LogME and H-score, and of an SVD of the features and a pseudo-inverse of the covariance."""
    print("| features | ours, s | usual way, s | ratio |\n|---|---|---|---|")
    evidence = _evidence(5_000, 1_280, 10, 10)
    wide = evidence.features.astype(np.float64)
    targets = np.eye(10)[evidence.labels]

    def usual_log_me() -> None:
        _u, singular, right = np.linalg.svd(wide, full_matrices=False)
        for column in targets.T:  # one fixed-point iteration per class, with matrix products as large as the features
            projected = right @ (wide.T @ column)
            for _ in range(11):
                weights = right.T @ (projected / (singular**2 + 1.0))
                _ = wide @ weights

    def usual_h_score() -> None:
        centred = wide - wide.mean(0)
        covariance = np.cov(centred.T)
        means = np.stack([centred[evidence.labels == label].mean(0) for label in range(10)])[evidence.labels]
        np.trace(np.linalg.pinv(covariance, rcond=1e-15) @ np.cov(means.T))

    for name, ours, usual in (("LogME", log_me, usual_log_me), ("H-score", shrunk_h_score, usual_h_score)):
        seconds = _seconds(lambda ours=ours: ours(Moments.of(evidence.features, evidence.labels)))  # type: ignore[misc]
        peer = _seconds(usual)
        print(f"| {name}, 5,000 x 1,280 | {seconds:.2f} | {peer:.2f} | {peer / seconds:.1f} |")


def share() -> None:
    """Print the share of forward passes in the time of a whole process that ranks."""
    print("| backbones | images of Fashion-MNIST | process, s | forward passes, s | share |\n|---|---|---|---|---|")
    for names, images in ((LITE[:1], 2_000), (LITE, 2_000), (LITE, 5_000)):
        started = time.perf_counter()
        command = [sys.executable, __file__, "--child", str(images), *names]
        printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        seconds, passes = time.perf_counter() - started, float(printed.split()[-1])
        print(
            f"| {len(names)} | {images:,} | {seconds:.1f} | {passes:.1f} | {100 * passes / seconds:.1f} % |", flush=True
        )


def _rank_and_print_seconds(images: int, names: Sequence[str]) -> None:
    """Rank in this process, and print the seconds that forward passes took."""
    from zoo_harness.ranking import readout

    spent = [0.0]
    run = readout.FeatureReader.outputs

    def timed(self: readout.FeatureReader, batch: torch.Tensor) -> tuple[torch.Tensor, ...]:
        started = time.perf_counter()
        found = run(self, batch)
        spent[0] += time.perf_counter() - started
        return found

    readout.FeatureReader.outputs = timed  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as folder:
        zoo.rank("fashion_mnist", list(names), images=images, cache="off", out=f"{folder}/rank")
    print(spent[0])


def halving() -> None:
    """Print for each field whether halving keeps tier 1, and the share of forward passes that halving saves."""
    print("| field | backbones | images | tier 1 kept | passes saved |\n|---|---|---|---|---|")
    kept, saved = [], []
    for name, features, labels in _fields():
        rounds = rounds_of(len(labels), len(np.unique(labels)))
        whole = tiers({key: si(nearest_labels(each, labels)).hits for key, each in features.items()})
        alive, seen, read = dict(features), 0, 0
        for images in rounds:
            read += (images - seen) * len(alive)
            seen = images
            hits = {key: si(nearest_labels(each[:images], labels[:images])).hits for key, each in alive.items()}
            if images < rounds[-1]:
                for excluded in worse_for_certain(hits):
                    del alive[excluded.name]
        best = {key for key, tier in whole.items() if tier == 1}
        kept.append(best <= alive.keys())
        saved.append(1 - read / (len(features) * len(labels)))
        print(
            f"| {name} | {len(features)} | {len(labels):,} | {'yes' if kept[-1] else 'NO'} | {100 * saved[-1]:.0f} % |"
        )
    mean = 100 * float(np.mean(saved))
    print(f"\nkept in {sum(kept)} of {len(kept)} fields; {mean:.0f} % of the passes saved on average")


def _fields() -> Iterator[tuple[str, dict[str, Array], Array]]:
    """Yield ten fields from two datasets with several sizes and seeds; each layer of three networks is a backbone."""
    for dataset, counts in (("fashion_mnist", (2_000, 4_000, 6_000)), ("digits", (1_000, 1_400))):
        for count in counts:
            for seed in (0, 1):
                yield _field(dataset, count, seed)


def _field(dataset: str, count: int, seed: int) -> tuple[str, dict[str, Array], Array]:
    images, labels = _balanced(dataset, count, seed)
    features: dict[str, Array] = {"pixels": images.reshape(len(images), -1).astype(np.float32)}
    for name in LITE:
        features |= _layers(name, images)
    return f"{dataset}, {count:,}, seed {seed}", features, labels


def _balanced(dataset: str, count: int, seed: int) -> tuple[Array, Array]:
    if dataset == "digits":
        from sklearn.datasets import load_digits

        loaded = load_digits()
        images, labels = (loaded.images * 15.9375).astype(np.uint8), loaded.target
    else:
        raw = gzip.decompress((FASHION / "train-images-idx3-ubyte.gz").read_bytes())
        images = np.frombuffer(raw, np.uint8)[16:].reshape(-1, 28, 28)
        labels = np.frombuffer(gzip.decompress((FASHION / "train-labels-idx1-ubyte.gz").read_bytes()), np.uint8)[8:]
    order = np.random.default_rng(seed).permutation(len(labels))
    by_class = [order[labels[order] == label] for label in np.unique(labels)]
    turns = [each[turn] for turn in range(max(map(len, by_class))) for each in by_class if turn < len(each)]
    chosen = np.array(turns[:count])
    return images[chosen], labels[chosen].astype(np.int64)


def _layers(name: str, images: Array) -> dict[str, Array]:
    """Return the pooled features of each layer of a network for images of 64 pixels, by layer name."""
    from zoo import Preprocessing, load_registry
    from zoo_harness.data.transform import BatchTransform
    from zoo_harness.models.build import build_network
    from zoo_harness.models.feature_pooling import pool_features
    from zoo_harness.models.modules import capture
    from zoo_harness.models.weights import load_weights

    backbone = load_registry().backbone(name)
    network = build_network(name, backbone.network)
    load_weights(network, backbone, backbone.weights)
    transform = BatchTransform(Preprocessing(input_size=(64, 64)))
    found: dict[str, list[torch.Tensor]] = {layer.path: [] for layer in backbone.features}
    with torch.inference_mode(), capture(network, found) as outputs:
        for part in torch.from_numpy(np.ascontiguousarray(images)).split(256):
            network(transform(part))
            for layer in backbone.features:
                found[layer.path].append(pool_features(outputs[layer.path], layer))
    return {f"{name} {path}": torch.cat(parts).numpy() for path, parts in found.items()}


def _evidence(count: int, width: int, classes: int, sources: int) -> Evidence:
    random = np.random.default_rng(0)
    labels = np.arange(count) % classes
    centres = random.normal(size=(classes, width)).astype(np.float32)
    features = centres[labels] + 3 * random.normal(size=(count, width)).astype(np.float32)
    return Evidence(features, labels, random.normal(size=(count, sources)).astype(np.float32))


def _seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
