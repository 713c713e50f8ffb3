"""The training loop: the block that thaws and the head learn, the rest stands still.

``fine_tune`` is the seam: it takes a prepared network and two splits and gives back the history, epoch by epoch. How
it computes that (here: the whole network, every epoch) is nobody else's business.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from zoo.backbone import FeatureLayer, Training
from zoo.errors import UsageError, ZooError
from zoo_harness.data import ImageData
from zoo_harness.device import autocast
from zoo_harness.features import pool_features
from zoo_harness.run_record import EpochRecord, Measurement
from zoo_harness.surgery import TunedNetwork, capture

EVALUATION_BATCH_SIZE = 32


class Progress(Protocol):
    """What is told of a long task: ``stage`` begins a part of so many images, ``advance`` counts them."""

    def stage(self, name: str, images: int) -> None:
        """Begin a part."""

    def advance(self, images: int) -> None:
        """Count images that are done."""


class Silence:
    """Progress that nobody watches."""

    def stage(self, name: str, images: int) -> None:
        """Do nothing."""

    def advance(self, images: int) -> None:
        """Do nothing."""


@dataclass(frozen=True)
class Conditions:
    """What a run computes with, apart from the training settings themselves."""

    device: torch.device
    precision: str = "fp32"
    predict: Literal["cls", "mean"] = "cls"
    seed: int = 0


@dataclass(frozen=True)
class Evaluation:
    """One pass over a split in inference mode: mean loss, accuracy, and the features ``(N, D)`` of one layer."""

    loss: float
    accuracy: Measurement
    features: Tensor


def fine_tune(
    tuned: TunedNetwork,
    train: ImageData,
    evaluation: ImageData,
    training: Training,
    conditions: Conditions,
    layer: FeatureLayer,
    on_epoch: Callable[[EpochRecord, Evaluation], None],
    progress: Progress,
) -> None:
    """Train for the given epochs, evaluating after each; ``on_epoch`` gets each record as it is made.

    The order of the images depends on the seed and the epoch alone. Raises :class:`~zoo.errors.ZooError` when the
    loss is no longer finite.
    """
    if training.epochs and len(train) < 2:
        raise UsageError(f"training needs at least 2 images, given {len(train)}")
    optimizer = _optimizer(training, tuned.trained_parameters().values())
    for epoch in range(1, training.epochs + 1):
        started = time.perf_counter()
        progress.stage(f"epoch {epoch}/{training.epochs}: training", len(train))
        loss, accuracy = _train_epoch(tuned, train, training, conditions, optimizer, epoch, progress)
        trained = time.perf_counter()
        progress.stage(f"epoch {epoch}/{training.epochs}: evaluating", len(evaluation))
        result = evaluate_split(tuned, evaluation, conditions, layer, progress)
        record = EpochRecord(
            epoch=epoch,
            train_loss=loss,
            train_accuracy=accuracy,
            evaluation_loss=result.loss,
            evaluation_accuracy=result.accuracy.value,
            train_seconds=trained - started,
            evaluation_seconds=time.perf_counter() - trained,
        )
        on_epoch(record, result)


def evaluate_split(
    tuned: TunedNetwork,
    data: ImageData,
    conditions: Conditions,
    layer: FeatureLayer,
    progress: Progress,
) -> Evaluation:
    """Loss, accuracy and one layer's features of a split, in inference mode and in the order of the data."""
    tuned.eval()
    total = torch.zeros((), dtype=torch.float64, device=conditions.device)
    correct = torch.zeros((), dtype=torch.int64, device=conditions.device)
    features = torch.empty(len(data), layer.width)
    done = 0
    with torch.inference_mode(), autocast(conditions.precision, conditions.device):
        for images, labels in data.in_order(EVALUATION_BATCH_SIZE, conditions.device):
            with capture(tuned.network, [layer.path]) as outputs:
                logits = tuned.logits(images)
            total += summed_loss(logits, labels)
            correct += (prediction(logits, conditions.predict).argmax(1) == labels).sum()
            features[done : done + len(labels)] = pool_features(outputs[layer.path], layer).float().cpu()
            done += len(labels)
            progress.advance(len(labels))
    accuracy = measure(int(correct) / len(data), len(data))
    return Evaluation(_finite(float(total) / len(data), "evaluation"), accuracy, features)


def summed_loss(logits: tuple[Tensor, ...], labels: Tensor) -> Tensor:
    """Cross-entropy summed over the images and over the heads.

    >>> float(summed_loss((torch.zeros(3, 2), torch.zeros(3, 2)), torch.tensor([0, 1, 1])) / 3)
    1.386...
    """
    losses = [nn.functional.cross_entropy(part.float(), labels, reduction="sum") for part in logits]
    return torch.stack(losses).sum()


def prediction(logits: tuple[Tensor, ...], predict: Literal["cls", "mean"]) -> Tensor:
    """The logits that decide: those of the first head, or with ``mean`` the mean over the heads."""
    return logits[0] if predict == "cls" else torch.stack(logits).mean(0)


def measure(value: float, n: int) -> Measurement:
    """A proportion of ``n`` samples with its binomial standard error.

    >>> measure(0.5, 100).standard_error
    0.05
    """
    return Measurement(value=value, standard_error=math.sqrt(value * (1 - value) / n), n=n)


def batches(count: int, batch_size: int, seed: int, epoch: int) -> Iterator[NDArray[np.int64]]:
    """Indices of one epoch's batches, shuffled by seed and epoch.

    A single image left over joins the batch before it, since batch statistics of one image do not exist.

    >>> [len(batch) for batch in batches(65, 32, seed=0, epoch=1)]
    [32, 33]
    """
    order = np.random.default_rng((seed, epoch)).permutation(count)
    starts = list(range(0, count, batch_size))
    if len(starts) > 1 and count % batch_size == 1:
        starts.pop()
    for start, end in zip(starts, [*starts[1:], count], strict=True):
        yield order[start:end]


def _train_epoch(
    tuned: TunedNetwork,
    data: ImageData,
    training: Training,
    conditions: Conditions,
    optimizer: torch.optim.Optimizer,
    epoch: int,
    progress: Progress,
) -> tuple[float, float]:
    tuned.train()
    torch.manual_seed(_mix(conditions.seed, epoch))  # dropout draws the same numbers whatever came before
    total = torch.zeros((), dtype=torch.float64, device=conditions.device)
    correct = torch.zeros((), dtype=torch.int64, device=conditions.device)
    for indices in batches(len(data), training.batch_size, conditions.seed, epoch):
        images, labels = data.batch(indices, conditions.device)
        optimizer.zero_grad(set_to_none=True)
        with autocast(conditions.precision, conditions.device):
            logits = tuned.logits(images)
        loss = summed_loss(logits, labels)
        (loss / len(labels)).backward()
        optimizer.step()
        total += loss.detach()
        correct += (prediction(logits, conditions.predict).argmax(1) == labels).sum()
        progress.advance(len(labels))
    return _finite(float(total) / len(data), f"training, epoch {epoch}"), int(correct) / len(data)


def _optimizer(training: Training, parameters: object) -> torch.optim.Optimizer:
    return torch.optim.Adam(list(parameters), lr=training.learning_rate)  # type: ignore[call-overload]


def _mix(seed: int, epoch: int) -> int:
    return int(np.random.SeedSequence((seed, epoch)).generate_state(1, np.uint64)[0] >> 1)


def _finite(loss: float, where: str) -> float:
    if not math.isfinite(loss):
        raise ZooError(f"{where}: the loss is {loss}; lower --learning-rate, or check the weights and the data")
    return loss
