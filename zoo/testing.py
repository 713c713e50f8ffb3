"""Proves a backbone's declaration against the real module; a plugin's author runs it in their own tests.

The checks need the harness, which needs torch: both are imported when a check is called, not before.
"""

from __future__ import annotations

import contextlib
import copy
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.errors import DeclarationError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from zoo.backbone import Backbone
    from zoo_harness.surgery import TunedNetwork


def check_backbone(backbone: Backbone, *, classes: int = 10, seed: int = 0) -> None:
    """Raise :class:`~zoo.errors.DeclarationError` unless everything the record declares is true of its network.

    For the default recipe and every other: each ``unfreeze`` pattern matches; each head exists and gives ``classes``
    logits; the frozen part, BatchNorm buffers included, is bit for bit the same after a training step; everything
    that is to train receives a gradient; a checkpoint saved and loaded gives the same logits. Every feature layer
    exists, in depth order, with its declared width, and the last is what the classifier sees. Weights are random, so
    nothing is downloaded.

    >>> from zoo import Backbone, FeatureLayer, Head, TimmWeights
    >>> check_backbone(Backbone(
    ...     name="tiny", weights=TimmWeights("test_resnet.r160_in1k"), unfreeze=("layer4",), head=Head("fc"),
    ...     features=(FeatureLayer("layer3", 192), FeatureLayer("global_pool", 96, pool="flatten")),
    ...     license=None, paper=None, pretrained_on=None, imagenet_top1=None,
    ... ))
    """
    import torch

    from zoo_harness.network import build_network

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        # The second starts from other random values, so that whatever a checkpoint forgets shows.
        networks = [build_network(backbone.name, backbone.network) for _copy in range(2)]
        for recipe in ("default", *backbone.recipes):
            try:
                _check_recipe(backbone, recipe, classes, *map(copy.deepcopy, networks))
            except DeclarationError as error:
                raise DeclarationError(f"backbone {backbone.name!r}, recipe {recipe!r}: {error}") from error


def _check_recipe(backbone: Backbone, recipe: str, classes: int, network: nn.Module, fresh: nn.Module) -> None:
    import torch

    from zoo_harness.preprocess import resolve_preprocessing
    from zoo_harness.surgery import prepare, replace_head

    tuning = backbone.tuning(recipe)
    images = torch.rand(2, 3, *resolve_preprocessing(backbone, network, tuning.resize).input_size) * 2 - 1
    tuned = prepare(network, tuning, classes, images)
    _check_logits(tuned, images, classes)
    _check_features(backbone, tuned, images)
    _check_training_step(tuned, images)
    replace_head(fresh, tuning.head, classes)
    _check_round_trip(tuned, fresh, images)


def _check_logits(tuned: TunedNetwork, images: Tensor, classes: int) -> None:
    import torch

    tuned.eval()
    with torch.no_grad():
        for path, logits in zip(tuned.head_paths, tuned.logits(images), strict=True):
            if tuple(logits.shape) != (len(images), classes):
                raise DeclarationError(
                    f"head {path!r} gives {tuple(logits.shape)} for {len(images)} images, "
                    f"expected ({len(images)}, {classes})"
                )


def _check_features(backbone: Backbone, tuned: TunedNetwork, images: Tensor) -> None:
    import torch

    from zoo_harness.features import pool_features
    from zoo_harness.surgery import capture

    declared = [layer.path for layer in backbone.features]
    with torch.no_grad(), capture(tuned.network, declared) as outputs, _head_input(tuned) as seen:
        tuned.network(images)
        silent = [path for path in declared if path not in outputs]
        if silent:
            raise DeclarationError(f"feature layer {silent[0]!r} exists but never runs")
        vectors = [pool_features(outputs[layer.path], layer) for layer in backbone.features]
    if list(outputs) != declared:
        raise DeclarationError(f"feature layers are not in depth order: they run in the order {list(outputs)}")
    if not torch.allclose(vectors[-1], seen[0], rtol=1e-4, atol=1e-5):
        raise DeclarationError(
            f"the last feature layer, {declared[-1]!r}, is not what the classifier {tuned.head_paths[0]!r} sees"
        )


@contextlib.contextmanager
def _head_input(tuned: TunedNetwork) -> Iterator[list[Tensor]]:
    """What the first head is given while the body runs."""
    seen: list[Tensor] = []
    head = tuned.network.get_submodule(tuned.head_paths[0])
    handle = head.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0].detach()))
    try:
        yield seen
    finally:
        handle.remove()


def _check_training_step(tuned: TunedNetwork, images: Tensor) -> None:
    import torch

    from zoo_harness.train import summed_loss

    trained = tuned.trained_parameters()
    live = _buffers_of_trained(tuned)
    before = {
        name: tensor.clone()
        for name, tensor in tuned.network.state_dict().items()
        if name not in trained and name not in live
    }
    tuned.train()
    optimizer = torch.optim.Adam(trained.values(), lr=1e-4)
    summed_loss(tuned.logits(images), torch.tensor([0, 1])).backward()
    idle = [name for name, parameter in trained.items() if parameter.grad is None]
    if idle:
        raise DeclarationError(f"{idle[0]!r} is to train but receives no gradient ({len(idle)} such tensor(s))")
    optimizer.step()
    after = tuned.network.state_dict()
    moved = [name for name, tensor in before.items() if not torch.equal(tensor, after[name])]
    if moved:
        raise DeclarationError(f"frozen tensor {moved[0]!r} moved in a training step ({len(moved)} such tensor(s))")


def _buffers_of_trained(tuned: TunedNetwork) -> set[str]:
    return {
        f"{path}.{name}"
        for path in tuned.trained_paths
        for name, _buffer in tuned.network.get_submodule(path).named_buffers()
    }


def _check_round_trip(tuned: TunedNetwork, fresh: nn.Module, images: Tensor) -> None:
    import torch

    from zoo_harness.checkpoint import CHECKPOINT, save_checkpoint
    from zoo_harness.tensor_files import read_tensors

    with tempfile.TemporaryDirectory() as folder:
        save_checkpoint(tuned.network, Path(folder))
        try:
            fresh.load_state_dict(read_tensors(Path(folder) / CHECKPOINT))
        except RuntimeError as error:
            raise DeclarationError(f"a saved checkpoint does not load again: {error}") from error
    tuned.eval()
    with torch.no_grad():
        expected, loaded = tuned.network(images), fresh(images)
    if not torch.equal(expected, loaded):
        raise DeclarationError("a saved checkpoint gives other logits when it is loaded again")
