"""Evaluates a network on a split in one pass: loss, accuracy, predictions and the features of a layer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from zoo.backbone import FeatureLayer
from zoo.errors import ZooError
from zoo_harness.compute.context import ComputeContext
from zoo_harness.compute.precision import autocast
from zoo_harness.data.batches import Source
from zoo_harness.evaluation.predictions import Predictions
from zoo_harness.models.feature_pooling import pool_features
from zoo_harness.models.modules import capture
from zoo_harness.models.trainable_model import TrainableModel
from zoo_harness.models.tuned_network import prediction
from zoo_harness.records.run import Measurement, SplitRecord, measure
from zoo_harness.util.progress import Progress

EVALUATION_BATCH_SIZE = 32


@dataclass(frozen=True)
class SplitEvaluation:
    """Hold the results of a pass in inference mode: mean loss, accuracy, and features ``(N, D)`` of a layer, if any.

    ``predictions``: (N,) int64 on the device, the predicted class of each image. ``alternate_accuracy``: accuracy of a
    network with two heads by the other rule, which is the mean if the first head decides, and otherwise the first head.
    A pass that collects features has the ``label_ranks`` (N,), the place of each label among the classes from 1, the
    likeliest first; and the ``probabilities`` (N, 2) of the label and of the prediction, float32.
    """

    loss: float
    accuracy: Measurement
    features: Tensor | None
    predictions: Tensor
    alternate_accuracy: Measurement | None = None
    label_ranks: Tensor | None = None
    probabilities: Tensor | None = None

    @property
    def collected(self) -> Tensor:
        """Return the features of a pass that collected them."""
        assert self.features is not None  # noqa: S101 - the caller has asked
        return self.features


def evaluate_split(
    trainable: TrainableModel, source: Source, compute: ComputeContext, layer: FeatureLayer | None, progress: Progress
) -> SplitEvaluation:
    """Evaluate a split in inference mode, in the order of the data, and collect the features of a layer, if given.

    If several processes run, the first gets the features and predictions of all images. Raises
    :class:`~zoo.errors.ZooError` if the loss is not finite.
    """
    trainable.tuned.eval()
    total = torch.zeros((), dtype=torch.float64, device=compute.device)
    correct, alternate = torch.zeros(2, dtype=torch.int64, device=compute.device)
    other_rule: Literal["cls", "mean"] = "mean" if compute.predict == "cls" else "cls"
    processes = compute.processes
    share = len(processes.share(len(source)))
    predictions = torch.empty(share, dtype=torch.int64, device=compute.device)
    features = torch.empty(share, layer.width) if layer else None
    ranks = torch.empty(share, dtype=torch.int32, device=compute.device) if layer else None
    probabilities = torch.empty(share, 2, device=compute.device) if layer else None
    paths = [layer.path] if layer else []
    two_heads = len(trainable.tuned.head_paths) > 1
    done = 0
    with torch.inference_mode(), autocast(compute.precision, compute.device):
        for inputs, labels in source.in_order(EVALUATION_BATCH_SIZE):
            with capture(trainable.tuned.network, paths) as outputs:
                logits = trainable.logits(inputs)
            total += summed_loss(logits, labels)
            deciding = prediction(logits, compute.predict)
            predicted = deciding.argmax(1)
            predictions[done : done + len(labels)] = predicted
            correct += (predicted == labels).sum()
            if two_heads:
                alternate += (prediction(logits, other_rule).argmax(1) == labels).sum()
            if features is not None and layer is not None:
                features[done : done + len(labels)] = pool_features(outputs[layer.path], layer).float().cpu()
            if ranks is not None and probabilities is not None:
                place = slice(done, done + len(labels))
                ranks[place], probabilities[place] = _in_detail(deciding, labels, predicted)
            done += len(labels)
            progress.advance(len(labels) * processes.count)
        processes.add(total, correct, alternate)
        predictions = processes.gather(predictions)
        features, ranks, probabilities = (
            part if part is None else processes.gather(part) for part in (features, ranks, probabilities)
        )
    n = len(source)
    loss = float(total) / n
    if not math.isfinite(loss):
        raise loss_not_finite("evaluation", loss)
    alternate_accuracy = measure(int(alternate) / n, n) if two_heads else None
    accuracy = measure(int(correct) / n, n)
    return SplitEvaluation(loss, accuracy, features, predictions, alternate_accuracy, ranks, probabilities)


def _in_detail(logits: Tensor, labels: Tensor, predicted: Tensor) -> tuple[Tensor, Tensor]:
    """Return the ranks of the labels, and the probabilities of label and prediction, from logits (N, C).

    Classes as likely as the label count as likelier, unless it is the prediction.
    """
    of_label = logits.gather(1, labels[:, None])
    ranks = (logits >= of_label).sum(1, dtype=torch.int32)
    ranks[predicted == labels] = 1
    chosen = torch.stack([labels, predicted], 1)
    return ranks, logits.double().softmax(1).gather(1, chosen).float()


def collect_predictions(found: SplitEvaluation, labels: Tensor, split: SplitRecord, classes: int) -> Predictions:
    """Return the predictions of a pass that collected features, for the images of a split and their ``labels`` (N,)."""
    assert found.label_ranks is not None and found.probabilities is not None  # noqa: S101, PT018 - as for features
    of_label, of_predicted = found.probabilities.cpu().numpy().T
    return Predictions(
        split=split.split,
        fingerprint=split.fingerprint,
        classes=classes,
        label=labels.cpu().numpy().astype(np.int32),
        predicted=found.predictions.cpu().numpy().astype(np.int32),
        label_rank=found.label_ranks.cpu().numpy(),
        label_probability=np.ascontiguousarray(of_label),
        predicted_probability=np.ascontiguousarray(of_predicted),
    )


def summed_loss(logits: tuple[Tensor, ...], labels: Tensor) -> Tensor:
    """Sum the cross-entropy over the images and over the heads.

    >>> float(summed_loss((torch.zeros(3, 2), torch.zeros(3, 2)), torch.tensor([0, 1, 1])) / 3)
    1.386...
    """
    losses = [nn.functional.cross_entropy(part.float(), labels, reduction="sum") for part in logits]
    return torch.stack(losses).sum()


def loss_not_finite(where: str, loss: float) -> ZooError:
    """Return the error for a loss that is not finite; ``where`` names the pass."""
    advice = "try a lower --learning-rate, or check the weights and the data"
    return ZooError(
        f"{where}: the loss is {loss}; expected a finite number; {advice}", code="loss-not-finite", loss=loss
    )
