"""Build the built-in backbones with fewer computing blocks, so that tests take a fraction of the time.

In a row of equal blocks, only the first and the last block compute. The other blocks keep their paths and return their
input. All parameters are random, also those that a constructor fills with zeros or ones. Other tests check the names,
counts and image sizes of the real networks on torch's meta device.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from itertools import groupby
from typing import Any

import timm
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from zoo import Backbone, FactoryArchitecture, load_registry
from zoo_harness.models.build import build_network
from zoo_harness.models.preprocessing import resolve_preprocessing

SIDE = 64  # of small images: convolutions take them as they are
SIDE_OF_14 = 70
BUILT_FOR_A_SIZE = {"cait_s24", "clip_b", "coat_lite_small", "deit_base_distilled", "pe_core_b", "siglip2_b", "vit_l32"}
PATCHES_OF_14 = {"dinov2_s", "eva02_tiny"}
REAL_SIZE = {"swin_b"}  # its windows and their parameters depend on it


class LeftOut(nn.Module):
    """Stand in for a block whose output has the shape of its input."""

    def forward(self, values: Tensor, *_: Any, **_named: Any) -> Tensor:
        return values


class WithoutInitialisation(TorchFunctionMode):
    """Leave parameters as they were allocated: filling hundreds of millions takes seconds."""

    def __torch_function__(
        self, func: Callable[..., Any], types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = getattr(func, "__name__", "")
        target = args[0] if args else (kwargs or {}).get("tensor")
        if isinstance(target, nn.Parameter) and name.endswith("_") and name[0] != "_" and name != "requires_grad_":
            return target
        return func(*args, **(kwargs or {}))


def image_size(backbone: Backbone) -> tuple[int, int] | None:
    """The size of small images for :func:`shallow_network`; ``None`` for the real one."""
    if backbone.name in REAL_SIZE or "*" in backbone.unfreeze:
        return None
    side = SIDE_OF_14 if backbone.name in PATCHES_OF_14 else SIDE
    return side, side


def shallow(backbone: Backbone) -> Backbone:
    """Declare the shallow network for small images; networks that train whole stay as they are."""
    if "*" in backbone.unfreeze:
        return backbone
    real = build_network(backbone.name, backbone.network, device="meta")
    preprocessing = resolve_preprocessing(backbone, real, backbone.tuning("default"))
    architecture = FactoryArchitecture(f"{__name__}:{backbone.name}")
    return replace(backbone, architecture=architecture, preprocessing=preprocessing)


def __getattr__(name: str) -> Callable[[], nn.Module]:
    """Return the function that builds the network of a shallow backbone."""
    if name not in load_registry().backbones:
        raise AttributeError(name)
    return functools.partial(shallow_network, load_registry().backbone(name))


def shallow_network(backbone: Backbone, *, small_images: bool = True) -> nn.Module:
    """Build a shallow network on torch's default device."""
    with WithoutInitialisation():
        size = image_size(backbone)
        if small_images and size and backbone.name in BUILT_FOR_A_SIZE | PATCHES_OF_14:
            network = timm.create_model(backbone.network.name, img_size=size[0]).eval()
        else:
            network = build_network(backbone.name, backbone.network, torch.get_default_device().type)
    if "*" not in backbone.unfreeze:
        for module in list(network.modules()):
            if isinstance(module, nn.Sequential | nn.ModuleList):
                leave_out_blocks(module)
    fill(network)
    return network


def leave_out_blocks(row: nn.Module) -> None:
    for _shapes, equal in groupby(row.named_children(), key=lambda child: shapes_of(child[1])):
        names = [name for name, _module in equal]
        if len(names) > 3:  # the suffix of CoaT begins two blocks before the one that trains
            for name in names[1:-1]:
                row.set_submodule(name, LeftOut())


def shapes_of(module: nn.Module) -> list[tuple[str, torch.Size]]:
    return [(name, tensor.shape) for name, tensor in module.state_dict().items()]


def fill(network: nn.Module) -> None:
    """Fill parameters with the same few random numbers over and over, which is as good and faster."""
    noise = torch.randn(4099)
    for parameter in network.parameters():
        mean, scale = (1.0, 0.1) if parameter.dim() < 2 else (0.0, parameter[0].numel() ** -0.5)
        values = (noise * scale + mean).repeat(-(-parameter.numel() // len(noise)))
        parameter.data = values[: parameter.numel()].view(parameter.shape)
