"""Compute the Separation Index family for each layer of a network, to measure how well each layer separates classes.

One pass over a split computes the features of all layers. Features are kept in memory if they fit into the memory
budget. Otherwise, features are kept in a memory-mapped file that is deleted afterwards. Memory and file both store
features as float32, so that the location does not change the scores.
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
BATCH_BYTES = 2**28  # largest number of bytes of features that one batch produces


@dataclass(frozen=True)
class ScoredLayer:
    """The separation scores of one layer of a network.

    ``path``: the path of the layer, or ``"raw pixels"``. ``width``: the number of features per image. ``vector``: how
    the layer's output becomes one vector per image: ``flatten``, or the pooling in the layer's record, such as
    ``average`` or ``cls``. ``kept_in``: where the features were kept: ``"memory"`` or ``"disk"``. ``separation``: the
    scores.
    """

    path: str
    width: int
    vector: str
    kept_in: str
    separation: Separation

    def to_dict(self) -> dict[str, Any]:
        """Convert the scores to a dictionary for JSON, without the values of single samples."""
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
    """Compute the separation scores of the raw pixels and of every layer, in one pass over the images.

    ``raw_pixels``: the scores of the raw pixels if an earlier call has computed these scores. Features may take half of
    the memory budget, and the neighbour search may take the other half. Features that exceed their half are kept in
    files.
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
    """Compute the separation scores of every layer of a run's network, in one pass over a split.

    ``images``: at least two images. ``raw_pixels``: the scores of the raw pixels; if ``None``, the result has no scores
    of the raw pixels. Raises :class:`~zoo.errors.ZooError` if a declared layer does not run, or if its features do not
    fit on the disk.
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
    """Compute the features of every layer, and yield for each layer its features (N, D) float32 and their location.

    The location is the text "memory" or "disk". If ``scoring.pooled`` is true, the features of a layer are the pooled
    vector that the layer's record declares. Otherwise, the features are the layer's whole output, flattened. Features
    take at most half of ``scoring.memory_budget`` bytes of memory; the rest is kept in files. Hooks and files are
    removed at the end of the ``with`` block. Raises :class:`~zoo.errors.DataError` if the disk has too little space.
    Raises :class:`~zoo.errors.DeclarationError` if a layer does not run, or if its output does not match the layer's
    record.
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
    """Yield, for each batch of images in order, the features of every layer: tensors (B, D) float32 in host memory.

    If ``pooled`` is true, the features of a layer are the pooled vector that the layer's record declares. Otherwise,
    the features are the layer's whole output, flattened. ``widths``: the result of :func:`layer_widths`. Hooks are
    removed when the generator ends or is closed.
    """
    found: dict[str, Tensor] = {}

    def keep(layer: FeatureLayer, _module: nn.Module, _inputs: object, output: Tensor) -> None:
        # Copy the output, because a later activation may modify it in place.
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
    """Run the network on one image, and return the number of features of each layer.

    The network is in evaluation mode afterwards. Raises :class:`~zoo.errors.DeclarationError` if a layer does not run,
    or if its output does not match the layer's record.
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
    """Allocate space for features: narrow layers in memory until the budget is used up, the other layers on disk."""
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
    """Create a temporary folder; raise :class:`~zoo.errors.DataError` if the disk has less than ``size`` bytes free."""
    parent = tempfile.gettempdir()
    free = shutil.disk_usage(parent).free
    if free < size * 1.05:
        raise DataError(
            f"features that exceed the memory budget do not fit on the disk: {bytes_in_words(size)}; {parent} has "
            f"{bytes_in_words(free)} free; try --pool, --per-class, --limit, or a folder on a larger disk in TMPDIR",
            code="disk-full",
            path=parent,
            needed=size,
            free=free,
        )
    return Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="blockzoo-features-")))
