"""The training loop: the block that thaws and the head learn, the rest stands still.

``fine_tune`` takes a learner, which says how a batch becomes logits: through the whole network, or, from what its
frozen part gave, through the tail alone. Nothing in a step waits for the device: losses and counts stay there, and are
looked at now and then.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from zoo.backbone import FeatureLayer, Training
from zoo.errors import UsageError, ZooError
from zoo_harness.batch_statistics import SharedBatchNorm, has_batch_statistics
from zoo_harness.choices import KeptAs
from zoo_harness.device import autocast
from zoo_harness.features import pool_features
from zoo_harness.optimization import TrainingLoss, learning_rate, make_optimizer
from zoo_harness.processes import ALONE, Processes
from zoo_harness.run_record import EpochRecord, Measurement
from zoo_harness.sources import Source
from zoo_harness.surgery import TunedNetwork, capture
from zoo_harness.training_state import Standing, TrainingState

EVALUATION_BATCH_SIZE = 32
LOOKED_AT = 64  # steps between two looks at the losses, each of which waits for the device


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
    deterministic: bool = False
    compiled: bool = False
    kept_as: KeptAs = "exact"
    processes: Processes = ALONE


@dataclass(frozen=True)
class Evaluation:
    """One pass over a split in inference mode: mean loss, accuracy, and the features ``(N, D)`` of a layer, if any.

    ``predictions``: (N,) int64 on the device, the class that each image was taken for. ``by_other_rule``: of two heads,
    the accuracy of the mean where the first decides, and of the first where the mean does.
    """

    loss: float
    accuracy: Measurement
    features: Tensor | None
    predictions: Tensor
    by_other_rule: Measurement | None = None

    @property
    def collected(self) -> Tensor:
        """The features, of a pass that was asked for them."""
        assert self.features is not None  # noqa: S101 - the caller has asked
        return self.features


@dataclass(frozen=True)
class Learner:
    """A network that trains, the two splits it sees, and how their batches become logits, one tensor a head.

    ``reaches`` says of a module's path whether it runs when logits are computed so. ``logits_in_training`` is a faster
    way for the steps of training alone, if there is one.
    """

    tuned: TunedNetwork
    train: Source
    evaluation: Source
    classes: int
    logits: Callable[[tuple[Tensor, ...]], tuple[Tensor, ...]]
    reaches: Callable[[str], bool] = field(default=lambda _path: True)
    logits_in_training: Callable[[tuple[Tensor, ...]], tuple[Tensor, ...]] | None = None

    @classmethod
    def whole(cls, tuned: TunedNetwork, train: Source, evaluation: Source, classes: int) -> Learner:
        """The learner that pushes images through the whole network."""
        return cls(tuned, train, evaluation, classes, lambda inputs: tuned.logits(inputs[0]))


@dataclass
class FineTuning:
    """Training from wherever ``state`` stands to the last epoch, evaluating after each.

    ``on_epoch`` gets each record as it is made; ``layer`` is the one whose features the last evaluation collects.
    The order of the images depends on the seed and the epoch alone.
    """

    learner: Learner
    training: Training
    conditions: Conditions
    state: TrainingState
    layer: FeatureLayer | None
    on_epoch: Callable[[EpochRecord, Evaluation], None]
    progress: Progress
    _loss: TrainingLoss = field(init=False)
    _parameters: tuple[nn.Parameter, ...] = field(init=False)
    _sharing_statistics: bool = field(init=False)

    def __post_init__(self) -> None:
        if self.training.epochs and len(self.learner.train) < 2:
            raise UsageError(f"training needs at least 2 images, given {len(self.learner.train)}")
        self._loss = TrainingLoss(self.training, self.learner.train.labels, self.learner.classes)
        self._parameters = tuple(self.learner.tuned.trained_parameters().values())
        self._sharing_statistics = self.conditions.processes.several and has_batch_statistics(self.learner.tuned)

    def run(self) -> None:
        """Train; raises :class:`~zoo.errors.ZooError` when the loss is no longer finite."""
        while self.state.standing.epoch < self.training.epochs and not self._patience_is_over():
            epoch = self.state.standing.epoch + 1
            started = time.perf_counter()
            self.progress.stage(f"epoch {epoch}/{self.training.epochs}: training", len(self.learner.train))
            loss, accuracy = self._train(epoch)
            trained = time.perf_counter()
            self.progress.stage(f"epoch {epoch}/{self.training.epochs}: evaluating", len(self.learner.evaluation))
            layer = self.layer if epoch == self.training.epochs and self.training.keep == "last" else None
            result = evaluate(self.learner, self.learner.evaluation, self.conditions, layer, self.progress)
            record = EpochRecord(
                epoch=epoch,
                train_loss=loss,
                train_accuracy=accuracy,
                evaluation_loss=result.loss,
                evaluation_accuracy=result.accuracy.value,
                train_seconds=trained - started,
                evaluation_seconds=time.perf_counter() - trained,
            )
            self.state.end_epoch(record, keep_best=self.training.keep == "best")
            self.on_epoch(record, result)

    def _patience_is_over(self) -> bool:
        standing, patience = self.state.standing, self.training.patience
        best = standing.best
        return patience is not None and best is not None and standing.epoch - best.epoch >= patience

    def _train(self, epoch: int) -> tuple[float, float]:
        learner, conditions, count = self.learner, self.conditions, len(self.learner.train)
        learner.tuned.train()
        # Dropout draws the same numbers whatever came before; several processes drop different ones.
        torch.manual_seed(_mix(conditions.seed, epoch, conditions.processes.rank))
        plan = list(batches(count, self.training.batch_size, conditions.seed, epoch))
        losses = torch.zeros(len(plan), dtype=torch.float64, device=conditions.device)
        correct = torch.zeros((), dtype=torch.int64, device=conditions.device)
        looked_at = 0
        for step, (inputs, labels) in enumerate(learner.train.epoch(epoch, plan)):
            rate = learning_rate(self.training, (epoch - 1) * len(plan) + step, len(plan))
            losses[step], right = self._step(inputs, labels, len(plan[step]), rate)
            correct += right
            self.progress.advance(len(plan[step]))
            if step - looked_at == LOOKED_AT - 1 or step == len(plan) - 1:
                conditions.processes.add(losses[looked_at : step + 1])
                _refuse_infinite(losses[: step + 1], epoch)
                looked_at = step + 1
        conditions.processes.add(correct)
        return float(losses.sum()) / count, int(correct) / count

    def _step(self, inputs: tuple[Tensor, ...], labels: Tensor, images: int, rate: float) -> tuple[Tensor, Tensor]:
        """One step on this process's part of a batch of so many images: its loss and right answers, summed."""
        for group in self.state.optimizer.param_groups:
            group["lr"] = rate
        self.state.optimizer.zero_grad(set_to_none=True)
        processes = self.conditions.processes
        statistics = SharedBatchNorm(processes, counted=len(labels) > 0) if self._sharing_statistics else nullcontext()
        logits_of = self.learner.logits_in_training or self.learner.logits
        with statistics, autocast(self.conditions.precision, self.conditions.device):
            logits = tuple(part[: len(labels)] for part in logits_of(inputs))
        loss = self._loss(logits, labels)
        (loss / images).backward()
        processes.add_gradients(self._parameters)
        self.state.optimizer.step()
        return loss.detach(), (prediction(logits, self.conditions.predict).argmax(1) == labels).sum()


