"""Build the network that a backbone declares, with the initial weights that the constructor assigns."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from zoo.architecture import Architecture, FactoryArchitecture, TimmArchitecture, TorchvisionArchitecture
from zoo.errors import DeclarationError, near_misses, shortened
from zoo.plugin_guard import guarded_call
from zoo_harness.util.entry_function import load_function


def build_network(
    name: str, architecture: Architecture, device: str = "cpu", input_size: tuple[int, int] | None = None
) -> nn.Module:
    """Build the whole network of backbone ``name`` with its original classifier, in evaluation mode.

    On ``device="meta"`` the network has parameter names and shapes, but no values and no memory. Give ``input_size``
    (height, width) only if the images have another size than the weights expect. Errors of timm or the network for an
    unsupported size are not caught. Raises :class:`~zoo.errors.DeclarationError` if the architecture does not exist.
    """
    with torch.device(device):
        match architecture:
            case TimmArchitecture():
                network = _build_timm(name, architecture.name)
                if input_size is not None and has_other_fixed_size(network, input_size):
                    network = build_timm(architecture.name, input_size)
            case TorchvisionArchitecture():
                network = _build_torchvision(name, architecture.name)
            case FactoryArchitecture():
                network = _build_by_factory(name, architecture.name)
    return network.eval()


def _build_timm(name: str, architecture: str) -> nn.Module:
    import timm

    bare, _, tag = architecture.partition(".")
    known = timm.list_models(bare) and (not tag or architecture in timm.list_pretrained(f"{bare}.*"))
    if not known:
        known_names = [*timm.list_models(), *timm.list_pretrained()]
        raise unknown_network(name, f"timm {timm.__version__}", architecture, known_names)
    network: nn.Module = timm.create_model(architecture, pretrained=False)
    return network


def has_other_fixed_size(network: nn.Module, input_size: tuple[int, int]) -> bool:
    """Return whether a timm network accepts only one image size, and that size is not ``input_size`` (height, width).

    >>> import timm
    >>> has_other_fixed_size(timm.create_model("test_maxvit"), (64, 64))
    True
    """
    from timm.models import get_model_input_config

    if not hasattr(network, "pretrained_cfg"):
        return False
    config = get_model_input_config(network)
    return bool(config["fixed_input_size"]) and tuple(config["input_size"][1:]) != input_size


def build_timm(
    architecture: str, input_size: tuple[int, int], tensors: Mapping[str, Tensor] | None = None
) -> nn.Module:
    """Build a timm network for an input size (height, width).

    timm resamples the given ``tensors``, such as position embeddings, from the default input size to ``input_size``.
    Errors of timm for an unsupported size or a tensor that cannot be resampled are not caught.
    """
    import timm

    overlay = {"state_dict": dict(tensors)} if tensors else {}
    with warnings.catch_warnings(category=UserWarning, action="ignore"):  # torch warns about the way timm resamples
        network: nn.Module = timm.create_model(
            architecture, pretrained=bool(tensors), pretrained_cfg_overlay=overlay, img_size=input_size
        )
    config: dict[str, Any] = network.pretrained_cfg  # type: ignore[assignment]
    config.update({"state_dict": None} if tensors else {})  # release the second copy of the tensors
    return network.eval()


def _build_torchvision(name: str, architecture: str) -> nn.Module:
    from torchvision import models

    try:
        network: nn.Module = models.get_model(architecture, weights=None)
    except NotImplementedError:  # RegNet constructors compute widths with tensors, which have no values on meta
        with torch.device("cpu"):
            network = models.get_model(architecture, weights=None).to("meta")
    except ValueError as error:
        raise unknown_network(name, "torchvision", architecture, models.list_models()) from error
    return network


def _build_by_factory(name: str, function: str) -> nn.Module:
    with guarded_call(f"{function} of backbone {shortened(name)}"):
        made = load_function(function, f"backbone {shortened(name)}: architecture")()
    if not isinstance(made, nn.Module):
        raise DeclarationError(
            f"backbone {shortened(name)}: {function} returned {type(made).__name__}; expected a torch.nn.Module",
            code="network-type",
        )
    return made


def unknown_network(name: str, library: str, architecture: str, known: Iterable[str]) -> DeclarationError:
    """Return the error for a network name that a library does not know, with suggestions of similar names."""
    near = near_misses(architecture, known)
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    message = f"backbone {shortened(name)}: {library} has no {shortened(architecture)}{hint}"
    return DeclarationError(message, code="network-unknown", name=name, architecture=architecture, near=near)
