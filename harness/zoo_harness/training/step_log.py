"""Log the loss, the learning rate and the speed of every N-th training step, without making steps wait for a GPU."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from zoo_harness.records.steps import StepRecord

Mark = float | torch.cuda.Event


def _ignore(_steps: tuple[StepRecord, ...]) -> None:
    pass


@dataclass
class StepLog:
    """Collect a record of every N-th training step, and pass the records to a function.

    ``every``: the number N; ``None`` turns the log off. ``write``: a function that receives the records collected since
    it was last called. Call :meth:`begin` at the start of an epoch, and :meth:`add` after each step. Call :meth:`flush`
    only when the caller waits for the GPU anyway, because reading losses waits for the GPU.
    """

    every: int | None = None
    write: Callable[[tuple[StepRecord, ...]], None] = _ignore
    _device: torch.device = field(default=torch.device("cpu"), init=False)
    _since: Mark = field(default=0.0, init=False)
    _images: int = field(default=0, init=False)  # number of images since the last logged step
    _pending: list[tuple[int, int, int, float, int, Mark]] = field(default_factory=list, init=False)

    def begin(self, device: torch.device) -> None:
        """Start measuring the time of an epoch's steps on the given device."""
        if self.every is not None:
            self._device, self._images, self._pending = device, 0, []
            self._since = self._mark()

    def add(self, index: int, step: int, batch: int, rate: float) -> None:
        """Register a step that was trained on ``batch`` images.

        ``index``: the number of the step in its epoch, from 0. ``step``: the number of the step in the run, from 0.
        """
        if self.every is None:
            return
        self._images += batch
        if (step + 1) % self.every == 0:
            self._pending.append((index, step + 1, batch, rate, self._images, self._mark()))
            self._images = 0

    def flush(self, losses: Tensor, epoch: int) -> None:
        """Call ``write`` with a record of each logged step that has not been written yet.

        ``losses``: for each step of the epoch, the loss summed over the images of the batch. Steps with a loss that is
        not finite get no record. The run stops with an error at the first step whose loss is not finite.
        """
        if not self._pending:
            return
        sums, steps = losses[[index for index, *_rest in self._pending]].tolist(), []
        for (_index, step, batch, rate, images, mark), loss in zip(self._pending, sums, strict=True):
            seconds, self._since = max(_seconds(self._since, mark), 1e-9), mark
            steps.append(
                StepRecord.model_construct(
                    step=step,
                    epoch=epoch,
                    loss=_rounded(loss / batch),
                    learning_rate=rate,
                    images_per_second=_rounded(images / seconds),
                )
            )
        self._pending = []
        self.write(tuple(each for each in steps if each.loss < float("inf")))  # the comparison is also false for NaN

    def _mark(self) -> Mark:
        if self._device.type != "cuda":
            return time.perf_counter()
        # The clock of the host cannot time a GPU, because the host only queues the steps that the GPU runs later.
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event


def _seconds(start: Mark, end: Mark) -> float:
    if isinstance(start, float) or isinstance(end, float):
        return float(end) - float(start)  # type: ignore[arg-type]
    return float(start.elapsed_time(end)) / 1000


def _rounded(value: float) -> float:
    """Round to seven significant digits, the precision of a float32."""
    return float(f"{value:.7g}")
