"""Describe how a backbone is divided into prefix and suffix, and how much work this saves, for ``zoo show``."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from zoo.backbone import Backbone, Tuning
from zoo.errors import ZooError
from zoo_harness.frozen.partition.partition import ALL_TRAINS, Partition, partition_network
from zoo_harness.models.build import build_network, has_other_fixed_size
from zoo_harness.models.preprocessing import resolve_preprocessing
from zoo_harness.models.surgery import prepare

_SHOWN = {"name", "shape", "dtype"}


def describe_partition(backbone: Backbone, recipe: str, classes: int) -> dict[str, Any]:
    """Describe the tensors cached for a float32 image, and count the floating-point operations of prefix and suffix.

    The network is built without weights on the meta device, so that nothing is downloaded or computed. ``zoo eval``
    verifies the partition on real images.

    >>> from zoo.registry import load_registry
    >>> described = describe_partition(load_registry().backbone("deit_base_distilled"), "paper", 10)
    >>> described["kept"], described["reason"]
    ([{'name': 'blocks.10', 'shape': [198, 768], 'dtype': 'float32', 'bytes': 608256}], None)
    >>> f"{described['suffix_flops'] / described['flops']:.3f}"
    '0.083'
    """
    tuning = backbone.tuning(recipe)
    try:
        partition, images = _partition(backbone, tuning, classes, "meta")
        reads_values = partition.reason not in (None, ALL_TRAINS)
    except ZooError:
        raise
    except Exception:  # a network's own code may raise any exception
        reads_values = True
    if reads_values:  # tensors on the meta device have no values
        partition, images = _partition(backbone, tuning, classes, "cpu")
    prefix_flops, suffix_flops = count_flops(partition, images[:1])
    return {
        "kept": [part.model_dump(mode="json", include=_SHOWN) | {"bytes": part.bytes} for part in partition.kept],
        "bytes_per_image": partition.bytes_per_image,
        "flops": prefix_flops + suffix_flops,
        "suffix_flops": suffix_flops,
        "reason": partition.reason,
    }


def count_flops(partition: Partition, images: Tensor) -> tuple[int, int]:
    """Count the floating-point operations of the prefix and of the suffix; a multiply-add counts as two operations."""
    partition.tuned.eval()
    with torch.no_grad(), FlopCounterMode(display=False) as prefix:
        kept = partition.prefix(images)
    with torch.no_grad(), FlopCounterMode(display=False) as suffix:
        partition.suffix(kept)
    return prefix.get_total_flops(), suffix.get_total_flops()


def _partition(backbone: Backbone, tuning: Tuning, classes: int, device: str) -> tuple[Partition, Tensor]:
    network = build_network(backbone.name, backbone.network, device)
    size = resolve_preprocessing(backbone, network, tuning).input_size
    if has_other_fixed_size(network, size):  # the recipe may set another input size
        network = build_network(backbone.name, backbone.network, device, size)
    images = torch.rand(2, 3, *size, device=device)
    return partition_network(prepare(network, tuning, classes, images), images), images
