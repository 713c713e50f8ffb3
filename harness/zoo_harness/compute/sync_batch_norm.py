"""Apply BatchNorm, with the statistics of the whole batch, to a batch that is split over several processes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from zoo_harness.compute.distributed import Processes


class SharedBatchNorm(TorchFunctionMode):
    """Make BatchNorm in training mode use the mean and variance over the batches of all processes.

    All processes must run the same BatchNorm layers in the same order. ``counted`` is false if this process has no
    image of the batch, and runs a substitute image only to take part in the communication.

    torch's own ``SyncBatchNorm`` does not suffice, because it replaces modules and supports only GPUs.
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
        """Replace BatchNorm in training mode; call every other torch function unchanged."""
        if function is functional.batch_norm:
            function = self._batch_norm
        return function(*args, **(kwargs or {}))

    def _batch_norm(
        self,
        input: Tensor,  # noqa: A002 - torch's name, which callers may use as a keyword
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
        """Return mean and variance (C,) of values (B, C, ...) over all processes, and the count per channel."""
        others = [dimension for dimension in range(values.ndim) if dimension != 1]
        counts = float(self._counted)
        of_channel = values.new_tensor([counts * values.numel() / values.shape[1]])
        summed = _Sum.apply(torch.cat([values.sum(others) * counts, of_channel]), self._processes)
        count = summed[-1].detach()
        mean = summed[:-1] / count
        shape = [1, -1] + [1] * (values.ndim - 2)
        # Deviations from the mean are squared; squares of the values would lose digits if the mean is far from zero.
        squares = (values - mean.view(shape)).square().sum(others) * counts
        return mean, _Sum.apply(squares, self._processes) / count, count


class _Sum(torch.autograd.Function):
    """Sum a tensor over all processes; the gradient is the sum of all processes' gradients."""

    @staticmethod
    def forward(context: Any, values: Tensor, processes: Processes) -> Tensor:
        context.processes = processes
        total = values.clone()
        processes.add(total)
        return total

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return _Sum.forward(context, gradients[0], context.processes), None


@torch.no_grad()
def _update(running: Tensor | None, found: Tensor, momentum: float) -> None:
    if running is not None:
        running.lerp_(found.to(running.dtype), momentum)
