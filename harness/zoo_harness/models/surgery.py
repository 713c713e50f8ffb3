"""Prepare a pretrained network for fine-tuning: replace the head, and freeze all modules that must not train.

A frozen parameter receives no gradient, and a module with only frozen parameters stays in inference mode during
training. Dropout in the frozen part is therefore inactive. BatchNorm statistics in the frozen part do not change,
unless ``frozen_batchnorm`` is ``train``.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from zoo.backbone import DualHead, Head, Tuning
from zoo.errors import DeclarationError
from zoo_harness.models.modules import find_module, match_modules
from zoo_harness.models.tuned_network import TunedNetwork
from zoo_harness.records.option_checks import check_classes


def prepare(
    network: nn.Module,
    tuning: Tuning,
    classes: int,
    example: Tensor | None,
    *,
    frozen_batchnorm: Literal["eval", "train"] = "eval",
) -> TunedNetwork:
    """Modify a network in place: replace its head, and freeze the modules that the recipe does not train.

    ``example``: a batch ``(B, 3, H, W)`` that runs through the network once, to record the order of its modules.
    Without ``example``, the result can be inspected but not trained; use this for a network on the meta device. With
    ``frozen_batchnorm="train"``, frozen BatchNorm layers update their statistics during training. Raises
    :class:`~zoo.errors.DeclarationError` if a declared path does not exist.
    """
    check_classes(classes)
    head_paths = replace_head(network, tuning.head, classes)
    unfrozen = match_modules(network, tuning.unfreeze)
    bypassed = {path for part in tuning.head.parts for path in part.bypass}
    if both := [path for path in unfrozen if path in bypassed]:
        raise DeclarationError(
            f"the recipe trains module {both[0]!r}, but the head bypasses it", code="head-bypass", path=both[0]
        )
    trained_paths = (*(path for path in unfrozen if path not in head_paths), *head_paths)
    if "*" in tuning.unfreeze:
        trained_paths = ("", *trained_paths)  # the top-level module may own parameters, such as a class token
    freeze_all_but(network, trained_paths)
    tuned = TunedNetwork(network, head_paths, trained_paths)
    if example is not None:
        with _check_head_inputs(network, tuning.head):
            tuned.modes = training_modes(network, trained_paths, example)
    if frozen_batchnorm == "train":
        tuned.moving = frozen_batch_norms(network, trained_paths)
        tuned.modes |= dict.fromkeys(tuned.moving, True)
    return tuned


def frozen_batch_norms(network: nn.Module, trained_paths: Iterable[str]) -> tuple[str, ...]:
    """Return the paths of the BatchNorm layers that have running statistics and are outside the trained modules.

    >>> frozen_batch_norms(nn.Sequential(nn.BatchNorm1d(2), nn.BatchNorm1d(2)), ["1"])
    ('0',)
    """
    trained = {module for path in trained_paths for module in network.get_submodule(path).modules()}
    return tuple(
        path
        for path, module in network.named_modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm)
        and module.running_mean is not None
        and module not in trained
    )


def replace_head(network: nn.Module, head: Head | DualHead, classes: int) -> tuple[str, ...]:
    """Replace the classifiers of a network by new classifiers for ``classes`` classes; return their paths."""
    device = next((parameter.device for parameter in network.parameters()), torch.device("cpu"))
    for part in head.parts:
        old = find_module(network, part.path)
        width, layer = _input_width(part, old), _FlatConv2d if isinstance(old, nn.Conv2d) else nn.Linear
        with device:
            if part.hidden is None:
                network.set_submodule(part.path, layer(width, classes))
            else:
                layers = nn.Linear(width, part.hidden), nn.ReLU(), nn.Linear(part.hidden, classes)
                network.set_submodule(part.path, nn.Sequential(*layers))
        for path in part.bypass:
            find_module(network, path)
            network.set_submodule(path, nn.Identity())
    if hasattr(network, "num_classes"):
        setattr(network, "num_classes", classes)  # noqa: B010 - timm writes this attribute into the config of a checkpoint
    return tuple(part.path for part in head.parts)


class _FlatConv2d(nn.Conv2d):
    """Classify feature maps of 1 x 1 pixel with a convolution, and return logits (B, classes)."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__(width, classes, kernel_size=1)

    def forward(self, given: Tensor) -> Tensor:
        return super().forward(given).flatten(1)


