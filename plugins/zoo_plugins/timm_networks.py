"""Derive the record of a timm network: run the network, and find its classifier, last block and feature layers.

The network is built and run on torch's meta device, where tensors have a shape but no values. Forward hooks record the
calls of all modules for a batch of the network's own input size.
"""

from __future__ import annotations

import csv
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass

from zoo import (
    Backbone,
    DeclarationError,
    DualHead,
    FeatureLayer,
    Head,
    HubWeights,
    LoadedWeights,
    RandomWeights,
    TimmArchitecture,
    TimmWeights,
    WeightReader,
    WeightSource,
)

if TYPE_CHECKING:
    from torch import nn

CLASSES = 1009  # the classifier's width during the derivation, which no layer of timm has
PROJECTIONS = frozenset((384, 512, 640, 768, 1024, 1152, 1280))  # widths of caption embeddings in timm


class Call(NamedTuple):
    """One recorded call of a module: the module, its path, its first input and its output."""

    path: str
    module: nn.Module
    given: Any
    output: Any


@dataclass(frozen=True, config=ConfigDict(extra="forbid", strict=True))
class UnverifiedWeights(WeightSource):
    """Weights for which timm knows only an address and no digest; blockzoo does not download such weights."""

    address: str
    kind: ClassVar[str] = "address"

    def describe(self) -> str:
        """Return the address of the weights."""
        return self.address

    def read(self, reader: WeightReader) -> LoadedWeights:
        """Raise an error that asks the user to download the weights."""
        raise reader.unreachable([(self.address, "timm publishes no digest of the file")], "download it yourself")


@cache
def names() -> list[str]:
    """Return the names of timm's pretrained networks, with their tags, and the names of networks without weights."""
    import timm

    pretrained = timm.list_pretrained()
    bare = {name.partition(".")[0] for name in pretrained}
    return [*pretrained, *(name for name in timm.list_models() if name not in bare)]


@cache
def published_accuracies() -> dict[str, float]:
    """Return the ImageNet-1k top-1 accuracies that timm publishes, in percent; the keys are names with tags.

    timm measured the accuracy of each network at the network's test input size. The file NOTICE names the source of the
    table.

    >>> published_accuracies()["test_vit.r160_in1k"]
    40.832
    """
    table = files("zoo_plugins").joinpath("timm_imagenet.csv").read_text(encoding="utf-8")
    return {row["model"]: float(row["top1"]) for row in csv.DictReader(table.splitlines())}


def derive(name: str) -> Backbone:
    """Return the record of a timm network, derived by running the network.

    If the network's structure is not supported, raises :class:`~zoo.DeclarationError` with the reason.

    >>> record = derive("test_vit.r160_in1k")
    >>> record.head.path, record.unfreeze, record.features[-1]
    ('head', ('blocks.5', 'norm'), FeatureLayer(path='fc_norm', width=64, pool='flatten', skip=0))
    """
    import timm
    from timm.models import get_pretrained_cfg

    config = get_pretrained_cfg(name)
    calls, network = _watched(name)
    heads = _heads(name, calls)
    first = next(index for index, call in enumerate(calls) if call.path == heads[0].path)
    before = calls[:first]
    last = _last_layer(name, before, calls[first].given)
    width = calls[first].given.shape[1]
    layers = (*_feature_layers(network, before, last), FeatureLayer(last, width, pool="flatten"))
    made = [Head(call.path, in_features=width if _is_headless(config) else None) for call in heads]
    return Backbone(
        name=f"timm:{name}",
        title=f"timm {name}",
        weights=_weights(config),
        architecture=TimmArchitecture(name),
        unfreeze=_unfrozen(name, network, before, heads),
        head=made[0] if len(made) == 1 else DualHead(cls=made[0], dist=made[1]),
        features=layers,
        license=config.license if config else None,
        paper=None,
        pretrained_on=None,
        imagenet_top1=_published_accuracy(config),
        derived_from=f"timm {timm.__version__}",
        has_classifier=not (_is_headless(config) or _is_projection(config)),
    )


