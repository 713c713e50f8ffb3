"""The checks of each process in tests/compute/test_distributed.py, which starts this script with torchrun.

The first process writes the results to a file. Every comparison is with one process alone.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
from test_frozen_features import NETWORKS, RESNET, planned
from torch import Tensor
from torch.nn import functional

from zoo import Backbone, Training
from zoo_harness.compute.distributed import Processes, joined
from zoo_harness.compute.sync_batch_norm import SharedBatchNorm
from zoo_harness.evaluation.split_evaluation import evaluate_split
from zoo_harness.frozen.cache.placement import CachePolicy
from zoo_harness.runs.frozen_features import open_trainable_model, whole_network
from zoo_harness.runs.plan import RunPlan
from zoo_harness.training.loop import Trainer, starting_state
from zoo_harness.util.progress import Silence

SGD = Training(epochs=2, learning_rate=1e-2, batch_size=7, optimizer="sgd", momentum=0.9)  # 24 images: the last are 3
NORMALISED = (6, 4, 3, 3)


def main(folder: Path, out: Path) -> None:
    """Run every check in every process."""
    with joined() as processes:
        found = {
            "collectives": collectives(processes),
            "batch_norm": batch_norm(processes),
            "without_images": without_images(processes),
            "runs": {
                f"{backbone.network.name.partition('.')[0]}, {cache}": differences(processes, folder, backbone, cache)
                for backbone in NETWORKS
                for cache in ("host", "off")
            },
            "tiny_batches": differences(processes, folder, RESNET, "host", replace(SGD, batch_size=2)),
            "views": differences(processes, folder, RESNET, "host", replace(SGD, augment=("crop", "flip"), views=2)),
            "augmented": differences(processes, folder, RESNET, "host", replace(SGD, augment=("crop", "rotate"))),
            "balanced": differences(processes, folder, RESNET, "disk", replace(SGD, class_weights="balanced")),
            "frozen_batchnorm": differences(processes, folder, RESNET, "off", frozen_batchnorm="train"),
            "one_without_room": one_without_room(processes, folder),
            "not_finite": not_finite(processes, folder),
        }
        if processes.is_main:
            out.write_text(json.dumps(found))


def collectives(processes: Processes) -> list[object]:
    """Everybody's share of 5, the rows of all, what the first one says, and whether anybody is the last."""
    own = processes.share(5)
    rows = processes.gather(torch.arange(own.start, own.stop).repeat_interleave(2).view(-1, 2))
    last = processes.any(processes.rank == processes.count - 1)
    return [rows.tolist(), processes.broadcast(f"rank {processes.rank}"), last, processes.sum(processes.rank + 1)]


def batch_norm(processes: Processes) -> float:
    """How far outputs, gradients and running statistics are from those of the whole batch, in float64."""
    torch.manual_seed(1)
    images = 5 + 3 * torch.randn(NORMALISED, dtype=torch.float64)
    weight, bias, target = torch.rand(4).double(), torch.rand(4).double(), torch.randn(NORMALISED).double()
    own = processes.share(len(images))
    with SharedBatchNorm(processes, counted=True):
        found = _normalised(images[own.start : own.stop], weight, bias, target[own.start : own.stop])
    for gradient in found[1:3]:
        processes.add(gradient)
    output, input_gradient = processes.gather(found[0]), processes.gather(found[5])
    expected = _normalised(images, weight, bias, target)
    if not processes.is_main:
        return 0.0
    pairs = [(output, expected[0]), (input_gradient, expected[5]), *zip(found[1:5], expected[1:5], strict=True)]
    return max(_relative(*pair) for pair in pairs)


def without_images(processes: Processes) -> float:
    """The same, where only the first process has images and the others run one for form's sake."""
    torch.manual_seed(2)
    images, target = torch.randn(NORMALISED).double(), torch.randn(NORMALISED).double()
    weight, bias = torch.rand(4).double(), torch.rand(4).double()
    own = images if processes.is_main else images[:1] + 100
    with SharedBatchNorm(processes, counted=processes.is_main):
        found = _normalised(own, weight, bias, target if processes.is_main else torch.zeros_like(own))
    pairs = zip(found[3:5], _normalised(images, weight, bias, target)[3:5], strict=True)
    return max(_relative(*pair) for pair in pairs)


