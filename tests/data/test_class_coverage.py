"""One rule for every dataset: the test split may lack classes, the training split may not."""

from __future__ import annotations

import csv
import pickle
from collections.abc import Callable
from pathlib import Path

import datasets
import numpy as np
import PIL.Image
import pytest
from numpy.typing import NDArray

import zoo
from zoo import DataError, Dataset, Preprocessing
from zoo.registry import load_registry
from zoo_harness.data.class_coverage import check_training_classes
from zoo_harness.data.loading import RunData, load_data
from zoo_harness.data.transform import BatchTransform
from zoo_harness.records.subset import Subset
from zoo_plugins.datasets import CIFAR10_CLASSES

NAMES = CIFAR10_CLASSES[:3]
LABELS = {"train": [0, 0, 1, 1, 2, 2], "test": [0, 1, 2]}
Write = Callable[[Path, dict[str, list[int]]], RunData]


def pixels(split: str, count: int) -> NDArray[np.uint8]:
    return np.random.default_rng(len(split)).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)


def loaded(dataset: Dataset, argument: str | None = None, folder: Path | None = None) -> RunData:
    return load_data(dataset, argument, folder, Subset(), BatchTransform(Preprocessing((16, 16))))


def image_folder(folder: Path, labels: dict[str, list[int]]) -> RunData:
    for split, found in labels.items():
        for number, (label, image) in enumerate(zip(found, pixels(split, len(found)), strict=True)):
            (folder / split / NAMES[label]).mkdir(parents=True, exist_ok=True)
            PIL.Image.fromarray(image).save(folder / split / NAMES[label] / f"{number}.png")
    return loaded(*load_registry().dataset(f"imagefolder:{folder}"))


def table(folder: Path, labels: dict[str, list[int]]) -> RunData:
    rows = []
    for split, found in labels.items():
        for number, (label, image) in enumerate(zip(found, pixels(split, len(found)), strict=True)):
            PIL.Image.fromarray(image).save(folder / f"{split}{number}.png")
            rows.append([f"{split}{number}.png", NAMES[label], split])
    with (folder / "labels.csv").open("w") as file:
        csv.writer(file).writerows([["image", "label", "split"], *rows])
    return loaded(*load_registry().dataset(f"table:{folder / 'labels.csv'}"))


def hub(folder: Path, labels: dict[str, list[int]]) -> RunData:
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=list(NAMES))})
    for split, found in labels.items():
        rows = {"image": [PIL.Image.fromarray(image) for image in pixels(split, len(found))], "label": found}
        datasets.Dataset.from_dict(rows, features=features).to_parquet(folder / f"{split}-0.parquet")
    return loaded(*load_registry().dataset("hf:someone/things"), folder)


def cifar(folder: Path, labels: dict[str, list[int]]) -> RunData:
    """The other seven classes have images in both splits."""
    content = {split: [*found, *range(3, 10)] for split, found in labels.items()}
    batches = {f"data_batch_{number}": "train" for number in range(1, 6)} | {"test_batch": "test"}
    for name, split in batches.items():
        data = pixels(name, len(content[split])).reshape(-1, 3072)
        (folder / name).write_bytes(pickle.dumps({"labels": content[split], "data": data}, protocol=2))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list(CIFAR10_CLASSES)}, protocol=2))
    return loaded(load_registry().dataset("cifar10")[0], None, folder)


def in_memory(_folder: Path, labels: dict[str, list[int]]) -> RunData:
    """Classes are those of the training labels."""
    given = {split: (pixels(split, len(found)), [NAMES[label] for label in found]) for split, found in labels.items()}
    return loaded(zoo.in_memory(*given["train"], test=given["test"]))


def in_memory_with_classes(_folder: Path, labels: dict[str, list[int]]) -> RunData:
    given = {split: (pixels(split, len(found)), found) for split, found in labels.items()}
    return loaded(zoo.in_memory(*given["train"], classes=NAMES, test=given["test"]))


every_data_set = pytest.mark.parametrize("write", [image_folder, table, hub, cifar, in_memory, in_memory_with_classes])


@every_data_set
def test_a_test_split_may_lack_a_class_which_is_named(write: Write, tmp_path: Path) -> None:
    run = write(tmp_path, {**LABELS, "test": [0, 2, 2]})
    missing = run.record.classes.index(NAMES[1])
    assert [count == 0 for count in run.record.evaluation.per_class] == [
        index == missing for index in range(len(run.record.classes))
    ]
    told = [line for line in run.warnings if line.startswith("split 'test' has no image of 1 of ")]
    assert len(told) == 1
    assert f"({NAMES[1]!r})" in told[0]


@every_data_set
def test_a_class_that_training_lacks_is_refused_by_name(write: Write, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        write(tmp_path, {**LABELS, "train": [0, 0, 2, 2]})
    assert caught.value.code == "class-not-in-train"
    assert caught.value.facts == {"names": [NAMES[1]], "split": "test"}


def test_a_name_that_was_mistyped_is_suggested() -> None:
    with pytest.raises(DataError, match=r"'Cat'.*did you mean 'cat'\?"):
        check_training_classes({"train": [0, 1], "test": [2]}, ("cat", "dog", "Cat"), "a folder")


def test_a_class_without_any_image_is_named() -> None:
    with pytest.raises(DataError, match="'emu'") as caught:
        check_training_classes({"train": [0, 1], "test": [1]}, ("cat", "dog", "emu"), "a folder")
    assert caught.value.code == "class-empty"


def test_classes_that_a_limit_leaves_out_are_named() -> None:
    labels = np.arange(12) % 4
    data = zoo.in_memory(pixels("train", 12), labels, test=(pixels("test", 12), labels))
    run = load_data(data, None, None, Subset(limit=3), BatchTransform(Preprocessing((16, 16))))
    assert [line.partition(";")[0] for line in run.warnings if "no image of" in line] == [
        f"split {split!r} has no image of 1 of 4 classes ('3')" for split in ("train", "test")
    ]
