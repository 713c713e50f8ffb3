"""Create the optimizer, and compute the learning rate of each step and the loss to minimise.

The learning rate and the loss depend only on the training settings and the step number. Therefore a resumed run only
has to restore the optimizer's tensors.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from zoo.backbone import Training


def make_optimizer(training: Training, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """Create the optimizer that the training settings specify. On a GPU, the optimizer uses fused operations.

    >>> make_optimizer(Training(optimizer="sgd", momentum=0.9), nn.Linear(2, 2).parameters()).defaults["momentum"]
    0.9
    """
    trained = list(parameters)
    fused = all(parameter.device.type == "cuda" for parameter in trained)
    common: dict[str, Any] = {"lr": training.learning_rate, "weight_decay": training.weight_decay, "fused": fused}
    if training.optimizer == "sgd":
        return torch.optim.SGD(trained, momentum=training.momentum, nesterov=training.nesterov, **common)
    return (torch.optim.AdamW if training.optimizer == "adamw" else torch.optim.Adam)(trained, **common)


def learning_rate(training: Training, step: int, steps_per_epoch: int) -> float:
    """Return the learning rate of a training step. ``step``: the number of the step, counted from 0 over all epochs.

    >>> slow = Training(epochs=4, learning_rate=1.0, schedule="cosine", warmup_epochs=1)
    >>> [round(learning_rate(slow, step, 2), 2) for step in range(8)]
    [0.5, 1.0, 1.0, 0.93, 0.75, 0.5, 0.25, 0.07]
    """
    warmup = training.warmup_epochs * steps_per_epoch
    if step < warmup:
        return training.learning_rate * min(1.0, (step + 1) / warmup)
    share = 1.0
    if training.schedule == "multistep":
        share = training.decay ** sum(step >= epoch * steps_per_epoch for epoch in training.milestones)
    elif training.schedule == "cosine":
        rest = training.epochs * steps_per_epoch - warmup
        share = 0.5 * (1 + math.cos(math.pi * (step - warmup) / rest))
    return training.learning_rate * share


class TrainingLoss:
    """Compute the cross-entropy of a batch, summed over the images and over the heads of the network.

    The training settings specify label smoothing and class weights. ``labels``: the (N,) int64 labels of the training
    split, from which balanced class weights are computed.

    >>> loss = TrainingLoss(Training(), torch.tensor([0, 1, 1]), classes=2)
    >>> float(loss((torch.zeros(3, 2),), torch.tensor([0, 1, 1])) / 3)
    0.693...
    """

    def __init__(self, training: Training, labels: Tensor, classes: int) -> None:
        self._smoothing = training.label_smoothing
        self._weights: Tensor | None = None
        if training.class_weights == "balanced":
            images = torch.bincount(labels, minlength=classes).clamp(min=1)
            self._weights = len(labels) / (classes * images.to(torch.float32))

    def __call__(self, logits: tuple[Tensor, ...], labels: Tensor) -> Tensor:
        """Return the loss of a batch with labels (B,), summed over images and heads.

        ``logits``: (B, classes) for each head.
        """
        if self._weights is not None:
            self._weights = self._weights.to(labels.device)
        return torch.stack([self._of_head(part, labels) for part in logits]).sum()

    def _of_head(self, logits: Tensor, labels: Tensor) -> Tensor:
        each = nn.functional.cross_entropy(logits.float(), labels, reduction="none", label_smoothing=self._smoothing)
        # The weights are not passed to cross_entropy, because with label smoothing, cross_entropy would apply the
        # weights of all classes to every image.
        return (each if self._weights is None else each * self._weights[labels]).sum()
