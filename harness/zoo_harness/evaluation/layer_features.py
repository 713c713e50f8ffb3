"""What several layers of a network put out for a whole split, from one pass over it.

Features are kept in memory as long as they fit into the budget, and in a memory-mapped file that is gone afterwards
when they do not; either way every number is kept as float32, so that scores of them are exact.
"""

from __future__ import annotations

import contextlib
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
from zoo_harness.models.feature_pooling import pool_features
from zoo_harness.models.modules import find_module
from zoo_harness.util.progress import Progress

BATCH_BYTES = 2**28  # of features put out by one batch


@dataclass(frozen=True, eq=False)
class LayerFeatures:
    """Features of one layer: (N, D) float32, and where they lie, ``"memory"`` or ``"disk"``."""

    layer: FeatureLayer
    features: Tensor
    kept_in: str


@contextlib.contextmanager
def layer_features(
    network: nn.Module,
    layers: Sequence[FeatureLayer],
    data: ImageData,
    compute: ComputeContext,
    progress: Progress,
    *,
    pooled: bool,
    memory_budget: int,
    folder: Path | None = None,
    batch_size: int = 256,
) -> Iterator[list[LayerFeatures]]:
    """Features of all layers, in their order, while the body runs.

    With ``pooled`` each layer becomes the vector its record declares, otherwise everything it puts out, flattened.
    ``memory_budget``: bytes that the features may take in memory; more goes to files in ``folder``. ``batch_size``: the
    most images that run at a time. Hooks and files
    go whatever happens. Raises :class:`~zoo.errors.DataError` where the disk has no room for them.
    """
    network.eval()
    widths = _widths(network, layers, data, compute, pooled=pooled)
    with contextlib.ExitStack() as stack:
        kept = _room(len(data), layers, widths, memory_budget, folder, stack)
        batch = max(1, min(len(data), batch_size, BATCH_BYTES // (4 * sum(widths))))
        rows = slice(0, 0)

        def keep(place: int, output: object) -> None:
            kept[place].features[rows] = _vectors(output, layers[place], pooled=pooled).float().to("cpu")

        for place, layer in enumerate(layers):
            module = find_module(network, layer.path)
            hook = module.register_forward_hook(lambda _module, _inputs, out, place=place: keep(place, out))
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
    """How many numbers each layer puts out for an image, by running one."""
    found: dict[int, int] = {}
    with contextlib.ExitStack() as stack:
        for place, layer in enumerate(layers):

            def note(_module: nn.Module, _inputs: object, output: object, place: int = place) -> None:
                found[place] = _vectors(output, layers[place], pooled=pooled).shape[1]

            stack.callback(find_module(network, layer.path).register_forward_hook(note).remove)
        images, _labels = next(data.in_order(1, compute.device))
        with torch.inference_mode(), autocast(compute.precision, compute.device):
            network(images)
    silent = [layer.path for place, layer in enumerate(layers) if place not in found]
    if silent:
        raise DeclarationError(f"feature layer {silent[0]!r} exists but never runs")
    return [found[place] for place in range(len(layers))]


def _vectors(output: object, layer: FeatureLayer, *, pooled: bool) -> Tensor:
    if not isinstance(output, Tensor):
        raise DeclarationError(f"layer {layer.path!r} puts out a {type(output).__name__}, not one tensor")
    return pool_features(output, layer) if pooled else output.flatten(1)


def _room(
    count: int,
    layers: Sequence[FeatureLayer],
    widths: Sequence[int],
    memory_budget: int,
    folder: Path | None,
    stack: contextlib.ExitStack,
) -> list[LayerFeatures]:
    """Empty features of every layer: in memory the narrowest first, as far as the budget goes."""
    sizes = [4 * count * width for width in widths]
    left, in_memory = memory_budget, set()
    for place in sorted(range(len(sizes)), key=sizes.__getitem__):
        left -= sizes[place]
        if left >= 0:
            in_memory.add(place)
    spilt = sum(size for place, size in enumerate(sizes) if place not in in_memory)
    files = _scratch(spilt, folder, stack) if spilt else Path()
    kept = []
    for place, (layer, width) in enumerate(zip(layers, widths, strict=True)):
        if place in in_memory:
            kept.append(LayerFeatures(layer, torch.empty(count, width), "memory"))
            continue
        path = str(files / f"{place}.float32")
        mapped = torch.from_file(path, shared=True, size=count * width, dtype=torch.float32)
        kept.append(LayerFeatures(layer, mapped.view(count, width), "disk"))
    return kept


def _scratch(size: int, folder: Path | None, stack: contextlib.ExitStack) -> Path:
    """A folder that is gone afterwards, with room for so many bytes."""
    place = Path(tempfile.gettempdir()) if folder is None else folder
    free = shutil.disk_usage(place).free
    if free < size * 1.05:
        raise DataError(
            f"features need {size / 2**30:.1f} GiB beside the memory allowed, and {place} has {free / 2**30:.1f} GiB "
            "free; pool them (--pool), take fewer images (--per-class, --limit), or set TMPDIR to a larger disk"
        )
    return Path(stack.enter_context(tempfile.TemporaryDirectory(dir=place, prefix="blockzoo-features-")))
