"""Load weights into a network for images of another size than that of the weights, or refuse the size by name.

Convolutional networks take other sizes as they are. A network of timm with position embeddings or windows of a fixed
size is built for the size, and timm resamples the tensors that depend on it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from zoo.architecture import TimmArchitecture
from zoo.backbone import Backbone, Preprocessing, Tuning
from zoo.errors import UsageError, WeightsError, ZooError
from zoo.text import one_line
from zoo.weights import RandomWeights, WeightSource
from zoo_harness.models.build import build_network, build_timm, has_other_fixed_size
from zoo_harness.models.preprocessing import resolve_preprocessing
from zoo_harness.models.weights import load_weights
from zoo_harness.records.run import WeightsRecord

Size = tuple[int, int]
_NEAR, _NAMED = 6, 2  # sizes that are tried near a size that is refused, and those that the message names
_USUAL_SIDES = (64, 128, 224, 256, 384, 448, 512)


class LoadedNetwork(NamedTuple):
    """A network with its weights, their record, and how its images are prepared.

    ``default_input_size``: the input size (height, width) that was not used, because the user chose another.
    """

    network: nn.Module
    weights: WeightsRecord
    preprocessing: Preprocessing
    default_input_size: Size | None = None


def load_network(
    network: nn.Module, backbone: Backbone, source: WeightSource, tuning: Tuning, input_size: Size | None = None
) -> LoadedNetwork:
    """Load a source into the network of a backbone, for images of the recipe's size or of ``input_size``.

    The network of the result is another one if it must be built for the size. A chosen size is tried before anything
    is fetched. Raises :class:`~zoo.errors.UsageError` if the network does not take it or timm cannot resample its
    weights, and the errors of :func:`~zoo_harness.models.weights.load_weights`.
    """
    default = resolve_preprocessing(backbone, network, tuning)
    if input_size in (None, default.input_size):
        return LoadedNetwork(*_load_at_size(network, backbone, source, default.input_size), default)
    preprocessing = resolve_preprocessing(backbone, network, tuning, input_size)
    loaded = _load_at_size(network, backbone, source, preprocessing.input_size, chosen=True)
    return LoadedNetwork(*loaded, preprocessing, default.input_size)


def _load_at_size(
    network: nn.Module, backbone: Backbone, source: WeightSource, input_size: Size, *, chosen: bool = False
) -> tuple[nn.Module, WeightsRecord]:
    architecture, tensors = backbone.network, None
    rebuilt = isinstance(architecture, TimmArchitecture) and has_other_fixed_size(network, input_size)
    if rebuilt and not isinstance(source, RandomWeights):
        tensors = network.state_dict()  # as initialised: their shapes decide whether timm can resample them
    if chosen or rebuilt:
        _check_size(backbone, input_size, tensors, rebuilt=rebuilt)
    if not rebuilt:
        return network, load_weights(network, backbone, source)
    if tensors is None:
        network = build_timm(architecture.name, input_size)
        return network, load_weights(network, backbone, source)
    try:
        record = load_weights(network, backbone, source)
    except WeightsError as error:
        sized = build_timm(architecture.name, input_size)
        try:  # weights of a run with this input size fit without resampling
            return sized, load_weights(sized, backbone, source)
        except WeightsError:
            raise error from None
    return _resampled(backbone, input_size, network.state_dict()), record


def _check_size(backbone: Backbone, input_size: Size, tensors: Mapping[str, Tensor] | None, *, rebuilt: bool) -> None:
    """Run the network on one image, without values if possible, before any file is needed."""
    without_values = tensors and {name: value.to("meta") for name, value in tensors.items()}
    with torch.random.fork_rng(devices=[]):  # the constructors draw random numbers
        fault = _fault(backbone, input_size, "meta", without_values, rebuilt=rebuilt)
        fault = fault and _fault(backbone, input_size, "cpu", tensors, rebuilt=rebuilt)
        if fault:
            sizes = tuple(_sizes_that_work(backbone, input_size, rebuilt=rebuilt))
            advice = f"; try --input-size {' or '.join(map(str, sizes))}" if sizes else ""
            raise _refused(backbone, input_size, fault + advice, sizes)


def _fault(
    backbone: Backbone, input_size: Size, device: str, tensors: Mapping[str, Tensor] | None = None, *, rebuilt: bool
) -> str:
    """Return the reason why the network does not run on images of this size; on ``meta``, code may fail otherwise."""
    try:
        if rebuilt:
            with torch.device(device):
                name = backbone.network.name
                network = _resampled(backbone, input_size, tensors) if tensors else build_timm(name, input_size)
        else:
            network = build_network(backbone.name, backbone.network, device)
        if (patch := _left_over(network, input_size)) is not None:
            return f"its patches of {patch[0]} x {patch[1]} pixels do not divide the image"
        with torch.no_grad():
            network(torch.zeros(1, 3, *input_size, device=device))
    except ZooError:
        raise
    except Exception as error:  # whatever the code of a network may raise
        return f"{one_line(str(error)) or f'the network raises {type(error).__name__}':.200}"
    return ""


def _left_over(network: nn.Module, input_size: Size) -> Size | None:
    """Return the size of the patches of a timm network if they leave out a border of the image, as timm allows."""
    from timm.layers.patch_embed import PatchEmbed

    for module in network.modules():
        if isinstance(module, PatchEmbed) and not module.dynamic_img_pad:
            patch: Size = module.patch_size
            return patch if any(side % part for side, part in zip(input_size, patch, strict=True)) else None
    return None


def _sizes_that_work(backbone: Backbone, input_size: Size, *, rebuilt: bool) -> Iterator[int]:
    """Yield the sides of square images near a size that the network takes, as far as the first trials find any."""
    side, found = max(input_size), 0
    # Patches and strides of nearly all networks divide a multiple of 32 or 14.
    sides = {multiple for step in (32, 14) for multiple in range(step, side + 100, step)}
    near = sorted(sides - {side}, key=lambda each: abs(each - side))[:_NEAR]
    for tried in dict.fromkeys([*near, *_USUAL_SIDES]):
        if found < _NAMED and not _fault(backbone, (tried, tried), "meta", rebuilt=rebuilt):
            found += 1
            yield tried


def _resampled(backbone: Backbone, input_size: Size, tensors: Mapping[str, Tensor]) -> nn.Module:
    """Build the network for another input size with the tensors of its own size, resampled where they differ."""
    architecture = backbone.network.name
    try:
        return build_timm(architecture, input_size, tensors)
    except Exception as error:  # timm resamples most by itself, but not all
        sized = build_timm(architecture, input_size)
        expected = sized.state_dict()
        differing = [name for name, value in tensors.items() if expected[name].shape != value.shape]
        positions = dict(_resampled_positions(differing, tensors, sized, input_size))
        if not differing or len(positions) < len(differing):
            what = repr(next((name for name in differing if name not in positions), "a tensor"))
            fault = f"timm cannot resample {what} of its weights to it; try --weights random, or the weights' own size"
            raise _refused(backbone, input_size, fault) from error
        return build_timm(architecture, input_size, {**tensors, **positions})


def _resampled_positions(
    differing: Sequence[str], tensors: Mapping[str, Tensor], sized: nn.Module, input_size: Size
) -> Iterator[tuple[str, Tensor]]:
    """Yield the position embeddings (1, tokens, width) of a square grid, as those of CaiT, resampled by timm."""
    from timm.layers.pos_embed import resample_abs_pos_embed

    own: Size = sized.pretrained_cfg["input_size"][1:]  # type: ignore[index, assignment]
    for name in differing:
        value = tensors[name]
        side = math.isqrt(value.shape[1]) if value.ndim == 3 else 0
        if name.endswith("pos_embed") and side and side**2 == value.shape[1]:
            grid = [pixels * side // usual for pixels, usual in zip(input_size, own, strict=True)]
            yield name, resample_abs_pos_embed(value, grid, [side, side], num_prefix_tokens=0)


def _refused(backbone: Backbone, input_size: Size, fault: str, sizes: tuple[int, ...] = ()) -> UsageError:
    size = "{} x {}".format(*input_size)
    return UsageError(
        f"--input-size: {backbone.name} does not take images of {size} pixels: {fault}",
        code="input-size-refused",
        option="input_size",
        name=backbone.name,
        given=input_size,
        sizes=sizes,
    )
