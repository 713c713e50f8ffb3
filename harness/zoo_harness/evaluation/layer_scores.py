"""Scores the Separation Index family layer by layer: how well each layer of a network separates the classes.

The features of all layers come from one pass over a split. They are kept in memory as long as they fit into the budget,
otherwise in a memory-mapped file that is deleted afterwards. Every number is kept as float32 either way, so that scores
of them are exact.
"""

from __future__ import annotations

import contextlib
import itertools
import shutil
import tempfile
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zoo.backbone import FeatureLayer
from zoo.errors import DataError, DeclarationError
from zoo_harness.compute.context import ComputeContext
from zoo_harness.compute.precision import autocast
from zoo_harness.data.decoding import ImageData
from zoo_harness.evaluation.split_evaluation import EVALUATION_BATCH_SIZE
from zoo_harness.evaluation.split_scores import Scoring, recorded, score_features
from zoo_harness.models.feature_pooling import pool_features
from zoo_harness.models.modules import capture, find_module
from zoo_harness.records.run import (
    DEFAULT_SEPARATION,
    LayerCurveRecord,
    LayerScores,
    SeparationSettings,
    SplitSeparation,
)
from zoo_harness.separation.result import Separation
from zoo_harness.util.byte_sizes import bytes_in_words
from zoo_harness.util.progress import Progress

RAW_PIXELS = "raw pixels"
BATCH_BYTES = 2**28  # of features put out by one batch


