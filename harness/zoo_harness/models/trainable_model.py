"""A network together with the data it trains on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor

from zoo_harness.data.batches import Source
from zoo_harness.models.tuned_network import TunedNetwork


@dataclass(frozen=True)
class TrainableModel:
    """A network that trains, the two splits it sees, and how their batches become logits, one tensor a head.

    ``reaches`` says of a module's path whether it runs when logits are computed so. ``logits_in_training`` is a faster
    way for the steps of training alone, if there is one.
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
        """The trainable that pushes images through the whole network."""
        return cls(tuned, train, evaluation, classes, lambda inputs: tuned.logits(inputs[0]))
