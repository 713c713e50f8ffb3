"""Check a backbone's declaration against the real network; the author of a plugin calls it in their own tests.

torch is imported when a check is called, not before.
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

    from zoo.backbone import Backbone, FeatureLayer, Tuning
    from zoo_harness.models.tuned_network import TunedNetwork

SAMPLED_VALUES = 2**14


def check_backbone(
    backbone: Backbone, *, classes: int = 10, input_size: tuple[int, int] | None = None, seed: int = 0
) -> None:
    """Raise :class:`~zoo.errors.DeclarationError` unless everything the record declares is true of its network.

    A reported number of trained parameters is that of the recipe, with or without the head. For every recipe: each
    ``unfreeze`` pattern names a module with parameters; each head exists and returns ``classes`` logits; the frozen
    part, BatchNorm buffers included, is bit for bit the same after a training step, and so is its output; every
    trained tensor receives a gradient; a checkpoint saved and loaded returns the same logits. Every feature layer
    exists, in depth order, with its declared width, and the output of the last one is the input of the classifier.
    Weights are random, so nothing is downloaded. ``input_size`` (height, width in pixels) is that of the weights
    unless given: a convolutional network can be checked on smaller images in less time.

    >>> from zoo import Backbone, FeatureLayer, Head, TimmWeights
    >>> check_backbone(Backbone(
    ...     name="tiny", weights=TimmWeights("test_resnet.r160_in1k"), unfreeze=("layer4",), head=Head("fc"),
    ...     features=(FeatureLayer("layer3", 192), FeatureLayer("global_pool", 96, pool="flatten")),
    ...     license=None, paper=None, pretrained_on=None, imagenet_top1=None,
    ... ))
    """
    import torch

    from zoo_harness.models.build import build_network

    _check_facts(backbone)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        # The second starts from other random values, so that whatever a checkpoint forgets shows.
        networks = [build_network(backbone.name, backbone.network) for _copy in range(2)]
        recipes = ("default", *backbone.recipes)
        for recipe in recipes:
            # A check changes the networks it is given, so only the last may have these themselves.
            given = networks if recipe == recipes[-1] else copy.deepcopy(networks)
            try:
                _check_recipe(backbone, recipe, classes, input_size, *given)
            except DeclarationError as error:
                error.args = (f"backbone {backbone.name!r}, recipe {recipe!r}: {error}",)
                raise


def _check_facts(backbone: Backbone) -> None:
    top1 = backbone.imagenet_top1
    if top1 is not None and top1 <= 1:
        message = f"backbone {backbone.name!r}: imagenet_top1={top1} is in percent: {100 * top1:g}?"
        raise DeclarationError(message, code="top1-not-percent", given=top1)
    for name, recipe in backbone.recipes.items():
        if recipe.reported_parameters is not None:
            _check_count(backbone, name, recipe.reported_parameters, recipe.reported_classes)


def _check_count(backbone: Backbone, recipe: str, reported: int, classes: int) -> None:
    from zoo_harness.models.build import build_network
    from zoo_harness.models.surgery import prepare
    from zoo_harness.models.tuned_network import count_parameters

    network = build_network(backbone.name, backbone.network, device="meta")
    count = count_parameters(prepare(network, backbone.tuning(recipe), classes, example=None))
    if reported not in (count.trained, count.trained_without_head):
        message = (
            f"backbone {backbone.name!r}, recipe {recipe!r}: reported_parameters is {reported:,}, but for {classes} "
            f"classes {count.trained:,} train, {count.trained_without_head:,} without the head"
        )
        raise DeclarationError(message, code="reported-parameters", recipe=recipe, given=reported)


def _check_recipe(
    backbone: Backbone,
    recipe: str,
    classes: int,
    input_size: tuple[int, int] | None,
    network: nn.Module,
    fresh: nn.Module,
) -> None:
    import torch

    from zoo_harness.models.preprocessing import resolve_preprocessing
    from zoo_harness.models.surgery import prepare, replace_head

    tuning = backbone.tuning(recipe)
    _check_unfreeze(network, tuning)
    own_size = resolve_preprocessing(backbone, network, tuning).input_size
    images = torch.rand(2, 3, *(input_size or own_size)) * 2 - 1
    tuned = prepare(network, tuning, classes, images)
    with _frozen_outputs(tuned) as still:
        _check_outputs(tuning, tuned, images, classes)
    with _frozen_outputs(tuned) as training:
        _check_training_step(tuned, images)
    _check_stillness(still, training)
    replace_head(fresh, tuning.head, classes)
    _check_round_trip(tuned, fresh, images)


def _check_unfreeze(network: nn.Module, tuning: Tuning) -> None:
    from zoo_harness.models.modules import match_modules

    for pattern in tuning.unfreeze:
        paths = match_modules(network, [pattern])
        if not any(True for path in paths for _parameter in network.get_submodule(path).parameters()):
            kinds = {type(network.get_submodule(path)).__name__ for path in paths}
            message = f"{pattern!r} is to train but has no parameters: it is {' and '.join(sorted(kinds))}"
            raise DeclarationError(message, code="nothing-to-train", name=pattern)


def _check_outputs(tuning: Tuning, tuned: TunedNetwork, images: Tensor, classes: int) -> None:
    import torch

    from zoo_harness.models.modules import capture

    tuned.eval()
    seen: list[Tensor] = []  # by the first head
    head = tuned.network.get_submodule(tuned.head_paths[0])
    hook = head.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0].detach().flatten(1)))
    with torch.no_grad(), capture(tuned.network, [layer.path for layer in tuning.features]) as outputs, hook:
        logits = tuned.logits(images)
    for path, given in zip(tuned.head_paths, logits, strict=True):
        shape, expected = tuple(given.shape), (len(images), classes)
        if shape != expected:
            message = f"head {path!r} gives logits of {shape}, expected {expected}"
            raise DeclarationError(message, code="logits-shape", name=path, given=shape)
    _check_features(tuning.features, outputs, tuned.head_paths[0], seen[0])


def _check_features(features: tuple[FeatureLayer, ...], outputs: dict[str, Tensor], head: str, given: Tensor) -> None:
    import torch

    from zoo_harness.models.feature_pooling import pool_features

    declared = [layer.path for layer in features]
    silent = [path for path in declared if path not in outputs]
    if silent:
        message = f"feature layer {silent[0]!r} exists but never runs"
        raise DeclarationError(message, code="layer-never-runs", name=silent[0])
    last = [pool_features(outputs[layer.path], layer) for layer in features][-1]
    if list(outputs) != declared:
        message = f"feature layers are not in depth order: they run in the order {list(outputs)}"
        raise DeclarationError(message, code="layers-not-in-order", given=declared)
    same_shape = last.shape == given.shape
    if not same_shape or not torch.allclose(last, given, rtol=1e-4, atol=1e-5):
        shapes = "" if same_shape else f": {tuple(last.shape)} against {tuple(given.shape)}"
        message = f"the last feature layer, {declared[-1]!r}, is not what the classifier {head!r} sees{shapes}"
        raise DeclarationError(message, code="last-layer", name=declared[-1])


def _check_training_step(tuned: TunedNetwork, images: Tensor) -> None:
    import torch

    from zoo_harness.evaluation.split_evaluation import summed_loss

    trained = tuned.trained_parameters()
    before = {name: tensor.clone() for name, tensor in _frozen_tensors(tuned).items()}
    tuned.train()
    optimizer = torch.optim.Adam(trained.values(), lr=1e-4)
    summed_loss(tuned.logits(images), torch.tensor([0, 1])).backward()
    idle = [name for name, parameter in trained.items() if parameter.grad is None]
    if idle:
        message = f"{idle[0]!r} is to train but receives no gradient ({len(idle)} such tensor(s))"
        raise DeclarationError(message, code="no-gradient", name=idle[0])
    optimizer.step()
    after = _frozen_tensors(tuned)
    moved = [name for name, tensor in before.items() if name not in after or not torch.equal(tensor, after[name])]
    if moved:
        message = f"frozen tensor {moved[0]!r} moved in a training step ({len(moved)} such tensor(s))"
        raise DeclarationError(message, code="frozen-tensor-moved", name=moved[0])


def _check_stillness(still: dict[str, Tensor], training: dict[str, Tensor]) -> None:
    import torch

    stirred = [name for name, value in still.items() if not torch.allclose(value, training[name], atol=1e-3)]
    if stirred:
        message = (
            f"frozen module {stirred[0]!r} gives something else while the network trains: a forward method before it "
            "drops or adds by asking self.training; make that a module of its own"
        )
        raise DeclarationError(message, code="frozen-output-changed", name=stirred[0])


@contextlib.contextmanager
def _frozen_outputs(tuned: TunedNetwork) -> Iterator[dict[str, Tensor]]:
    """Context manager that yields fingerprints of frozen modules' outputs, before the first trained module runs."""
    import torch

    pattern = torch.cos(torch.arange(SAMPLED_VALUES, dtype=torch.float64))
    fingerprints: dict[str, Tensor] = {}
    begun: list[nn.Module] = []

    def note(name: str, output: object) -> None:
        if isinstance(output, torch.Tensor) and not begun:
            values = output.detach().flatten()
            # Dropping changes a good part of the values, so that an even sample of them shows it.
            values = values[:: len(values) // SAMPLED_VALUES + 1].double()
            fingerprints[name] = values @ pattern[: len(values)] / values.norm().clamp(min=1e-12)

    with contextlib.ExitStack() as hooks:
        for path in tuned.trained_paths:
            module = tuned.network.get_submodule(path)
            hooks.enter_context(module.register_forward_pre_hook(lambda called, _inputs: begun.append(called)))
        for name, module in tuned.network.named_modules():
            if not tuned.modes[name] and any(True for _parameter in module.parameters()):
                hook = module.register_forward_hook(lambda _module, _inputs, out, name=name: note(name, out))
                hooks.enter_context(hook)
        yield fingerprints


def _frozen_tensors(tuned: TunedNetwork) -> dict[str, Tensor]:
    """Return every tensor that must not change, with the buffers that a checkpoint leaves out."""
    trained = {module for path in tuned.trained_paths for module in tuned.network.get_submodule(path).modules()}
    buffers = {
        f"{path}.{name}".lstrip("."): buffer
        for path, module in tuned.network.named_modules()
        if module not in trained
        for name, buffer in module.named_buffers(recurse=False)
    }
    parameters = {name: value.detach() for name, value in tuned.network.named_parameters() if not value.requires_grad}
    return {**parameters, **buffers}


def _check_round_trip(tuned: TunedNetwork, fresh: nn.Module, images: Tensor) -> None:
    import torch

    from zoo_harness.checkpoints.save import save_checkpoint
    from zoo_harness.models.tensor_files import read_tensors
    from zoo_harness.models.tuned_network import TunedNetwork
    from zoo_harness.records.file_names import CHECKPOINT

    with tempfile.TemporaryDirectory() as folder:
        save_checkpoint(tuned.network, Path(folder))
        try:
            fresh.load_state_dict(read_tensors(Path(folder) / CHECKPOINT))
        except RuntimeError as error:
            message = f"a saved checkpoint does not load again: {error}"
            raise DeclarationError(message, code="checkpoint-does-not-load") from error
    tuned.eval()
    with torch.no_grad():
        expected = tuned.logits(images)
        loaded = TunedNetwork(fresh, tuned.head_paths, tuned.trained_paths).logits(images)
    if not all(map(torch.equal, expected, loaded)):
        message = "a saved checkpoint gives other logits when it is loaded again"
        raise DeclarationError(message, code="checkpoint-other-logits")
