"""Tests that every plugin should run in its own CI."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from zoo import DatasetRequest, load_registry
from zoo.testing import check_backbone

from zoo_example import CLASSES, shapes, zoo_backbones, zoo_datasets

(BACKBONE,) = zoo_backbones()
(DATASET,) = zoo_datasets()


def images(split: str) -> np.ndarray[Any, Any]:
    drawn = shapes.load(DatasetRequest()).splits[split].images
    assert isinstance(drawn, np.ndarray)
    return drawn


def test_the_registry_finds_the_plugin_without_complaint() -> None:
    registry = load_registry()

    assert registry.backbone("example_tiny") == BACKBONE
    assert registry.dataset("example_shapes") == (DATASET, None)
    assert registry.owner("backbone", "example_tiny").distribution == "zoo-example"
    assert not [problem for problem in registry.problems if "zoo-example" in problem]


def test_the_backbone_is_what_its_record_says() -> None:
    check_backbone(BACKBONE, classes=len(CLASSES))


def test_the_data_set_is_what_its_record_says() -> None:
    loaded = shapes.load(DatasetRequest())

    assert loaded.classes == DATASET.classes
    assert {name: len(split) for name, split in loaded.splits.items()} == DATASET.sizes


@pytest.mark.parametrize("split", ["train", "test"])
def test_the_images_are_as_many_of_each_class(split: str) -> None:
    assert images(split).shape[1:] == (32, 32)
    assert images(split).dtype == np.uint8
    assert len(set(np.bincount(shapes.load(DatasetRequest()).splits[split].labels))) == 1


def test_the_images_are_the_same_every_time() -> None:
    assert np.array_equal(images("train"), images("train"))


def test_no_image_is_in_both_splits() -> None:
    assert not {image.tobytes() for image in images("train")} & {image.tobytes() for image in images("test")}
