"""Read the classifier's input and the source logits of a backbone for images, in one pass."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from zoo.backbone import Backbone, DualHead
from zoo.errors import DeclarationError
from zoo_harness.compute.context import ComputeContext
from zoo_harness.compute.precision import autocast
from zoo_harness.data.decoding import ImageData
from zoo_harness.models.feature_pooling import pool_features
from zoo_harness.models.modules import capture, find_module
from zoo_harness.ranking.moments import Array
from zoo_harness.util.progress import Progress

BATCH_SIZE = 32


@dataclass(frozen=True, eq=False)
class Readout:
    """Features (N, D) float32, and logits (N, S) float32 of the source classifier, or ``None`` without one."""

    features: Array
    logits: Array | None

    def __add__(self, other: Readout) -> Readout:
        """Append the images of another readout of the same backbone."""
        logits = None
        if self.logits is not None and other.logits is not None:
            logits = np.concatenate([self.logits, other.logits])
        return Readout(np.concatenate([self.features, other.features]), logits)


def read_out(
    network: nn.Module,
    backbone: Backbone,
    images: ImageData,
    compute: ComputeContext,
    progress: Progress,
    *,
    trained: bool,
) -> Readout:
    """Run images through a network that still has its own classifier.

    The features are the last feature layer that the record declares. Of two classifiers the first is read. A network
    whose head is the identity, or that is not ``trained``, has no source classifier. Raises
    :class:`~zoo.errors.DeclarationError` for outputs that are not finite.
    """
    layer = backbone.features[-1]
    head = (backbone.head.cls if isinstance(backbone.head, DualHead) else backbone.head).path
    has_classifier = trained and not isinstance(find_module(network, head), nn.Identity)
    paths = [layer.path, head] if has_classifier else [layer.path]
    network.eval().to(compute.device)
    network.to(memory_format=torch.channels_last)
    features: list[Tensor] = []
    logits: list[Tensor] = []
    with capture(network, paths) as outputs, torch.inference_mode(), autocast(compute.precision, compute.device):
        for batch, labels in images.in_order(BATCH_SIZE, compute.device):
            network(batch)
            features.append(pool_features(outputs[layer.path], layer).float().cpu())
            if has_classifier:
                logits.append(outputs[head].flatten(1).float().cpu())
            progress.advance(len(labels))
    read = torch.cat(features)
    if not bool(read.isfinite().all()):
        message = f"outputs of layer {layer.path!r} are not finite on these images"
        raise DeclarationError(message, code="features-not-finite", layer=layer.path)
    return Readout(read.numpy(), torch.cat(logits).numpy() if has_classifier else None)
