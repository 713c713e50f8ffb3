"""Features of several layers of a network for a whole split, from one pass over it.

Features are kept in memory as long as they fit into the budget, otherwise in a memory-mapped file that is deleted
afterwards. Every number is kept as float32 either way, so that scores of them are exact.
"""

from __future__ import annotations

import contextlib
import itertools
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from zoo.backbone import FeatureLayer
from zoo.errors import DataError, DeclarationError
from zoo_harness.compute.context import ComputeContext
from zoo_harness.compute.precision import autocast
from zoo_harness.data.decoding import ImageData
from zoo_harness.evaluation.split_scores import Scoring
from zoo_harness.models.feature_pooling import pool_features
from zoo_harness.models.modules import capture, find_module
from zoo_harness.util.byte_sizes import bytes_in_words
from zoo_harness.util.progress import Progress

BATCH_BYTES = 2**28  # of features put out by one batch


@dataclass(frozen=True, eq=False)
class LayerFeatures:
    """Hold features of one layer: (N, D) float32, in ``"memory"`` or on the ``"disk"``."""

    layer: FeatureLayer
    features: Tensor
    kept_in: str


@contextlib.contextmanager
def layer_features(
    network: nn.Module,
    layers: Sequence[FeatureLayer],
    data: ImageData,
    compute: ComputeContext,
    scoring: Scoring,
    progress: Progress,
    batch_size: int = 256,
) -> Iterator[list[LayerFeatures]]:
    """Yield the features of all layers, in their order; hooks and files are removed when the body ends.

    If ``scoring.pooled``, each layer becomes the vector that its record declares, otherwise its whole output,
    flattened. Features take up to half of ``scoring.memory_budget`` bytes in memory; the rest goes to files.
    ``batch_size``: largest number of images that run at a time. Raises :class:`~zoo.errors.DataError` if the disk has
    no room, and :class:`~zoo.errors.DeclarationError` if a layer does not run or puts out something else.
    """
    network.eval()
    widths = _widths(network, layers, data, compute, pooled=scoring.pooled)
    with contextlib.ExitStack() as stack:
        kept = _allocate(len(data), layers, widths, scoring.memory_budget // 2, stack)
        batch = max(1, min(len(data), batch_size, BATCH_BYTES // (4 * sum(widths))))
        rows = slice(0, 0)

        def keep(target: LayerFeatures, output: Tensor) -> None:
            target.features[rows] = _vectors(output, target.layer, pooled=scoring.pooled).float().to("cpu")

        for target in kept:
            module = find_module(network, target.layer.path)
            hook = module.register_forward_hook(lambda _module, _inputs, out, target=target: keep(target, out))
            stack.callback(hook.remove)
        with torch.inference_mode(), autocast(compute.precision, compute.device):
            for images, labels in data.in_order(batch, compute.device):
                rows = slice(rows.stop, rows.stop + len(labels))
                network(images)
                progress.advance(len(labels))
        yield kept


def _widths(
    network: nn.Module, layers: Sequence[FeatureLayer], data: ImageData, compute: ComputeContext, *, pooled: bool
) -> list[int]:
    """Return the width of each layer's features, by running one image."""
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
    count: int, layers: Sequence[FeatureLayer], widths: Sequence[int], memory_budget: int, stack: contextlib.ExitStack
) -> list[LayerFeatures]:
    """Allocate features of every layer, the narrowest first in memory, as far as the budget goes."""
    sizes = [4 * count * width for width in widths]
    narrowest_first = sorted(range(len(sizes)), key=sizes.__getitem__)
    totals = itertools.accumulate(sizes[place] for place in narrowest_first)
    in_memory = {place for place, total in zip(narrowest_first, totals, strict=True) if total <= memory_budget}
    spilt = sum(size for place, size in enumerate(sizes) if place not in in_memory)
    folder = _scratch_folder(spilt, stack) if spilt else Path()
    kept = []
    for place, (layer, width) in enumerate(zip(layers, widths, strict=True)):
        if place in in_memory:
            kept.append(LayerFeatures(layer, torch.empty(count, width), "memory"))
        else:
            path = str(folder / f"{place}.float32")
            mapped = torch.from_file(path, shared=True, size=count * width, dtype=torch.float32)
            kept.append(LayerFeatures(layer, mapped.view(count, width), "disk"))
    return kept


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