def _refused(name: str, reason: str) -> DeclarationError:
    return DeclarationError(f"no record can be derived for 'timm:{name}': {reason}", code="not-derivable", name=name)


def _watched(name: str) -> tuple[list[Call], nn.Module]:
    """Run the network with ``CLASSES`` classes, and return its modules' calls in the order in which the calls ended."""
    import timm
    import torch
    from timm.data.config import resolve_data_config

    with torch.device("meta"):
        network: nn.Module = timm.create_model(name, pretrained=False, num_classes=CLASSES).eval()
    if not hasattr(network, "get_classifier") or not hasattr(network, "head_hidden_size"):
        raise _refused(name, "it is an encoder without a classifier")
    size = resolve_data_config({}, pretrained_cfg=network.pretrained_cfg)["input_size"]
    calls: list[Call] = []
    hooks = [
        module.register_forward_hook(
            lambda module, given, output, path=path: calls.append(
                Call(path, module, given[0] if given else None, output)
            )
        )
        for path, module in network.named_modules()
        if path
    ]
    try:
        with torch.no_grad():
            network(torch.zeros(2, *size, device="meta"))
    except Exception as error:
        raise _refused(name, f"it does not run: {type(error).__name__}: {error}") from error
    finally:
        for hook in hooks:
            hook.remove()
    return calls, network


def _is_headless(config: Any) -> bool:
    return config is not None and config.num_classes == 0


def _is_projection(config: Any) -> bool:
    """Whether the last layer is a projection to caption embeddings; timm states its width as class count."""
    return config is not None and config.num_classes in PROJECTIONS and "in1k" not in (config.tag or "")


def _heads(name: str, calls: list[Call]) -> list[Call]:
    """Return the calls of the network's one or two classifiers; two classifiers must have the same input."""
    from torch import nn

    found = [
        call
        for call in calls
        if (isinstance(call.module, nn.Linear) and call.module.out_features == CLASSES)
        or (isinstance(call.module, nn.Conv2d) and call.module.out_channels == CLASSES)
    ]
    kinds = sorted({f"{call.path} on {tuple(call.given.shape[1:])}" for call in found})
    if not found:
        raise _refused(name, "it has no linear layer that outputs the logits")
    if len(found) > 2 or len({tuple(call.given.shape) for call in found}) > 1:
        raise _refused(name, f"it has several classifiers with different inputs: {', '.join(kinds)}")
    return found


def _last_layer(name: str, before: list[Call], given: Any) -> str:
    """Return the path of the last module, if possible not dropout, whose output is the classifier's input."""
    from torch import nn

    same = [call for call in before if call.output is given]
    kept = [call for call in same if not isinstance(call.module, nn.Dropout)] or same
    if not kept:
        raise _refused(name, "no module outputs the input vector of its classifier")
    return kept[-1].path


def _feature_layers(network: nn.Module, before: list[Call], last: str) -> list[FeatureLayer]:
    """Return the stages or blocks that timm lists and that output one map or sequence, in the order of execution."""
    listed = {info["module"]: info["num_chs"] for info in getattr(network, "feature_info", [])}
    skip = int(getattr(network, "num_prefix_tokens", 0) or 0)
    by_token = getattr(network, "global_pool", "") == "token"
    # If a module runs several times, its last output is used.
    ran = {call.path: call.output for call in before}
    order = list(dict.fromkeys(call.path for call in reversed(before)))[::-1]
    found = []
    for path in order:
        layer = _layer(path, ran[path], listed.get(path), skip, by_token=by_token)
        if layer is not None and path != last:
            found.append(layer)
    return found


