"""A network together with the data it trains on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor

from zoo_harness.data.batches import Source
from zoo_harness.models.tuned_network import TunedNetwork


@dataclass(frozen=True)
class TrainableModel:
    """A network, its training and evaluation split, and the function from a batch's inputs to logits, one per head.

    ``reaches`` returns whether ``logits`` runs the module at a path. ``logits_in_training``: a faster function for
    training steps alone, if there is one.
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
        """Make the model that runs the whole network on images."""
        return cls(tuned, train, evaluation, classes, lambda inputs: tuned.logits(inputs[0]))
