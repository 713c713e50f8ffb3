"""The declared datasets: that their loaders exist, and that declaring them costs nothing."""

from __future__ import annotations

import importlib
import subprocess
import sys

import numpy as np
import pytest
import torchvision.datasets

from zoo import load_registry
from zoo.errors import DataError
from zoo_plugins import datasets as records
from zoo_plugins.labels import checked_split

NAMES = ["digits", "fashion_mnist", "cifar10", "cifar100", "imagefolder", "hf"]


@pytest.mark.parametrize("name", NAMES)
def test_every_data_set_is_built_in_and_its_loader_exists(name: str) -> None:
    registry = load_registry()
    assert registry.owner("dataset", name).built_in
    module, function = registry.datasets[name].loader.split(":")
    assert callable(getattr(importlib.import_module(module), function))


def test_declaring_them_imports_nothing_heavy() -> None:
    heavy = "{'numpy', 'torch', 'sklearn', 'PIL', 'datasets', 'huggingface_hub'}"
    code = (
        "import sys, zoo_plugins.datasets as d; names = [s.name for s in d.zoo_datasets()];"
        f"sys.exit(str({heavy} & sys.modules.keys()) if {heavy} & sys.modules.keys() else 0)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_class_names_are_as_many_as_the_data_sets_say() -> None:
    assert tuple(sorted(records.CIFAR10_CLASSES)) == records.CIFAR10_CLASSES
    assert tuple(sorted(set(records.CIFAR100_CLASSES))) == records.CIFAR100_CLASSES
    assert len(records.CIFAR10_CLASSES) == len(records.FASHION_CLASSES) == len(records.DIGIT_CLASSES) == 10
    assert len(records.CIFAR100_CLASSES) == 100
    assert torchvision.datasets.FashionMNIST.classes == list(records.FASHION_CLASSES)


@pytest.mark.parametrize(
    ("labels", "code", "index"),
    [([0, 1, -1], "label-unknown", 2), ([0, 2, 3], "label-unknown", 1), ([0, 1], "label-count", None)],
)
def test_labels_outside_the_classes_are_named(labels: list[int], code: str, index: int | None) -> None:
    with pytest.raises(DataError, match="somewhere") as caught:
        checked_split(np.zeros((3, 2, 2), np.uint8), labels, ("cat", "dog"), "somewhere")
    assert (caught.value.code, caught.value.facts.get("index")) == (code, index)
    assert ("hidden test labels" in str(caught.value)) == (-1 in labels)
