"""Evaluate."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from zoo.backbone import FeatureLayer
from zoo.errors import ZooError
from zoo_harness.compute.context import ComputeContext
from zoo_harness.compute.precision import autocast
from zoo_harness.data.batches import Source
from zoo_harness.models.feature_pooling import pool_features
from zoo_harness.models.modules import capture
from zoo_harness.models.trainable_model import TrainableModel
from zoo_harness.models.tuned_network import prediction
from zoo_harness.records.run import Measurement
from zoo_harness.util.progress import Progress

EVALUATION_BATCH_SIZE = 32


@dataclass(frozen=True)
class SplitEvaluation:
    """One pass over a split in inference mode: mean loss, accuracy, and the features ``(N, D)`` of a layer, if any.

    ``predictions``: (N,) int64 on the device, the predicted class of each image. ``alternate_accuracy``: of two heads,
    the accuracy of the mean where the first decides, and of the first where the mean does.
    """

    loss: float
    accuracy: Measurement
    features: Tensor | None
    predictions: Tensor
    alternate_accuracy: Measurement | None = None

    @property
    def collected(self) -> Tensor:
        """The features, of a pass that was asked for them."""
        assert self.features is not None  # noqa: S101 - the caller has asked
        return self.features


def evaluate_split(
    trainable: TrainableModel, source: Source, compute: ComputeContext, layer: FeatureLayer | None, progress: Progress
) -> SplitEvaluation:
    """Loss, accuracy and perhaps one layer's features of a split, in inference mode and in the order of the data.

    Of several processes the first has the features and predictions of all images.
    """
    trainable.tuned.eval()
    total = torch.zeros((), dtype=torch.float64, device=compute.device)
    correct, otherwise = torch.zeros(2, dtype=torch.int64, device=compute.device)
    other_rule: Literal["cls", "mean"] = "mean" if compute.predict == "cls" else "cls"
    processes = compute.processes
    share = len(processes.share(len(source)))
    predictions = torch.empty(share, dtype=torch.int64, device=compute.device)
    features = torch.empty(share, layer.width) if layer else None
    paths = [layer.path] if layer else []
    two_heads = len(trainable.tuned.head_paths) > 1
    done = 0
    with torch.inference_mode(), autocast(compute.precision, compute.device):
        for inputs, labels in source.in_order(EVALUATION_BATCH_SIZE):
            with capture(trainable.tuned.network, paths) as outputs:
                logits = trainable.logits(inputs)
            total += summed_loss(logits, labels)
            taken_for = prediction(logits, compute.predict).argmax(1)
            predictions[done : done + len(labels)] = taken_for
            correct += (taken_for == labels).sum()
            if two_heads:
                otherwise += (prediction(logits, other_rule).argmax(1) == labels).sum()
            if features is not None and layer is not None:
                features[done : done + len(labels)] = pool_features(outputs[layer.path], layer).float().cpu()
            done += len(labels)
            progress.advance(len(labels) * processes.count)
        processes.add(total, correct, otherwise)
        predictions = processes.gather(predictions)
        features = None if features is None else processes.gather(features)
    loss = float(total) / len(source)
    if not math.isfinite(loss):
        raise ZooError(f"evaluation: {not_finite_message(loss)}")
    alternate_accuracy = measure(int(otherwise) / len(source), len(source)) if two_heads else None
    return SplitEvaluation(
        loss, measure(int(correct) / len(source), len(source)), features, predictions, alternate_accuracy
    )


def summed_loss(logits: tuple[Tensor, ...], labels: Tensor) -> Tensor:
    """Cross-entropy summed over the images and over the heads.

    >>> float(summed_loss((torch.zeros(3, 2), torch.zeros(3, 2)), torch.tensor([0, 1, 1])) / 3)
    1.386...
    """
    losses = [nn.functional.cross_entropy(part.float(), labels, reduction="sum") for part in logits]
    return torch.stack(losses).sum()


def measure(value: float, n: int) -> Measurement:
    """A proportion of ``n`` samples with its binomial standard error.

    >>> measure(0.5, 100).standard_error
    0.05
    """
    return Measurement(value=value, standard_error=math.sqrt(value * (1 - value) / n), n=n)


def not_finite_message(loss: float) -> str:
    """Say what to do about a loss that is not finite."""
    return f"the loss is {loss}; lower --learning-rate, or check the weights and the data"
