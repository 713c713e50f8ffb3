"""Train the trainable part of a network epoch by epoch, and evaluate the network after each epoch.

A trainable model computes logits from images with the whole network, or from cached outputs of the frozen layers with
the remaining layers. A training step does not wait for a GPU. Losses and counts stay in GPU memory, and the losses are
checked every 64 steps.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from zoo.backbone import FeatureLayer, Training
from zoo.errors import UsageError
from zoo_harness.compute.context import ComputeContext
from zoo_harness.compute.precision import autocast
from zoo_harness.compute.sync_batch_norm import SharedBatchNorm
from zoo_harness.evaluation.split_evaluation import SplitEvaluation, evaluate_split, loss_not_finite
from zoo_harness.models.trainable_model import TrainableModel
from zoo_harness.models.tuned_network import TunedNetwork, has_batch_statistics, prediction
from zoo_harness.records.run import EpochRecord
from zoo_harness.training.optimizer import TrainingLoss, learning_rate, make_optimizer
from zoo_harness.training.state import TrainingProgress, TrainingState
from zoo_harness.training.step_log import StepLog
from zoo_harness.util.progress import Progress

STEPS_BETWEEN_CHECKS = 64  # checking the losses after every step would slow down a GPU


@dataclass
class Trainer:
    """Train a network from the epoch in its training state to the last epoch; evaluate the network after each epoch.

    ``on_epoch``: a function that receives, after each epoch, the record of the epoch and the result of its evaluation.
    ``layer``: the layer whose features are collected in the evaluation after the last epoch. ``evaluation_split``: the
    name of the evaluated split. The order of the images depends only on the seed and the epoch.
    """

    trainable: TrainableModel
    training: Training
    compute: ComputeContext
    state: TrainingState
    layer: FeatureLayer | None
    on_epoch: Callable[[EpochRecord, SplitEvaluation], None]
    progress: Progress
    evaluation_split: str | None = None
    log: StepLog = field(default_factory=StepLog)
    _loss: TrainingLoss = field(init=False)
    _parameters: tuple[nn.Parameter, ...] = field(init=False)
    _sharing_statistics: bool = field(init=False)

    def __post_init__(self) -> None:
        if self.training.epochs and len(self.trainable.train) < 2:
            images = len(self.trainable.train)
            message = f"too few images to train: {images}; expected at least 2"
            raise UsageError(message, code="too-few-images", images=images)
        self._loss = TrainingLoss(self.training, self.trainable.train.labels, self.trainable.classes)
        self._parameters = tuple(self.trainable.tuned.trained_parameters().values())
        self._sharing_statistics = self.compute.processes.is_distributed and has_batch_statistics(self.trainable.tuned)

    def run(self) -> None:
        """Train all remaining epochs. Raises :class:`~zoo.errors.ZooError` if the loss is not finite."""
        while self.state.progress.epoch < self.training.epochs and not self._patience_is_over():
            epoch = self.state.progress.epoch + 1
            started = time.perf_counter()
            self.progress.stage(f"epoch {epoch}/{self.training.epochs}: training", len(self.trainable.train))
            loss, accuracy = self._train(epoch)
            trained = time.perf_counter()
            self.progress.stage(f"epoch {epoch}/{self.training.epochs}: evaluating", len(self.trainable.evaluation))
            layer = self.layer if epoch == self.training.epochs and self.training.keep == "last" else None
            result = evaluate_split(self.trainable, self.trainable.evaluation, self.compute, layer, self.progress)
            record = EpochRecord(
                epoch=epoch,
                train_loss=loss,
                train_accuracy=accuracy,
                evaluation_loss=result.loss,
                evaluation_accuracy=result.accuracy.value,
                train_seconds=trained - started,
                evaluation_seconds=time.perf_counter() - trained,
                evaluation_split=self.evaluation_split,
            )
            self.state.end_epoch(record, keep_best=self.training.keep != "last")
            self.on_epoch(record, result)

    def _patience_is_over(self) -> bool:
        best, patience = self.state.progress.best, self.training.patience
        return patience is not None and best is not None and self.state.progress.epoch - best.epoch >= patience

    def _train(self, epoch: int) -> tuple[float, float]:
        trainable, compute, count = self.trainable, self.compute, len(self.trainable.train)
        trainable.tuned.train()
        # Random numbers depend only on seed, epoch and process, so that dropout in a resumed run is the same as in an
        # uninterrupted run.
        entropy = (compute.seed, epoch, compute.processes.rank) if compute.processes.rank else (compute.seed, epoch)
        torch.manual_seed(int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> 1))
        plan = list(batches(count, self.training.batch_size, compute.seed, epoch))
        losses = torch.zeros(len(plan), dtype=torch.float64, device=compute.device)
        correct = torch.zeros((), dtype=torch.int64, device=compute.device)
        last_checked, first = 0, (epoch - 1) * len(plan)
        self.log.begin(compute.device)
        for step, (inputs, labels) in enumerate(trainable.train.epoch(epoch, plan)):
            rate = learning_rate(self.training, first + step, len(plan))
            losses[step], count_correct = self._step(inputs, labels, len(plan[step]), rate)
            correct += count_correct
            self.log.add(step, first + step, len(plan[step]), rate)
            self.progress.advance(len(plan[step]))
            if step - last_checked == STEPS_BETWEEN_CHECKS - 1 or step == len(plan) - 1:
                compute.processes.add(losses[last_checked : step + 1])
                self.log.flush(losses, epoch)
                _check_finite(losses[: step + 1], epoch)
                last_checked = step + 1
        compute.processes.add(correct)
        return float(losses.sum()) / count, int(correct) / count

    def _step(self, inputs: tuple[Tensor, ...], labels: Tensor, images: int, rate: float) -> tuple[Tensor, Tensor]:
        """Train on this process's share of a batch, and return the summed loss and the number of correct predictions.

        ``images``: the number of images in the whole batch.
        """
        for group in self.state.optimizer.param_groups:
            group["lr"] = rate
        self.state.optimizer.zero_grad(set_to_none=True)
        processes = self.compute.processes
        statistics = SharedBatchNorm(processes, counted=len(labels) > 0) if self._sharing_statistics else nullcontext()
        logits_of = self.trainable.logits_in_training or self.trainable.logits
        with statistics, autocast(self.compute.precision, self.compute.device):
            logits = tuple(part[: len(labels)] for part in logits_of(inputs))
        loss = self._loss(logits, labels)
        (loss / images).backward()
        processes.add_gradients(self._parameters)
        self.state.optimizer.step()
        return loss.detach(), (prediction(logits, self.compute.predict).argmax(1) == labels).sum()


def starting_state(tuned: TunedNetwork, training: Training, run: str = "") -> TrainingState:
    """Return the training state before the first epoch. ``run``: the digest that identifies the run."""
    optimizer = make_optimizer(training, tuned.trained_parameters().values())
    return TrainingState(tuned, optimizer, TrainingProgress(), {}, run)


def batches(count: int, batch_size: int, seed: int, epoch: int) -> Iterator[NDArray[np.int64]]:
    """Yield the image indices of each batch of an epoch, in an order that depends only on seed and epoch.

    If only one image remains for the last batch, the image is added to the previous batch, because batch statistics
    need at least two images.

    >>> [len(batch) for batch in batches(65, 32, seed=0, epoch=1)]
    [32, 33]
    """
    order = np.random.default_rng((seed, epoch)).permutation(count)
    starts = list(range(0, count, batch_size))[: steps_per_epoch(count, batch_size)]
    for start, end in zip(starts, [*starts[1:], count], strict=True):
        yield order[start:end]


def steps_per_epoch(count: int, batch_size: int) -> int:
    """Return the number of batches that :func:`batches` yields.

    >>> steps_per_epoch(65, 32), steps_per_epoch(66, 32)
    (2, 3)
    """
    whole, rest = divmod(count, batch_size)
    return max(1, whole + (rest > 1)) if count else 0


def divergence(history: Sequence[EpochRecord], guessing: float) -> str | None:
    """Return a warning if the last epoch is far worse than random guessing, which means that training has diverged.

    ``guessing``: the loss of random guessing. Training has diverged if the training loss of the last epoch exceeds five
    times ``guessing``. Training has also diverged if the training loss of the last epoch exceeds both ``guessing`` and
    three times the training loss of the first epoch. An evaluation loss above a hundred times ``guessing`` counts as
    divergence too, because overfitting alone does not cause so large a loss.

    >>> last = EpochRecord.model_construct(epoch=2, train_loss=1e16, evaluation_loss=2)
    >>> divergence([last], 2.3)
    'the training diverged: the training loss of epoch 2 is 1e+16; guessing has 2.3; try a lower --learning-rate'
    >>> divergence([], 2.3) is None
    True
    """
    if not history:
        return None
    first, last = history[0], history[-1]
    faults = []
    if last.train_loss > 5 * guessing or last.train_loss > max(guessing, 3 * first.train_loss):
        faults.append(("training", last.train_loss))
    if last.evaluation_loss > 100 * guessing:
        faults.append(("evaluation", last.evaluation_loss))
    if not faults:
        return None
    losses = ", ".join(f"the {name} loss of epoch {last.epoch} is {loss:.3g}" for name, loss in faults)
    return f"the training diverged: {losses}; guessing has {guessing:.2g}; try a lower --learning-rate"


def _check_finite(losses: Tensor, epoch: int) -> None:
    finite = losses.isfinite()
    if not bool(finite.all()):
        batch = int(finite.logical_not().nonzero()[0])
        raise loss_not_finite(f"training, epoch {epoch}, batch {batch + 1}", float(losses[batch]))
