"""Check that a backbone's declaration fits its real network; authors of plugins call this check in their tests.

The module imports torch when a check is called, not before.
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
    """Raise :class:`~zoo.errors.DeclarationError` unless everything that a backbone declares is true of its network.

    The function checks for every recipe:

    - each ``unfreeze`` pattern names a module with parameters;
    - each head exists and returns ``classes`` logits;
    - the frozen part, including BatchNorm buffers, and its output are the same after a training step, bit for bit;
    - every trained tensor receives a gradient;
    - a saved checkpoint returns the same logits after loading;
    - the number of trained parameters, with or without the head, equals the declared ``reported_parameters``.

    The function also checks that every feature layer exists, that the layers are in depth order and have their declared
    widths, and that the output of the last layer is the input of the classifier. Weights are random, so that nothing is
    downloaded. ``input_size`` (height, width in pixels) is by default the input size of the weights; a smaller size
    makes the check of a convolutional network faster.

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
        # The second network has other random values, so that the check detects a tensor that a checkpoint forgets.
        networks = [build_network(backbone.name, backbone.network) for _copy in range(2)]
        recipes = ("default", *backbone.recipes)
        for recipe in recipes:
            # A check changes its networks, so only the last check may get the original networks.
            given = networks if recipe == recipes[-1] else copy.deepcopy(networks)
            try:
                _check_recipe(backbone, recipe, classes, input_size, *given)
            except DeclarationError as error:
                error.args = (f"backbone {backbone.name!r}, recipe {recipe!r}: {error}",)
                raise


def _check_facts(backbone: Backbone) -> None:
    top1 = backbone.imagenet_top1
    if top1 is not None and top1 <= 1:
        message = f"backbone {backbone.name!r}: imagenet_top1={top1} is wrong; expected percent; try {100 * top1:g}"
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
            kind = " and ".join(sorted(kinds))
            message = (
                f"unfreeze pattern {pattern!r} matches no parameters, only {kind}; expected a module with parameters"
            )
            raise DeclarationError(message, code="nothing-to-train", name=pattern)


def _check_outputs(tuning: Tuning, tuned: TunedNetwork, images: Tensor, classes: int) -> None:
    import torch

    from zoo_harness.models.modules import capture

    tuned.eval()
    seen: list[Tensor] = []  # input of the first head
    head = tuned.network.get_submodule(tuned.head_paths[0])
    hook = head.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0].detach().flatten(1)))
    with torch.no_grad(), capture(tuned.network, [layer.path for layer in tuning.features]) as outputs, hook:
        logits = tuned.logits(images)
    for path, given in zip(tuned.head_paths, logits, strict=True):
        shape, expected = tuple(given.shape), (len(images), classes)
        if shape != expected:
            message = f"head {path!r} returns logits of shape {shape}; expected {expected}"
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
        message = f"feature layers are not in depth order: {declared}; expected {list(outputs)}"
        raise DeclarationError(message, code="layers-not-in-order", given=declared)
    same_shape = last.shape == given.shape
    if not same_shape or not torch.allclose(last, given, rtol=1e-4, atol=1e-5):
        shapes = "" if same_shape else f": shape {tuple(last.shape)} instead of {tuple(given.shape)}"
        message = f"the last feature layer, {declared[-1]!r}, is not the input of the classifier {head!r}{shapes}"
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
        message = f"trained tensor {idle[0]!r} receives no gradient ({len(idle)} such tensor(s))"
        raise DeclarationError(message, code="no-gradient", name=idle[0])
    optimizer.step()
    after = _frozen_tensors(tuned)
    moved = [name for name, tensor in before.items() if name not in after or not torch.equal(tensor, after[name])]
    if moved:
        message = f"frozen tensor {moved[0]!r} changed in a training step ({len(moved)} such tensor(s))"
        raise DeclarationError(message, code="frozen-tensor-moved", name=moved[0])


def _check_stillness(still: dict[str, Tensor], training: dict[str, Tensor]) -> None:
    import torch

    stirred = [name for name, value in still.items() if not torch.allclose(value, training[name], atol=1e-3)]
    if stirred:
        message = (
            f"frozen module {stirred[0]!r} has another output in training mode: a forward method before it reads "
            "self.training, for example for dropout; move that code into a separate module"
        )
        raise DeclarationError(message, code="frozen-output-changed", name=stirred[0])


@contextlib.contextmanager
def _frozen_outputs(tuned: TunedNetwork) -> Iterator[dict[str, Tensor]]:
    """Context manager that yields fingerprints of the outputs of frozen modules that run before any trained module."""
    import torch

    pattern = torch.cos(torch.arange(SAMPLED_VALUES, dtype=torch.float64))
    fingerprints: dict[str, Tensor] = {}
    begun: list[nn.Module] = []

    def note(name: str, output: object) -> None:
        if isinstance(output, torch.Tensor) and not begun:
            values = output.detach().flatten()
            # Dropout changes many values, so that a regular sample of the values detects dropout.
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
    """Return every tensor that training must not change, including buffers that checkpoints do not save."""
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
            message = f"a saved checkpoint cannot be loaded: {error}"
            raise DeclarationError(message, code="checkpoint-does-not-load") from error
    tuned.eval()
    with torch.no_grad():
        expected = tuned.logits(images)
        loaded = TunedNetwork(fresh, tuned.head_paths, tuned.trained_paths).logits(images)
    if not all(map(torch.equal, expected, loaded)):
        message = "a saved checkpoint returns other logits after loading"
        raise DeclarationError(message, code="checkpoint-other-logits")
