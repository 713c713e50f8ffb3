"""A network and images small enough to train in a second, runs of them, and a reporter that presses Ctrl-C."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits

import zoo
from zoo import Backbone, Dataset
from zoo_harness.records.run import EpochRecord
from zoo_harness.runs.reporter import LoggingReporter


class InterruptingReporter(LoggingReporter):
    """A reporter that presses Ctrl-C after an epoch, or when a stage begins."""

    def __init__(self, epoch: int = 0, stage: str = "") -> None:
        self.epoch, self.beginning = epoch, stage

    def stage(self, name: str, images: int) -> None:  # noqa: ARG002
        """Interrupt."""
        if self.beginning and name.startswith(self.beginning):
            raise KeyboardInterrupt

    def on_epoch(self, epoch: EpochRecord) -> None:
        """Interrupt."""
        if epoch.epoch == self.epoch:
            raise KeyboardInterrupt


@pytest.fixture(scope="session")
def scans() -> Callable[..., Dataset]:
    """Real scans in memory, from the first or a later one on."""
    found = load_digits()
    images, labels = (found.images * 15).astype(np.uint8), found.target

    def some(first: int = 0) -> Dataset:
        train, test = slice(first, first + 80), slice(80, 120)
        return zoo.in_memory(images[train], labels[train], test=(images[test], labels[test]), name="scans")

    return some


@pytest.fixture(scope="session")
def digits(scans: Callable[..., Dataset]) -> Dataset:
    return scans()


@pytest.fixture(scope="session")
def backbone(tiny_resnet: Backbone) -> Backbone:
    """A record that no plugin declares."""
    weights = {"weights": zoo.RandomWeights(), "architecture": zoo.TimmArchitecture("test_resnet.r160_in1k")}
    shared = {name: getattr(tiny_resnet, name) for name in ("unfreeze", "head", "features", "license", "paper")}
    facts: dict[str, Any] = {"pretrained_on": None, "imagenet_top1": None}
    facts["preprocessing"] = zoo.Preprocessing(input_size=(64, 64))
    return Backbone(name="unregistered_resnet", **weights, **shared, **facts)


@pytest.fixture(scope="session")
def finished(backbone: Backbone, digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> zoo.Run:
    """A run of a record and of data in memory, which neither plugin nor file knows; look only."""
    out = tmp_path_factory.mktemp("runs") / "run"
    return zoo.evaluate(backbone, digits, epochs=2, batch_size=16, log_steps=2, out=out)


@pytest.fixture(scope="session")
def interrupted_run(backbone: Backbone, digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run, interrupted after its first epoch; look only."""
    out = tmp_path_factory.mktemp("runs") / "run"
    options: dict[str, Any] = {"epochs": 2, "batch_size": 16, "log_steps": 2, "tensorboard": True}
    with pytest.raises(KeyboardInterrupt) as caught:
        zoo.evaluate(backbone, digits, out=out, progress=InterruptingReporter(epoch=1), **options)
    assert f"zoo.evaluate(backbone=backbone, dataset=dataset, resume={str(out)!r})" in caught.value.__notes__[0]
    return out
