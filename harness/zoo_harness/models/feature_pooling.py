"""Pool the output of a declared feature layer to one vector per image."""

from __future__ import annotations

import torch
from torch import Tensor

from zoo.backbone import FeatureLayer
from zoo.errors import DeclarationError
from zoo_harness.models.modules import capture
from zoo_harness.models.tuned_network import TunedNetwork

_DIMENSIONS = {"average": (3, 4), "average_channels_last": (4,), "cls": (3,), "dist": (3,)}


def pool_features(output: Tensor, layer: FeatureLayer) -> Tensor:
    """Pool a layer's output to vectors ``(B, width)`` with the pooling and the width that ``layer`` declares.

    Raises :class:`~zoo.errors.DeclarationError` if the pooling does not apply to the output's shape, or if the width of
    the vectors is not the declared width.

    >>> import torch
    >>> pool_features(torch.ones(2, 5, 7, 7), FeatureLayer("layer4", 5)).shape
    torch.Size([2, 5])
    """
    allowed = _DIMENSIONS.get(layer.pool)
    if allowed is not None and output.ndim not in allowed:
        raise DeclarationError(
            f"shape of feature layer {layer.path!r} does not fit pool {layer.pool!r}: {tuple(output.shape)}",
            code="layer-shape",
            layer=layer.path,
        )
    vectors = _pool(output, layer)
    if vectors.shape[1] != layer.width:
        raise DeclarationError(
            f"feature layer {layer.path!r} has the declared width {layer.width} with pool {layer.pool!r}, "
            f"but its vectors have width {vectors.shape[1]}",
            code="layer-width",
            layer=layer.path,
        )
    return vectors


def _pool(output: Tensor, layer: FeatureLayer) -> Tensor:
    match layer.pool:
        case "flatten":
            return output.flatten(1)
        case "average":
            return output[:, layer.skip :].mean(1) if output.ndim == 3 else output.mean((2, 3))
        case "average_channels_last":
            return output.mean((1, 2))
        case "cls":
            return output[:, 0]
        case "dist":
            return output[:, 1]


def check_layer(tuned: TunedNetwork, layer: FeatureLayer, example: Tensor) -> None:
    """Check a feature layer with an example batch, so that a wrong declaration fails before a run writes files.

    Raises :class:`~zoo.errors.DeclarationError` if the network never calls the layer, or if the output does not match
    the declared pooling and width.
    """
    tuned.eval()
    with torch.no_grad(), capture(tuned.network, [layer.path]) as outputs:
        tuned.logits(example)
    if layer.path not in outputs:
        raise DeclarationError(
            f"feature layer {layer.path!r} exists but never runs", code="layer-unused", layer=layer.path
        )
    pool_features(outputs[layer.path], layer)
