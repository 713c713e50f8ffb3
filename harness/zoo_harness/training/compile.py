"""Compile training steps with ``torch.compile``, and use the compiled steps only if a trial step succeeds.

Evaluation uses the uncompiled network. Code that registers hooks on layers also uses the uncompiled network, because a
compiled network does not call hooks.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from zoo_harness.compute.context import ComputeContext
from zoo_harness.compute.precision import autocast
from zoo_harness.frozen.partition.partition import Partition
from zoo_harness.frozen.partition.side_effects import one_line, preserve_state
from zoo_harness.models.trainable_model import TrainableModel
from zoo_harness.models.tuned_network import TunedNetwork

Logits = Callable[[tuple[Tensor, ...]], tuple[Tensor, ...]]
# The largest accepted difference between the gradients or logits of a compiled step and of an uncompiled step.
# TOLERANCE is relative to the largest value in the same tensor, because compiled code rounds sums differently than
# uncompiled code. ROUNDING is relative to the largest value in all tensors.
TOLERANCE = {"fp32": 1e-2, "bf16": 5e-2}
ROUNDING = 1e-6
_SEED = 20_261_122


def compiled(
    trainable: TrainableModel,
    partition: Partition | None,
    compute: ComputeContext,
    say: Callable[[str], None],
    warn: Callable[[str], None],
) -> TrainableModel:
    """Compile the model's training steps, or return the unchanged model if a compiled step fails a trial.

    ``partition``: the division of the network into a frozen prefix and a trained suffix; ``None`` if the network is not
    divided. The function calls ``say`` if compiling succeeds, and ``warn`` with the reason if compiling fails.
    """
    started = time.perf_counter()
    inputs, _labels = next(iter(trainable.train.in_order(4)))
    try:
        faster = _compiled_logits(trainable.tuned, partition)
        with preserve_state(trainable.tuned.network):
            fault = _fault(trainable, faster, inputs, compute)
    except Exception as error:  # the compiler may raise any exception
        fault = one_line(error)
    if fault is not None:
        warn(f"training steps are not compiled: {fault}")
        return trainable
    say(f"training steps are compiled; compiling took {time.perf_counter() - started:.1f} s")
    return replace(trainable, logits_in_training=faster)


def _compiled_logits(tuned: TunedNetwork, partition: Partition | None) -> Logits:
    suffix = None if partition is None else partition.suffix_module
    module = _compiled(suffix or tuned.network)

    def logits(inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        if partition is not None and suffix is not None:
            inputs = partition.restored(inputs)
        for tensor in inputs:
            torch._dynamo.maybe_mark_dynamic(tensor, 0)  # the batch size varies
        found = module(*inputs)
        return found if isinstance(found, tuple) else (found,)

    return logits


def _compiled(module: nn.Module) -> Callable[..., Any]:
    # With this option, compiled code draws the same random numbers for a seed as uncompiled code.
    result: Callable[..., Any] = torch.compile(module, options={"fallback_random": True})
    return result


def _fault(
    trainable: TrainableModel, faster: Logits, inputs: tuple[Tensor, ...], compute: ComputeContext
) -> str | None:
    """Describe the first difference between a compiled and an uncompiled step on the same inputs, if they differ."""
    expected = _outcome(trainable.tuned, trainable.logits, inputs, compute)
    found = _outcome(trainable.tuned, faster, inputs, compute)
    if found.keys() != expected.keys():
        names = found.keys() ^ expected.keys()
        return f"a compiled step has {len(found)} logits and gradients; expected {len(expected)}; see {min(names)}"
    reach = max(float(value.abs().amax()) for value in expected.values())
    for name, value in expected.items():
        # The gradient of a bias before BatchNorm consists only of rounding errors, because its terms cancel.
        allowed = TOLERANCE[compute.precision] * float(value.abs().amax()) + ROUNDING * reach
        largest = float((found[name] - value).abs().amax())
        if not largest <= allowed:
            return f"{name} differs by up to {largest:.2g} between a compiled and an uncompiled step"
    return None


def _outcome(
    tuned: TunedNetwork, logits: Logits, inputs: tuple[Tensor, ...], compute: ComputeContext
) -> dict[str, Tensor]:
    """Run one training step with a fixed seed, and return a dictionary of its named logits and gradients."""
    tuned.train()
    tuned.network.zero_grad(set_to_none=True)
    torch.manual_seed(_SEED)
    with autocast(compute.precision, compute.device):
        parts = logits(tuple(tensor.clone() for tensor in inputs))
    torch.stack([part.float().square().sum() for part in parts]).sum().backward()
    outcome = {f"head {place}": part.detach().float() for place, part in enumerate(parts)}
    return outcome | {
        f"the gradient of {name}": parameter.grad.float().clone()
        for name, parameter in tuned.trained_parameters().items()
        if parameter.grad is not None
    }
