"""Log loss, learning rate and speed of every N-th training step, without a step that waits for the device."""

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
    """Collect every ``every``-th step and pass it on when the losses are on the host anyway; ``None`` logs none.

    ``write`` gets the steps since it was called before. Call :meth:`begin` at the start of an epoch, :meth:`add` after
    each step and :meth:`flush` when the device has been waited for.
    """

    every: int | None = None
    write: Callable[[tuple[StepRecord, ...]], None] = _ignore
    _device: torch.device = field(default=torch.device("cpu"), init=False)
    _since: Mark = field(default=0.0, init=False)
    _images: int = field(default=0, init=False)  # since the mark
    _pending: list[tuple[int, int, int, float, int, Mark]] = field(default_factory=list, init=False)

    def begin(self, device: torch.device) -> None:
        """Start to measure an epoch on a device."""
        if self.every is not None:
            self._device, self._images, self._pending = device, 0, []
            self._since = self._mark()

    def add(self, index: int, step: int, batch: int, rate: float) -> None:
        """Count a step of ``batch`` images: the ``index``-th of its epoch, and ``step`` of the run, both from 0."""
        if self.every is None:
            return
        self._images += batch
        if (step + 1) % self.every == 0:
            self._pending.append((index, step + 1, batch, rate, self._images, self._mark()))
            self._images = 0

    def flush(self, losses: Tensor, epoch: int) -> None:
        """Pass on the steps since the last call; ``losses`` (steps of the epoch) are sums over the images of a batch.

        Steps whose loss is not finite are left out, because no record can hold them: the run fails at the first one.
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
        self.write(tuple(each for each in steps if each.loss < float("inf")))  # false for NaN, too

    def _mark(self) -> Mark:
        if self._device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)  # the host runs ahead of the device, so its clock says nothing
        event.record()
        return event


def _seconds(start: Mark, end: Mark) -> float:
    if isinstance(start, float) or isinstance(end, float):
        return float(end) - float(start)  # type: ignore[arg-type]
    return float(start.elapsed_time(end)) / 1000


def _rounded(value: float) -> float:
    """Round to the digits of a float32."""
    return float(f"{value:.7g}")