def freeze_all_but(network: nn.Module, trained_paths: Iterable[str]) -> None:
    """Freeze all parameters of a network, except the parameters of the modules at these paths."""
    network.requires_grad_(False)
    for path in trained_paths:
        network.get_submodule(path).requires_grad_(True)


def training_modes(network: nn.Module, trained_paths: Sequence[str], example: Tensor) -> dict[str, bool]:
    """Return for every module path whether the module is in training mode during training.

    Trained modules are in training mode, and modules with only frozen tensors are in inference mode. A container with
    trained and frozen children is in training mode, but this mode does not change the modes of its children. A module
    without tensors, such as dropout, is in training mode if the network calls it after the last frozen module that
    precedes the trained modules. Dropout directly before the head therefore stays active.
    """
    trained = {module for path in trained_paths for module in network.get_submodule(path).modules()}
    mixed = {
        module for module in network.modules() if module not in trained and not trained.isdisjoint(module.modules())
    }
    frozen = {
        module
        for module in network.modules()
        if module not in trained | mixed and any(True for _tensor in (*module.parameters(), *module.buffers()))
    }
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
    if isinstance(old, nn.Conv2d) and old.kernel_size == (1, 1) and head.hidden is None:
        return head.in_features or old.in_channels
    absent = isinstance(old, nn.Identity)  # some published weights have no classifier
    if absent and head.in_features:
        return head.in_features
    advice = "declare in_features" if absent else "expected the torch.nn.Linear that gives the logits"
    raise DeclarationError(
        f"head {head.path!r} is of type {type(old).__name__}; {advice}", code="head-type", path=head.path
    )


@contextlib.contextmanager
def _check_head_inputs(network: nn.Module, head: Head | DualHead) -> Iterator[None]:
    """During forward passes in the ``with`` block, check that the input of each head has ``in_features`` values."""

    def compare(part: Head, _module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        width = inputs[0].flatten(1).shape[1]
        if part.in_features not in (None, width):
            raise DeclarationError(
                f"in_features of head {part.path!r} is wrong: {part.in_features}; expected {width}",
                code="head-width",
                path=part.path,
            )

    with contextlib.ExitStack() as hooks:
        for part in head.parts:
            module = network.get_submodule(part.path)
            hooks.callback(module.register_forward_pre_hook(functools.partial(compare, part)).remove)
        yield


def warn_if_output_differs_from_head(tuned: TunedNetwork, example: Tensor) -> str | None:
    """Return a warning if the network changes its head's output, because zoo trains and scores the head's output.

    Networks with two heads are not compared, because a network may combine two heads in any way. Raises
    :class:`~zoo.errors.DeclarationError` if a head does not return one row of logits for each image.
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
            raise DeclarationError(
                f"head {path!r} returns {len(outputs[-1])} row(s) of logits for {len(example)} images",
                code="head-rows",
                path=path,
            )
        if len(outputs) > 1:
            return f"head {path!r} runs {len(outputs)} times; its last output is used as logits"
    found = [part.reshape(-1) for part in pytree.tree_leaves(result) if isinstance(part, Tensor)]
    (path, outputs), *others = given.items()
    if others or not outputs or any(torch.equal(part, outputs[0].reshape(-1)) for part in found):
        return None
    return f"the output of head {path!r} is used as logits; modules after the head are ignored"


def _note_output(outputs: list[Tensor], _module: nn.Module, _inputs: object, output: object) -> None:
    if isinstance(output, Tensor):
        outputs.append(output.clone())
