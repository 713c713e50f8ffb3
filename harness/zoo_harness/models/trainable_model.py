"""Combine a network with its training data and evaluation data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor

from zoo_harness.data.batches import Source
from zoo_harness.models.tuned_network import TunedNetwork


@dataclass(frozen=True)
class TrainableModel:
    """Combine a network, its training and evaluation batches, and the function that computes logits.

    ``logits`` computes one tensor of logits for each head from a batch's inputs. ``reaches`` returns whether ``logits``
    runs the module at a path. ``logits_in_training`` is an optional faster function, which is used only in training
    steps.
    """

    tuned: TunedNetwork
    train: Source
    evaluation: Source
    classes: int
    logits: Callable[[tuple[Tensor, ...]], tuple[Tensor, ...]]
    reaches: Callable[[str], bool] = field(default=lambda _path: True)
    logits_in_training: Callable[[tuple[Tensor, ...]], tuple[Tensor, ...]] | None = None

    @classmethod
    def whole(cls, tuned: TunedNetwork, train: Source, evaluation: Source, classes: int) -> TrainableModel:
        """Create a model that runs the whole network on images, without cached outputs."""
        return cls(tuned, train, evaluation, classes, lambda inputs: tuned.logits(inputs[0]))