def _normalised(images: Tensor, weight: Tensor, bias: Tensor, target: Tensor) -> list[Tensor]:
    """Output, gradients of weight and bias, running mean and variance, gradient of the input."""
    inputs, scale, shift = (tensor.clone().requires_grad_() for tensor in (images, weight, bias))
    running = [torch.zeros(4).double(), torch.ones(4).double()]
    output = functional.batch_norm(inputs, *running, scale, shift, training=True, momentum=0.3)
    (output * target).sum().backward()
    assert inputs.grad is not None
    assert scale.grad is not None
    assert shift.grad is not None
    return [output.detach(), scale.grad, shift.grad, *running, inputs.grad]


def differences(
    processes: Processes,
    folder: Path,
    backbone: Backbone,
    cache: str,
    training: Training = SGD,
    frozen_batchnorm: Literal["eval", "train"] = "eval",
) -> dict[str, float]:
    """How far all together are from one alone: weights and buffers, losses, features of the evaluation split."""
    together = _shared_by(processes, planned(backbone, training, frozen_batchnorm=frozen_batchnorm))
    history, features, tensors = _trained(together, CachePolicy(cache, folder=folder / "together"))  # type: ignore[arg-type]
    alone = planned(backbone, training, frozen_batchnorm=frozen_batchnorm)
    policy = CachePolicy(cache, folder=folder / f"alone{processes.rank}")  # type: ignore[arg-type]
    expected_history, expected_features, expected = _trained(alone, policy)
    if not processes.is_main:
        return {}
    return {
        "weights": max(_relative(tensors[name], value) for name, value in expected.items()),
        "losses": max(abs(a - b) / b for a, b in zip(history, expected_history, strict=True)),
        "features": _relative(features, expected_features),
    }


def one_without_room(processes: Processes, folder: Path) -> list[str]:
    """The messages if one process alone cannot keep the outputs: the whole network must train in all."""
    policy = CachePolicy("auto", folder=folder / "room", budget=10**9 if processes.is_main else 0)
    policy = replace(policy, limit=policy.limit if processes.is_main else 1)
    lines: list[str] = []
    with open_trainable_model(_shared_by(processes, planned()), policy, Silence(), lines.append) as (_trainable, made):
        return [made.reason or "", *lines]


def not_finite(processes: Processes, folder: Path) -> str:
    """The error of the first process if the head of the other one alone is broken."""
    prepared = _shared_by(processes, planned())
    if not processes.is_main:
        with torch.no_grad():
            prepared.tuned.network.get_parameter("fc.weight").fill_(float("inf"))
    try:
        _trained(prepared, CachePolicy("off", folder=folder))
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"


def _shared_by(processes: Processes, plan: RunPlan) -> RunPlan:
    compute = replace(plan.request.compute, processes=processes)
    return replace(plan, request=replace(plan.request, compute=compute))


def _trained(plan: RunPlan, policy: CachePolicy) -> tuple[list[float], Tensor, dict[str, Tensor]]:
    losses: list[float] = []
    request = plan.request
    with open_trainable_model(plan, policy, Silence(), lambda _line: None) as (trainable, _made):
        state = starting_state(plan.tuned, request.training)
        tuning = Trainer(
            trainable,
            request.training,
            request.compute,
            state,
            None,
            lambda epoch, _result: losses.extend((epoch.train_loss, epoch.evaluation_loss)),
            Silence(),
        )
        tuning.run()
        whole = whole_network(plan)  # the layer may be one of the frozen part
        result = evaluate_split(whole, whole.evaluation, request.compute, request.layer, Silence())
    return losses, result.collected, plan.tuned.network.state_dict()


def _relative(found: Tensor, expected: Tensor) -> float:
    if found.shape != expected.shape:
        return float("inf")
    return float((found.double() - expected.double()).abs().max() / expected.double().abs().max().clamp(min=1e-6))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
