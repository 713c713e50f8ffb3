"""Measure or look up the size of a backbone: parameters, input size, multiply-accumulates, and bytes of weights.

The sizes of built-in backbones are stored in a file, because measuring them needs torch and takes seconds.
``scripts/backbone_cards.py`` writes this file, and a test compares the stored sizes with the networks.
"""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zoo.backbone import Backbone

STORED = "backbone_figures.json"
Figures = dict[str, Any]


@cache
def stored_figures() -> dict[str, Figures]:
    """Read the stored sizes of the built-in backbones, as a dictionary from name to result of :func:`measure_figures`.

    >>> stored_figures()["resnet18"]["parameters"]
    11689512
    """
    found: dict[str, Figures] = json.loads(resources.files("zoo_cards").joinpath(STORED).read_text("utf-8"))
    return found


def figures_of(backbone: Backbone) -> Figures:
    """Return the stored sizes of a built-in backbone; measure the sizes of any other backbone."""
    from zoo.registry import load_registry

    plugin = load_registry().declares(backbone)
    stored = stored_figures().get(backbone.name) if plugin is not None and plugin.built_in else None
    return stored or measure_figures(backbone)


def measure_figures(backbone: Backbone) -> Figures:
    """Measure the sizes of a backbone with its original classifier; nothing is downloaded.

    ``parameters`` is the number of parameters, and ``input_size`` is (height, width) in pixels. ``gmacs`` counts 10^9
    multiply-accumulates of convolutions and matrix products for one image, as timm does. ``gmacs`` is ``None`` if the
    network does not run on tensors without values. ``weights_bytes`` is the size of all tensors in bytes, or ``None``
    for random weights; a weight file is larger only by its header.
    """
    from zoo_harness.models.build import build_network
    from zoo_harness.models.preprocessing import resolve_preprocessing

    network = build_network(backbone.name, backbone.network, device="meta")
    size = resolve_preprocessing(backbone, network, backbone.tuning("default")).input_size
    tensors = network.state_dict().values()
    return {
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "input_size": list(size),
        "gmacs": _gmacs(network, size),
        "weights_bytes": None
        if backbone.weights.kind == "random"
        else sum(each.numel() * each.element_size() for each in tensors),
    }


def _gmacs(network: Any, size: tuple[int, int]) -> float | None:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    network.requires_grad_(False)  # FlopCounterMode fails if a parameter is the input of a module
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            network.eval()(torch.empty(1, 3, *size, device="meta"))
    except Exception:  # network code may raise any error on tensors without values
        return None
    return float(f"{counter.get_total_flops() / 2e9:.4g}")
