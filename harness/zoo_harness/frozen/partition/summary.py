"""Where a recipe cuts a backbone, and what that saves, as plain data: for ``zoo show --split``."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from zoo.backbone import Backbone, Tuning
from zoo.errors import ZooError
from zoo_harness.frozen.partition.partition import ALL_TRAINS, Split, split_network
from zoo_harness.models.build import build_network
from zoo_harness.models.preprocessing import resolve_preprocessing
from zoo_harness.models.surgery import prepare


def describe_split(backbone: Backbone, recipe: str, classes: int) -> dict[str, Any]:
    """What is kept of an image, in float32, and the floating-point operations of one forward pass of each part.

    The network is built without its weights, on a device that computes nothing, so nothing is downloaded; ``zoo eval``
    tries the cut on real images.

    >>> from zoo.registry import load_registry
    >>> cut = describe_split(load_registry().backbone("deit_base_distilled"), "paper", 10)
    >>> cut["kept"], cut["reason"]
    ([{'name': 'blocks.10', 'shape': [198, 768], 'dtype': 'float32', 'bytes': 608256}], None)
    >>> f"{cut['tail_flops'] / cut['flops']:.3f}"
    '0.083'
    """
    tuning = backbone.tuning(recipe)
    try:
        split, images = _cut(backbone, tuning, classes, "meta")
        wants_values = split.reason not in (None, ALL_TRAINS)
    except ZooError:
        raise
    except Exception:  # whatever the code of a network may raise
        wants_values = True
    if wants_values:  # which that device has not
        split, images = _cut(backbone, tuning, classes, "cpu")
    prefix, tail = count_flops(split, images[:1])
    return {
        "kept": [
            {
                "name": part.name,
                "shape": list(part.shape),
                "dtype": str(part.dtype).removeprefix("torch."),
                "bytes": part.bytes,
            }
            for part in split.kept
        ],
        "bytes_per_image": split.bytes_per_image,
        "flops": prefix + tail,
        "tail_flops": tail,
        "mechanism": None if split.reason else "replayed" if split.replayed else "traced",
        "reason": split.reason,
    }


def _cut(backbone: Backbone, tuning: Tuning, classes: int, device: str) -> tuple[Split, Tensor]:
    network = build_network(backbone.name, backbone.network, device)
    size = resolve_preprocessing(backbone, network, tuning).input_size
    images = torch.rand(2, 3, *size, device=device)
    return split_network(prepare(network, tuning, classes, images), images), images


def count_flops(split: Split, images: Tensor) -> tuple[int, int]:
    """Floating-point operations of a forward pass of the prefix and of the tail; a multiply-add counts as two."""
    split.tuned.eval()
    with torch.no_grad(), FlopCounterMode(display=False) as prefix:
        kept = split.prefix(images)
    with torch.no_grad(), FlopCounterMode(display=False) as tail:
        split.tail(kept)
    return prefix.get_total_flops(), tail.get_total_flops()
