"""Turns a pretrained network into the one that is tuned: new head, one block that trains, everything else frozen.

Frozen means frozen. A parameter that is not declared gets no gradient, and the module that holds it runs in inference
mode while the rest trains, so its BatchNorm statistics stand still and its dropout does nothing, in every epoch.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from zoo.backbone import DualHead, Head, Tuning
from zoo.errors import DeclarationError
from zoo_harness.models.modules import find_module, match_modules
from zoo_harness.models.tuned_network import TunedNetwork
from zoo_harness.records.option_checks import check_classes


def prepare(network: nn.Module, tuning: Tuning, classes: int, example: Tensor | None) -> TunedNetwork:
    """Replace the head and freeze what the recipe does not train, in place.

    ``example`` is a batch ``(B, 3, H, W)`` that is run through once, to see which parts run before anything trains;
    without it (a network on the meta device) the result can be inspected but not trained. Raises
    :class:`~zoo.errors.DeclarationError` where a declared path does not exist.
    """
    check_classes(classes)
    head_paths = replace_head(network, tuning.head, classes)
    unfrozen = match_modules(network, tuning.unfreeze)
    _refuse_bypassed(tuning, unfrozen)
    trained_paths = (*(path for path in unfrozen if path not in head_paths), *head_paths)
    if "*" in tuning.unfreeze:
        trained_paths = ("", *trained_paths)  # the network itself may hold parameters, such as a class token
    freeze_all_but(network, trained_paths)
    tuned = TunedNetwork(network, head_paths, trained_paths)
    if example is not None:
        _check_head_inputs(network, tuning, example)
        tuned.modes = training_modes(network, trained_paths, example)
    return tuned


def replace_head(network: nn.Module, head: Head | DualHead, classes: int) -> tuple[str, ...]:
    """Put a fresh classifier for ``classes`` classes in place of each declared one; return their paths."""
    for part in head.parts:
        width = _input_width(part, find_module(network, part.path))
        _put(network, part.path, _new_head(width, part.hidden, classes, _device_of(network)))
        for path in part.bypass:
            find_module(network, path)
            _put(network, path, nn.Identity())
    if hasattr(network, "num_classes"):
        setattr(network, "num_classes", classes)  # noqa: B010 - timm writes it into a checkpoint's configuration
    return tuple(part.path for part in head.parts)


def freeze_all_but(network: nn.Module, trained_paths: Iterable[str]) -> None:
    """Let only the parameters under these paths receive gradients."""
    network.requires_grad_(False)
    for path in trained_paths:
        network.get_submodule(path).requires_grad_(True)


def training_modes(network: nn.Module, trained_paths: Sequence[str], example: Tensor) -> dict[str, bool]:
    """For every module, whether it is in training mode while the declared part trains.

    What trains is; what holds frozen tensors alone is not, and a container of both is, as its own flag steers only
    what its children do not. A module without tensors (dropout, say) follows its place: it trains if it first runs
    after the last frozen module before the declared part, so that dropout before the head stays random.
    """
    trained = {module for path in trained_paths for module in network.get_submodule(path).modules()}
    mixed = {
        module for module in network.modules() if module not in trained and not trained.isdisjoint(module.modules())
    }
    frozen = {module for module in network.modules() if module not in trained | mixed and _holds_tensors(module)}
    inside_frozen = {part for module in frozen for part in module.modules()}
    order = _call_order(network, example)
    start = min((order[module] for module in trained if module in order), default=0)
    boundary = max((order[module] for module in frozen if order.get(module, start) < start), default=-1)

    def trains(module: nn.Module) -> bool:
        if module in trained or module in mixed:
            return True
        return module not in inside_frozen and order.get(module, -1) > boundary

    return {name: trains(module) for name, module in network.named_modules()}


def _call_order(network: nn.Module, example: Tensor) -> dict[nn.Module, int]:
    order: dict[nn.Module, int] = {}

    def note(called: nn.Module, _inputs: object) -> None:
        order.setdefault(called, len(order))

    with contextlib.ExitStack() as hooks:
        for module in network.modules():
            hooks.callback(module.register_forward_pre_hook(note).remove)
        network.eval()
        with torch.no_grad():
            network(example)
    return order


def _input_width(head: Head, old: nn.Module) -> int:
    if isinstance(old, nn.Linear):
        return head.in_features or old.in_features
    absent = isinstance(old, nn.Identity)  # as in weights published without a classifier
    if absent and head.in_features:
        return head.in_features
    expected = "give in_features" if absent else "expected the torch.nn.Linear that gives the logits"
    raise DeclarationError(f"head {head.path!r} is of type {type(old).__name__}; {expected}")


def _refuse_bypassed(tuning: Tuning, unfrozen: Iterable[str]) -> None:
    bypassed = {path for part in tuning.head.parts for path in part.bypass}
    both = [path for path in unfrozen if path in bypassed]
    if both:
        raise DeclarationError(f"module {both[0]!r} is to train, but the head bypasses it: it is not in the network")


def _check_head_inputs(network: nn.Module, tuning: Tuning, example: Tensor) -> None:
    """Raise where ``in_features`` of a head is not the length of the vector it is given."""

    def compare(head: Head, given: Tensor) -> None:
        if given.shape[-1] != head.in_features:
            raise DeclarationError(f"head {head.path!r} has in_features={head.in_features}, but gets {given.shape[-1]}")

    with contextlib.ExitStack() as hooks:
        for head in tuning.head.parts:
            if head.in_features is not None:
                module = network.get_submodule(head.path)
                hook = module.register_forward_pre_hook(lambda _module, inputs, head=head: compare(head, inputs[0]))
                hooks.callback(hook.remove)
        if any(head.in_features for head in tuning.head.parts):
            network.eval()
            with torch.no_grad():
                network(example)


def warn_if_output_differs_from_head(tuned: TunedNetwork, example: Tensor) -> str | None:
    """In words, where a network puts out something else than its head gives, which is what trains and is scored.

    Of two heads the network may put out what it likes: the run's own rule joins them. Raises
    :class:`~zoo.errors.DeclarationError` where a head does not give a row of logits for each image.
    """
    given: dict[str, list[Tensor]] = {path: [] for path in tuned.head_paths}
    with contextlib.ExitStack() as hooks:
        for path, outputs in given.items():
            note = functools.partial(_note_output, outputs)
            hooks.callback(tuned.network.get_submodule(path).register_forward_hook(note).remove)
        tuned.eval()
        with torch.no_grad():
            result = tuned.network(example)
    for path, outputs in given.items():
        if outputs and len(outputs[-1]) != len(example):
            raise DeclarationError(f"head {path!r} gives {len(outputs[-1])} row(s) of logits for {len(example)} images")
        if len(outputs) > 1:
            return f"head {path!r} runs {len(outputs)} times; what it gives last are the logits"
    found = [part.reshape(-1) for part in pytree.tree_leaves(result) if isinstance(part, Tensor)]
    (path, outputs), *others = given.items()
    if others or not outputs or any(torch.equal(part, outputs[0].reshape(-1)) for part in found):
        return None
    return f"the network goes on after its head {path!r}; what the head gives are the logits, and the rest is not seen"


def _note_output(outputs: list[Tensor], _module: nn.Module, _inputs: object, output: object) -> None:
    if isinstance(output, Tensor):
        outputs.append(output.clone())


def _new_head(width: int, hidden: int | None, classes: int, device: torch.device) -> nn.Module:
    with device:
        if hidden is None:
            return nn.Linear(width, classes)
        return nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, classes))


def _device_of(network: nn.Module) -> torch.device:
    return next((parameter.device for parameter in network.parameters()), torch.device("cpu"))


def _put(network: nn.Module, path: str, module: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    setattr(network.get_submodule(parent), name, module)


def _holds_tensors(module: nn.Module) -> bool:
    return any(True for _tensor in (*module.parameters(), *module.buffers()))
