"""Describe a network that is prepared for fine-tuning, and count its parameters."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from zoo.errors import DeclarationError
from zoo_harness.models.modules import capture
from zoo_harness.records.run import ParametersRecord


@dataclass
class TunedNetwork:
    """Hold a network with a new head, and the paths of its heads and trained modules.

    ``modes`` maps every module path to whether the module is in training mode during training. ``moving``: the paths of
    the frozen BatchNorm layers that update their statistics during training.
    """

    network: nn.Module
    head_paths: tuple[str, ...]
    trained_paths: tuple[str, ...]
    modes: dict[str, bool] = field(default_factory=dict)
    moving: tuple[str, ...] = ()

    def train(self) -> None:
        """Set training or inference mode for each module, as ``modes`` specifies."""
        for name, module in self.network.named_modules():
            module.training = self.modes[name]

    def eval(self) -> None:
        """Set inference mode for all modules."""
        self.network.eval()

    def logits(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the logits ``(B, classes)`` of every head; the main head comes first."""
        with capture(self.network, self.head_paths) as outputs:
            self.network(images)
        if silent := [path for path in self.head_paths if path not in outputs]:
            raise DeclarationError(f"head {silent[0]!r} exists but never runs", code="head-unused", path=silent[0])
        return tuple(outputs[path] for path in self.head_paths)

    def trained_parameters(self) -> dict[str, nn.Parameter]:
        """Return the parameters that receive gradients, by name."""
        return {name: value for name, value in self.network.named_parameters() if value.requires_grad}


def has_batch_statistics(tuned: TunedNetwork) -> bool:
    """Whether a module in training mode normalises by the statistics of the current batch."""
    named = tuned.network.named_modules()
    return any(isinstance(module, nn.modules.batchnorm._NormBase) and tuned.modes[name] for name, module in named)


def count_parameters(tuned: TunedNetwork) -> ParametersRecord:
    """Count all parameters, and count and name the trained parameters; a network on the meta device suffices."""
    prefixes = tuple(f"{path}." for path in tuned.head_paths)
    trained = {name: parameter.numel() for name, parameter in tuned.trained_parameters().items()}
    return ParametersRecord(
        total=sum(parameter.numel() for parameter in tuned.network.parameters()),
        trained=sum(trained.values()),
        trained_without_head=sum(count for name, count in trained.items() if not name.startswith(prefixes)),
        trained_names=tuple(trained),
        moving_layers=len(tuned.moving),
        moving_buffers=sum(1 for path in tuned.moving for _buffer in tuned.network.get_submodule(path).buffers(False)),
    )


def prediction(logits: tuple[Tensor, ...], predict: Literal["cls", "mean"]) -> Tensor:
    """Return the class logits: the mean over all heads if ``predict`` is ``"mean"``, else the first head's logits."""
    return logits[0] if predict == "cls" else torch.stack(logits).mean(0)