def _layer(path: str, output: Any, width: int | None, skip: int, *, by_token: bool) -> FeatureLayer | None:
    shape = tuple(getattr(output, "shape", ()))
    if width is None or len(shape) not in (3, 4):
        return None
    if len(shape) == 4 and shape[1] == width:
        return FeatureLayer(path, width)
    if len(shape) == 4 and shape[3] == width:
        return FeatureLayer(path, width, pool="average_channels_last")
    if len(shape) == 3 and shape[2] == width:
        # If the number of tokens is a square, there is no prefix token, as in CaiT before the class token is added.
        prefix = skip if int((shape[1]) ** 0.5) ** 2 != shape[1] else 0
        return FeatureLayer(path, width, pool="cls") if by_token and prefix else FeatureLayer(path, width, skip=prefix)
    return None


def _unfrozen(name: str, network: nn.Module, before: list[Call], heads: list[Call]) -> tuple[str, ...]:
    """Return the modules to train: the last block, and the modules with parameters between it and the classifier."""
    weighted = [call.path for call in before if any(True for _ in call.module.parameters(recurse=False))]
    if not weighted:
        raise _refused(name, "it has no layer with weights before its classifier")
    listed = {info["module"] for info in getattr(network, "feature_info", [])}
    blocks = [_block_around(network, path, listed) for path in weighted]
    blocks = ["" if any(head.path.startswith(f"{block}.") for head in heads) else block for block in blocks]
    known = [index for index, block in enumerate(blocks) if block]
    # For a network without repeated blocks, such as VGG, the last child module that contains layers is the block.
    block = blocks[known[-1]] if known else weighted[-1].partition(".")[0]
    inside = [each for each in blocks if each.startswith(f"{block}.")]  # a stage may end with a norm after its blocks
    block = inside[-1] if inside else block
    end = max(index for index, path in enumerate(weighted) if f"{path}.".startswith(f"{block}."))
    return (block, *dict.fromkeys(weighted[end + 1 :]))


def _block_around(network: nn.Module, path: str, listed: set[str]) -> str:
    """Return the path of the block that contains a layer; a block is a container's child that has several layers.

    If the container's child is a stage (timm lists it, or it is a sequence), the block inside the stage is returned.
    """
    from torch import nn

    parts = path.split(".")
    parents = [".".join(parts[:depth]) for depth in range(len(parts))]
    units = [
        f"{parent}.{part}".lstrip(".")
        for parent, part in zip(parents, parts, strict=True)
        if _is_container(network.get_submodule(parent), stage=parent in listed)
    ]
    units = [unit for unit in units if _holds_layers(network.get_submodule(unit))]
    chosen = ""
    for unit in units:
        chosen = unit
        if unit not in listed and not isinstance(network.get_submodule(unit), nn.Sequential | nn.ModuleDict):
            break
    return chosen


def _is_container(module: nn.Module, *, stage: bool) -> bool:
    """Whether a module's children are repeated units: it is a container, or a stage with children of one type."""
    from torch import nn

    children = list(module.children())
    same = len(children) > 1 and len({type(child) for child in children}) == 1 and _holds_layers(children[0])
    return isinstance(module, nn.Sequential | nn.ModuleList | nn.ModuleDict) or (stage and same)


def _holds_layers(module: nn.Module) -> bool:
    """Whether a module has at least two layers with parameters, and is not a list of modules."""
    from torch import nn

    layers = [part for part in module.modules() if any(True for _ in part.parameters(recurse=False))]
    return len(layers) > 1 and not isinstance(module, nn.ModuleList)


def _published_accuracy(config: Any) -> float | None:
    if config is None or not config.has_weights:
        return None
    return published_accuracies().get(f"{config.architecture}.{config.tag}")


def _weights(config: Any) -> WeightSource:
    """Return the weight source of a network: timm's or the authors' repository, an address, or random weights."""
    if config is None or not config.has_weights:
        return RandomWeights()
    if not config.hf_hub_id:
        return UnverifiedWeights(config.url)
    owner = config.hf_hub_id.partition("/")[0]
    if owner == "timm":
        return TimmWeights(f"{config.architecture}.{config.tag}")
    return HubWeights(config.hf_hub_id)