def starting_state(tuned: TunedNetwork, training: Training) -> TrainingState:
    """Where a run stands that has not begun."""
    optimizer = make_optimizer(training, tuned.trained_parameters().values())
    return TrainingState(tuned, optimizer, Standing(), {})


def evaluate(
    learner: Learner, source: Source, conditions: Conditions, layer: FeatureLayer | None, progress: Progress
) -> Evaluation:
    """Loss, accuracy and perhaps one layer's features of a split, in inference mode and in the order of the data.

    Of several processes the first has the features and predictions of all images.
    """
    learner.tuned.eval()
    total = torch.zeros((), dtype=torch.float64, device=conditions.device)
    correct, otherwise = torch.zeros(2, dtype=torch.int64, device=conditions.device)
    other_rule: Literal["cls", "mean"] = "mean" if conditions.predict == "cls" else "cls"
    processes = conditions.processes
    share = len(processes.share(len(source)))
    predictions = torch.empty(share, dtype=torch.int64, device=conditions.device)
    features = torch.empty(share, layer.width) if layer else None
    paths = [layer.path] if layer else []
    two_heads = len(learner.tuned.head_paths) > 1
    done = 0
    with torch.inference_mode(), autocast(conditions.precision, conditions.device):
        for inputs, labels in source.in_order(EVALUATION_BATCH_SIZE):
            with capture(learner.tuned.network, paths) as outputs:
                logits = learner.logits(inputs)
            total += summed_loss(logits, labels)
            taken_for = prediction(logits, conditions.predict).argmax(1)
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
        raise ZooError(f"evaluation: {_not_finite(loss)}")
    by_other_rule = measure(int(otherwise) / len(source), len(source)) if two_heads else None
    return Evaluation(loss, measure(int(correct) / len(source), len(source)), features, predictions, by_other_rule)


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
    starts = list(range(0, count, batch_size))[: steps_per_epoch(count, batch_size)]
    for start, end in zip(starts, [*starts[1:], count], strict=True):
        yield order[start:end]


def steps_per_epoch(count: int, batch_size: int) -> int:
    """How many batches :func:`batches` makes of so many images.

    >>> steps_per_epoch(65, 32), steps_per_epoch(66, 32)
    (2, 3)
    """
    whole, rest = divmod(count, batch_size)
    return max(1, whole + (rest > 1)) if count else 0


def _mix(seed: int, epoch: int, rank: int) -> int:
    entropy = (seed, epoch, rank) if rank else (seed, epoch)
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> 1)


def _refuse_infinite(losses: Tensor, epoch: int) -> None:
    finite = losses.isfinite()
    if not bool(finite.all()):
        batch = int(finite.logical_not().nonzero()[0])
        raise ZooError(f"training, epoch {epoch}, batch {batch + 1}: {_not_finite(float(losses[batch]))}")


def _not_finite(loss: float) -> str:
    return f"the loss is {loss}; lower --learning-rate, or check the weights and the data"
