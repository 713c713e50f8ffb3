"""A small network with two heads, and the digits to train and evaluate it on."""

from __future__ import annotations

import functools

import torch
from torch import Tensor, nn

from zoo import DualHead, FeatureLayer, Head, Preprocessing, Training, load_registry
from zoo.backbone import Tuning
from zoo_harness.data.loading import RunData, load_data
from zoo_harness.data.transform import BatchTransform
from zoo_harness.models.surgery import prepare
from zoo_harness.models.tuned_network import TunedNetwork
from zoo_harness.records.subset import Subset

LAYER = FeatureLayer("pool", 16, pool="flatten")
TRAINING = Training(epochs=2, learning_rate=1e-2)


@functools.cache
def load_digits() -> RunData:
    transform = BatchTransform(Preprocessing(input_size=(8, 8)))
    return load_data(load_registry().dataset("digits")[0], None, None, Subset(per_class=7), transform)


class Tiny(nn.Module):
    """Two convolutions with BatchNorm, the second with dropout after it, and two heads."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
        self.block = nn.Sequential(nn.Conv2d(8, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Dropout(dropout))
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(16, 10)
        self.other = nn.Linear(16, 10)

    def forward(self, images: Tensor) -> Tensor:
        features = self.pool(self.block(self.stem(images)))
        return (self.head(features) + self.other(features)) / 2


def tiny(*, dropout: float = 0.0, head: Head | DualHead = Head("head")) -> TunedNetwork:  # noqa: B008 - it is frozen
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        tuning = Tuning("default", ("block",), head, TRAINING, (FeatureLayer("block", 1),))
        return prepare(Tiny(dropout), tuning, 10, torch.rand(2, 3, 8, 8))


BOTH = DualHead(cls=Head("head"), dist=Head("other"))
