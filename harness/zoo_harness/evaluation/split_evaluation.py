"""Evaluate a network in one pass over a split: compute loss, accuracy, predictions, and the features of a layer."""

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
    """The results of evaluating a network on a split in inference mode.

    ``loss``: the mean loss. ``features``: (N, D), the features of a layer; ``None`` if no layer was requested.
    ``predictions``: (N,) int64 on the device, the predicted class of each image. ``alternate_accuracy``: for a network
    with two heads, the accuracy under the prediction rule that the run does not use. One rule uses the logits of the
    first head, and the other rule uses the mean of both heads.

    ``label_ranks`` and ``probabilities`` are set only if features are collected. ``label_ranks``: (N,), the rank of
    each label among the classes by probability; rank 1 is the most likely class. ``probabilities``: (N, 2) float32, the
    probabilities of the label and of the predicted class.
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
        """The collected features. Raises ``AssertionError`` if the evaluation collected no features."""
        assert self.features is not None  # noqa: S101 - only callers that requested a layer use this property
        return self.features


def evaluate_split(
    trainable: TrainableModel, source: Source, compute: ComputeContext, layer: FeatureLayer | None, progress: Progress
) -> SplitEvaluation:
    """Evaluate a network on a split in inference mode, and collect the features of ``layer``, if a layer is given.

    Images are processed in the order of the data. If several processes run, the first process receives the features and
    predictions of all images. Raises :class:`~zoo.errors.ZooError` if the loss is not finite.
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
    """Compute from logits (N, C) the rank of each label, and the probabilities of the label and the predicted class.

    If the label is not the predicted class, every class with the same probability as the label gets a better rank.
    """
    of_label = logits.gather(1, labels[:, None])
    ranks = (logits >= of_label).sum(1, dtype=torch.int32)
    ranks[predicted == labels] = 1
    chosen = torch.stack([labels, predicted], 1)
    return ranks, logits.double().softmax(1).gather(1, chosen).float()


def collect_predictions(found: SplitEvaluation, labels: Tensor, split: SplitRecord, classes: int) -> Predictions:
    """Convert an evaluation result to :class:`Predictions`. The evaluation must have collected features.

    ``labels``: (N,), the labels of the split's images. ``split``: the record of the split. ``classes``: the number of
    classes.
    """
    assert found.label_ranks is not None and found.probabilities is not None  # noqa: S101, PT018 - set with features
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
    """Sum the cross-entropy of logits over all images and over all heads. ``logits``: a tensor (B, C) for each head.

    >>> float(summed_loss((torch.zeros(3, 2), torch.zeros(3, 2)), torch.tensor([0, 1, 1])) / 3)
    1.386...
    """
    losses = [nn.functional.cross_entropy(part.float(), labels, reduction="sum") for part in logits]
    return torch.stack(losses).sum()


def loss_not_finite(where: str, loss: float) -> ZooError:
    """Return the error for a loss that is not finite. ``where``: what zoo was doing, such as "evaluation"."""
    advice = "try a lower --learning-rate, or check the weights and the data"
    return ZooError(
        f"{where}: the loss is {loss}; expected a finite number; {advice}", code="loss-not-finite", loss=loss
    )