@dataclass(frozen=True)
class ScoredLayer:
    """Hold one point of a curve: a layer's path, or ``"raw pixels"``, the width of its features, and its scores.

    ``vector`` names the reduction of its output to one vector: as declared (``average``, ``cls``, ...) or ``flatten``.
    ``kept_in`` is ``"memory"`` or ``"disk"``.
    """

    path: str
    width: int
    vector: str
    kept_in: str
    separation: Separation

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the values of single samples, for JSON."""
        plain = {"layer": self.path, "width": self.width, "vector": self.vector, "kept_in": self.kept_in}
        return {**plain, **self.separation.to_dict()}


def score_layers(
    network: nn.Module,
    layers: Sequence[FeatureLayer],
    data: ImageData,
    compute: ComputeContext,
    scoring: Scoring,
    progress: Progress,
    raw_pixels: Separation | None = None,
) -> list[ScoredLayer]:
    """Score the raw pixels and every layer, from one pass over the images; ``raw_pixels``: scores measured before.

    Features take up to half of the memory budget, then go to a file; the search takes the other half.
    """
    pixels = data.raw_pixels
    scores = raw_pixels or score_features(pixels, data.labels, compute, scoring)
    first = ScoredLayer(RAW_PIXELS, pixels.shape[1], "flatten", "memory", scores)
    return [first, *_score_outputs(network, layers, data, compute, scoring, progress)]


def run_curve(
    network: nn.Module,
    layers: Sequence[FeatureLayer],
    images: ImageData,
    split: str,
    compute: ComputeContext,
    progress: Progress,
    *,
    raw_pixels: SplitSeparation | None,
    settings: SeparationSettings = DEFAULT_SEPARATION,
) -> LayerCurveRecord:
    """Score every layer on a split of at least two images, from one pass; ``raw_pixels``: scores measured before.

    Raises :class:`~zoo.errors.ZooError` if a declared layer does not run or its features do not fit on the disk.
    """
    scoring = Scoring.of(settings, len(images), pooled=True)
    found = _score_outputs(network, layers, images, compute, scoring, progress, EVALUATION_BATCH_SIZE)
    scored = [
        LayerScores(path=layer.path, width=layer.width, vector=layer.vector, separation=recorded(layer.separation))
        for layer in found
    ]
    if raw_pixels is not None:
        width = images.raw_pixels.shape[1]
        scored.insert(0, LayerScores(path=RAW_PIXELS, width=width, vector="flatten", separation=raw_pixels))
    return LayerCurveRecord(split=split, layers=tuple(scored))


def _score_outputs(
    network: nn.Module,
    layers: Sequence[FeatureLayer],
    data: ImageData,
    compute: ComputeContext,
    scoring: Scoring,
    progress: Progress,
    batch_size: int = 256,
) -> list[ScoredLayer]:
    curve = []
    with layer_features(network, layers, data, compute, scoring, progress, batch_size) as found:
        progress.stage("separation of the layers", 0)
        for layer, (features, kept_in) in zip(layers, found, strict=True):
            scores = score_features(features, data.labels, compute, scoring)
            vector = layer.pool if scoring.pooled else "flatten"
            curve.append(ScoredLayer(layer.path, features.shape[1], vector, kept_in, scores))
    return curve


@contextlib.contextmanager
def layer_features(
    network: nn.Module,
    layers: Sequence[FeatureLayer],
    data: ImageData,
    compute: ComputeContext,
    scoring: Scoring,
    progress: Progress,
    batch_size: int = 256,
) -> Iterator[list[tuple[Tensor, str]]]:
    """Yield the features of every layer, (N, D) float32, each with ``"memory"`` or ``"disk"``, where they are kept.

    If ``scoring.pooled``, each layer becomes the vector that its record declares, otherwise its whole output,
    flattened. Features take up to half of ``scoring.memory_budget`` bytes in memory; the rest goes to files. Hooks and
    files are removed when the body ends. Raises :class:`~zoo.errors.DataError` if the disk has no room, and
    :class:`~zoo.errors.DeclarationError` if a layer does not run or puts out something else.
    """
    widths = layer_widths(network, layers, data, compute, pooled=scoring.pooled)
    with contextlib.ExitStack() as stack:
        kept = _allocate(len(data), widths, scoring.memory_budget // 2, stack)
        batches = layer_batches(network, layers, widths, data, compute, progress, batch_size, pooled=scoring.pooled)
        stack.enter_context(contextlib.closing(batches))
        start = 0
        for vectors in batches:
            stop = start + len(vectors[0])
            for (features, _kept_in), part in zip(kept, vectors, strict=True):
                features[start:stop] = part
            start = stop
        yield kept


def layer_batches(
    network: nn.Module,
    layers: Sequence[FeatureLayer],
    widths: Sequence[int],
    data: ImageData,
    compute: ComputeContext,
    progress: Progress,
    batch_size: int = 256,
    *,
    pooled: bool,
) -> Generator[list[Tensor], None, None]:
    """Yield the features of every layer, (B, D) float32 in memory, batch by batch in the order of the images.

    If ``pooled``, each layer becomes the vector that its record declares, otherwise its whole output, flattened.
    ``widths``: as :func:`layer_widths` returns. Hooks are removed when the generator ends or is closed.
    """
    found: dict[str, Tensor] = {}

    def keep(layer: FeatureLayer, _module: nn.Module, _inputs: object, output: Tensor) -> None:
        # A copy, because an activation that works in place may follow.
        found[layer.path] = _vectors(output, layer, pooled=pooled).to("cpu", torch.float32, copy=True)

    batch = max(1, min(len(data), batch_size, BATCH_BYTES // (4 * sum(widths))))
    with contextlib.ExitStack() as stack:
        for layer in layers:
            stack.callback(find_module(network, layer.path).register_forward_hook(partial(keep, layer)).remove)
        for images, labels in data.in_order(batch, compute.device):
            with torch.inference_mode(), autocast(compute.precision, compute.device):
                network(images)
            progress.advance(len(labels))
            yield [found.pop(layer.path) for layer in layers]


def layer_widths(
    network: nn.Module, layers: Sequence[FeatureLayer], data: ImageData, compute: ComputeContext, *, pooled: bool
) -> list[int]:
    """Return the width of each layer's features, by running one image; the network is in evaluation mode afterwards.

    Raises :class:`~zoo.errors.DeclarationError` if a layer does not run or puts out something else.
    """
    network.eval()
    images, _labels = next(data.in_order(1, compute.device))
    paths = [layer.path for layer in layers]
    with capture(network, paths) as outputs, torch.inference_mode(), autocast(compute.precision, compute.device):
        network(images)
        for path in paths:
            if path not in outputs:
                raise DeclarationError(f"feature layer {path!r} exists but never runs", code="layer-unused", layer=path)
        return [_vectors(outputs[layer.path], layer, pooled=pooled).shape[1] for layer in layers]


def _vectors(output: Tensor, layer: FeatureLayer, *, pooled: bool) -> Tensor:
    return pool_features(output, layer) if pooled else output.flatten(1)


def _allocate(
    count: int, widths: Sequence[int], memory_budget: int, stack: contextlib.ExitStack
) -> list[tuple[Tensor, str]]:
    """Allocate features of every layer, the narrowest first in memory, as far as the budget goes."""
    sizes = [4 * count * width for width in widths]
    narrowest_first = sorted(range(len(sizes)), key=sizes.__getitem__)
    totals = itertools.accumulate(sizes[place] for place in narrowest_first)
    in_memory = {place for place, total in zip(narrowest_first, totals, strict=True) if total <= memory_budget}
    spilt = sum(size for place, size in enumerate(sizes) if place not in in_memory)
    folder = _scratch_folder(spilt, stack) if spilt else Path()

    def on_disk(place: int, width: int) -> Tensor:
        path = str(folder / f"{place}.float32")
        return torch.from_file(path, shared=True, size=count * width, dtype=torch.float32).view(count, width)

    return [
        (torch.empty(count, width), "memory") if place in in_memory else (on_disk(place, width), "disk")
        for place, width in enumerate(widths)
    ]


def _scratch_folder(size: int, stack: contextlib.ExitStack) -> Path:
    """Create a temporary folder with room for a number of bytes."""
    parent = tempfile.gettempdir()
    free = shutil.disk_usage(parent).free
    if free < size * 1.05:
        raise DataError(
            f"features do not fit on the disk: {bytes_in_words(size)} beside the memory allowed; {parent} has "
            f"{bytes_in_words(free)} free; try --pool, fewer images (--per-class, --limit), or TMPDIR on a larger disk",
            code="disk-full",
            path=parent,
            needed=size,
            free=free,
        )
    return Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="blockzoo-features-")))
