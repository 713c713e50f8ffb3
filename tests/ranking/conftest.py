"""The example of the published definitions: 60 samples of 3 classes, with 8 or 100 features and 5 source classes."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest

from zoo_harness.ranking.moments import Moments


class Example(NamedTuple):
    """Features (N, D), labels (N,) and source logits (N, S)."""

    features: Any
    labels: Any
    logits: Any

    @property
    def moments(self) -> Moments:
        """The sums over the features."""
        return Moments.of(self.features, self.labels)


def example(width: int) -> Example:
    """Draw the example with a number of features."""
    random = np.random.default_rng(0)
    labels = np.arange(60) % 3
    features = random.normal(size=(3, width))[labels] + random.normal(size=(60, width))
    return Example(features, labels, features @ random.normal(size=(width, 5)))


@pytest.fixture
def narrow() -> Example:
    """More samples than features."""
    return example(8)


@pytest.fixture
def wide() -> Example:
    """Fewer samples than features."""
    return example(100)
