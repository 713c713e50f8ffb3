"""How large a backbone is: parameters, input size, multiply-accumulates and the bytes of its weights.

Those of the built-in backbones are stored, because measuring them takes torch and seconds:
``scripts/backbone_cards.py`` writes them, and a test compares them with the networks.
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
    """Return the figures of the built-in backbones by name, as :func:`measure_figures` returns them.

    >>> stored_figures()["resnet18"]["parameters"]
    11689512
    """
    found: dict[str, Figures] = json.loads(resources.files("zoo_cards").joinpath(STORED).read_text("utf-8"))
    return found


def figures_of(backbone: Backbone) -> Figures:
    """Return the stored figures of a built-in backbone, and measure those of others."""
    from zoo.registry import load_registry

    plugin = load_registry().declares(backbone)
    stored = stored_figures().get(backbone.name) if plugin is not None and plugin.built_in else None
    return stored or measure_figures(backbone)


def measure_figures(backbone: Backbone) -> Figures:
    """Return the figures of a backbone with its original classifier; nothing is downloaded.

    ``parameters``: their number. ``input_size``: (height, width) in pixels. ``gmacs``: 10^9 multiply-accumulates of
    convolutions and matrix products for one image, as timm reports them; ``None`` if the network does not run without
    values. ``weights_bytes``: of all tensors, which a weight file exceeds only by its header; ``None`` for random
    weights.
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

    network.requires_grad_(False)  # the counter fails on parameters that are a module's input
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            network.eval()(torch.empty(1, 3, *size, device="meta"))
    except Exception:  # whatever the code of a network may raise on tensors without values
        return None
    return float(f"{counter.get_total_flops() / 2e9:.4g}")
