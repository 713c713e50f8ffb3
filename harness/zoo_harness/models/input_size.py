"""Load weights into a network for the image size that the user chose with ``--input-size``.

Most convolutional networks accept images of any size. A timm network with position embeddings or windows of a fixed
size must be built for the chosen size. timm resamples the tensors whose shapes depend on the image size.
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
_NEAR, _NAMED = 6, 2  # numbers of similar sizes to try, and to suggest in an error message
_USUAL_SIDES = (64, 128, 224, 256, 384, 448, 512)


class LoadedNetwork(NamedTuple):
    """Hold a network with loaded weights, the record of the weights, and the preprocessing of images.

    ``default_input_size``: the default input size (height, width), if the user chose another size; otherwise ``None``.
    """

    network: nn.Module
    weights: WeightsRecord
    preprocessing: Preprocessing
    default_input_size: Size | None = None


def load_network(
    network: nn.Module, backbone: Backbone, source: WeightSource, tuning: Tuning, input_size: Size | None = None
) -> LoadedNetwork:
    """Load weights into a backbone's network, for images of ``input_size`` (height, width) or of the recipe's size.

    The result contains a new network if the network must be rebuilt for the size. An ``input_size`` is tested on one
    image before weights are downloaded. Raises :class:`~zoo.errors.UsageError` if the network does not support the size
    or timm cannot resample the weights. Also raises the errors of :func:`~zoo_harness.models.weights.load_weights`.
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
        tensors = network.state_dict()  # initial values: only the shapes decide whether timm can resample
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
        try:  # the weights may come from a run with this input size
            return sized, load_weights(sized, backbone, source)
        except WeightsError:
            raise error from None
    return _resampled(backbone, input_size, network.state_dict()), record


def _check_size(backbone: Backbone, input_size: Size, tensors: Mapping[str, Tensor] | None, *, rebuilt: bool) -> None:
    """Raise :class:`~zoo.errors.UsageError` with suggested sizes if the network fails on one image of this size."""
    without_values = tensors and {name: value.to("meta") for name, value in tensors.items()}
    with torch.random.fork_rng(devices=[]):  # building a network draws random numbers
        fault = _fault(backbone, input_size, "meta", without_values, rebuilt=rebuilt)
        fault = fault and _fault(backbone, input_size, "cpu", tensors, rebuilt=rebuilt)
        if fault:
            sizes = tuple(_sizes_that_work(backbone, input_size, rebuilt=rebuilt))
            advice = f"; try --input-size {' or '.join(map(str, sizes))}" if sizes else ""
            raise _refused(backbone, input_size, fault + advice, sizes)


def _fault(
    backbone: Backbone, input_size: Size, device: str, tensors: Mapping[str, Tensor] | None = None, *, rebuilt: bool
) -> str:
    """Return why the network fails on images of this size, or ``""``; device ``meta`` may fail where others work."""
    try:
        if rebuilt:
            with torch.device(device):
                name = backbone.network.name
                network = _resampled(backbone, input_size, tensors) if tensors else build_timm(name, input_size)
        else:
            network = build_network(backbone.name, backbone.network, device)
        if (patch := _left_over(network, input_size)) is not None:
            return f"the sides are not multiples of the patch size, {patch[0]} x {patch[1]} pixels"
        with torch.no_grad():
            network(torch.zeros(1, 3, *input_size, device=device))
    except ZooError:
        raise
    except Exception as error:  # the network's code may raise any error
        return f"{one_line(str(error)) or f'the network raises {type(error).__name__}':.200}"
    return ""


def _left_over(network: nn.Module, input_size: Size) -> Size | None:
    """Return a timm network's patch size if whole patches do not cover the image; timm would ignore a border."""
    from timm.layers.patch_embed import PatchEmbed

    for module in network.modules():
        if isinstance(module, PatchEmbed) and not module.dynamic_img_pad:
            patch: Size = module.patch_size
            return patch if any(side % part for side, part in zip(input_size, patch, strict=True)) else None
    return None


def _sizes_that_work(backbone: Backbone, input_size: Size, *, rebuilt: bool) -> Iterator[int]:
    """Yield side lengths of square images that the network supports: the nearest to ``input_size`` come first."""
    side, found = max(input_size), 0
    # Nearly all networks accept multiples of 32 or 14.
    sides = {multiple for step in (32, 14) for multiple in range(step, side + 100, step)}
    near = sorted(sides - {side}, key=lambda each: abs(each - side))[:_NEAR]
    for tried in dict.fromkeys([*near, *_USUAL_SIDES]):
        if found < _NAMED and not _fault(backbone, (tried, tried), "meta", rebuilt=rebuilt):
            found += 1
            yield tried


def _resampled(backbone: Backbone, input_size: Size, tensors: Mapping[str, Tensor]) -> nn.Module:
    """Build the network for ``input_size``, and resample the tensors whose shapes depend on the input size."""
    architecture = backbone.network.name
    try:
        return build_timm(architecture, input_size, tensors)
    except Exception as error:  # timm does not resample the position embeddings of some networks
        sized = build_timm(architecture, input_size)
        expected = sized.state_dict()
        differing = [name for name, value in tensors.items() if expected[name].shape != value.shape]
        positions = dict(_resampled_positions(differing, tensors, sized, input_size))
        if not differing or len(positions) < len(differing):
            what = repr(next((name for name in differing if name not in positions), "a tensor"))
            fault = f"timm cannot resample {what} to this size; try --weights random, or the default size"
            raise _refused(backbone, input_size, fault) from error
        return build_timm(architecture, input_size, {**tensors, **positions})


def _resampled_positions(
    differing: Sequence[str], tensors: Mapping[str, Tensor], sized: nn.Module, input_size: Size
) -> Iterator[tuple[str, Tensor]]:
    """Resample position embeddings (1, tokens, width) of a square grid, such as CaiT's; yield name and tensor."""
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
