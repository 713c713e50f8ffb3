"""Batch statistics of a batch that several processes share: BatchNorm as if one process had all of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from zoo_harness.compute.distributed import Processes


class SharedBatchNorm(TorchFunctionMode):
    """While active, BatchNorm in training mode takes mean and variance over the batches of all processes.

    Every process must run the same such layers in the same order. ``counted`` says whether this one's batch counts:
    where a batch has fewer images than there are processes, some run one image for form's sake.

    Not torch's ``SyncBatchNorm``: that takes the place of modules, and runs on GPUs alone.
    """

    def __init__(self, processes: Processes, *, counted: bool) -> None:
        super().__init__()
        self._processes = processes
        self._counted = counted

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Do what the function does, BatchNorm in training mode apart."""
        if function is functional.batch_norm:
            return self._batch_norm(*args, **(kwargs or {}))
        return function(*args, **(kwargs or {}))

    def _batch_norm(
        self,
        input: Tensor,  # noqa: A002 - torch's name, by which it may be given
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> Tensor:
        if not training:
            return functional.batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)
        values = input.float() if input.dtype in (torch.float16, torch.bfloat16) else input
        mean, variance, count = self._statistics(values)
        _update(running_mean, mean, momentum)
        _update(running_var, variance * (count / (count - 1).clamp(min=1)), momentum)
        shape = [1, -1] + [1] * (input.ndim - 2)
        result = (values - mean.view(shape)) * (variance + eps).rsqrt().view(shape)
        if weight is not None:
            result = result * weight.view(shape)
        if bias is not None:
            result = result + bias.view(shape)
        return result.to(input.dtype)

    def _statistics(self, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mean and variance (C,) of values (B, C, ...) over all processes, and of how many of each channel."""
        others = [dimension for dimension in range(values.ndim) if dimension != 1]
        counts = float(self._counted)
        of_channel = values.new_tensor([counts * values.numel() / values.shape[1]])
        summed = _Sum.apply(torch.cat([values.sum(others) * counts, of_channel]), self._processes)
        count = summed[-1].detach()
        mean = summed[:-1] / count
        shape = [1, -1] + [1] * (values.ndim - 2)
        # Around the mean of all, not from sums of squares: those lose the digits of what lies far from zero.
        squares = (values - mean.view(shape)).square().sum(others) * counts
        return mean, _Sum.apply(squares, self._processes) / count, count


class _Sum(torch.autograd.Function):
    """The sum over all processes; a gradient comes from each of them."""

    @staticmethod
    def forward(context: Any, values: Tensor, processes: Processes) -> Tensor:
        context.processes = processes
        total = values.clone()
        processes.add(total)
        return total

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        total = gradients[0].clone()
        context.processes.add(total)
        return total, None


@torch.no_grad()
def _update(running: Tensor | None, found: Tensor, momentum: float) -> None:
    if running is not None:
        running.lerp_(found.to(running.dtype), momentum)
