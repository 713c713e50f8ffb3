"""Equal images are found within and between splits, whatever file or array they come from, and named."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import numpy as np
import PIL.Image
import pytest
import torch
from numpy.typing import NDArray

import zoo
from zoo import Dataset, ImageSplit, LoadedDataset, Preprocessing
from zoo.registry import load_registry
from zoo_harness.data.duplicates import Origin, find_duplicates
from zoo_harness.data.loading import RunData, load_data
from zoo_harness.data.opened import HELD_OUT
from zoo_harness.data.transform import BatchTransform
from zoo_harness.records.subset import Subset

Pixels = NDArray[np.uint8]
GENERATOR = np.random.default_rng(0)


def pictures(count: int, *shape: int) -> Pixels:
    return GENERATOR.integers(0, 256, (count, *(shape or (8, 8, 3))), dtype=np.uint8)


def load(dataset: Dataset, argument: str | None = None, subset: Subset | None = None, **options: Any) -> RunData:
    transform = BatchTransform(Preprocessing((16, 16)))
    return load_data(dataset, argument, options.pop("folder", None), subset or Subset(), transform, **options)


def load_folder(folder: Path, **options: Any) -> RunData:
    return load(*load_registry().dataset(f"imagefolder:{folder}"), **options)


def load_splits(**splits: ImageSplit) -> RunData:
    data = LoadedDataset(("cat", "dog"), splits, source="a test")
    return load(
        Dataset(name="pets", title="Pets", loader=lambda _request: data, classes=None, license=None, citation=None)
    )


def counts(run: RunData) -> dict[tuple[str, str], tuple[int, int]]:
    return {(each.split, each.other): (each.images, each.other_label) for each in run.record.duplicates or ()}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two classes in two splits, all images different, of two sizes."""
    for split, each in (("train", 4), ("test", 2)):
        for name in ("cat", "dog"):
            folder = tmp_path / "photos" / split / name
            folder.mkdir(parents=True)
            for number in range(each):
                PIL.Image.fromarray(pictures(1, 20 + number, 30, 3)[0]).save(folder / f"{number}.png")
    return tmp_path / "photos"


@pytest.mark.parametrize("seed", range(5))
def test_counts_are_those_of_comparing_every_pair(seed: int) -> None:
    draws = np.random.default_rng(seed)
    sizes = {"train": 40, "held out": 25, "test": 30}
    digests = {name: draws.integers(0, 60, count).astype(np.uint64) for name, count in sizes.items()}
    labels = {name: draws.integers(0, 3, count) for name, count in sizes.items()}
    data: Any = {
        name: SimpleNamespace(digests=digests[name], labels=torch.from_numpy(labels[name]), indices=np.arange(count))
        for name, count in sizes.items()
    }
    origins = {name: Origin(name, ImageSplit(np.empty((count, 1, 1), np.uint8), [])) for name, count in sizes.items()}
    found = find_duplicates(data, origins, ("a", "b", "c"))
    recorded = {(each.split, each.other): each for each in found.records}
    for one, other in [("held out", "train"), ("test", "train"), ("test", "held out"), *zip(sizes, sizes, strict=True)]:
        pairs = [
            (i, j)
            for i in range(sizes[one])
            for j in range(sizes[other])
            if digests[one][i] == digests[other][j] and not (one == other and i == j)
        ]
        unlike = [(i, j) for i, j in pairs if labels[one][i] != labels[other][j]]
        record = recorded.pop((one, other))
        assert (record.images, record.of) == (len({i for i, _j in pairs}), sizes[one])
        assert record.other_label == len({i for i, _j in unlike})
        assert record.example == tuple(f"{s} image {k}" for s, k in zip((one, other), pairs[0], strict=True))
        assert (record.example_other_label is None) == (not unlike)
        if record.example_other_label:
            first, second = unlike[0]
            assert record.example_other_label == (
                f"{one} image {first} ({'abc'[labels[one][first]]})",
                f"{other} image {second} ({'abc'[labels[other][second]]})",
            )
    assert recorded == {}
    assert found.shared["train"].sum() == 0
    assert np.array_equal(found.shared["test"], np.isin(digests["test"], [*digests["train"], *digests["held out"]]))


def test_without_equal_images_there_is_nothing_to_say(photos: Path) -> None:
    run = load_folder(photos)
    assert run.record.duplicates == ()
    assert not run.shared["test"].any()
    assert run.warnings == ()


def test_files_are_compared_by_their_pixels_and_named_by_their_paths(photos: Path) -> None:
    train, test = photos / "train", photos / "test"
    shutil.copy(train / "cat" / "0.png", test / "cat" / "7.png")
    PIL.Image.open(train / "dog" / "1.png").save(test / "cat" / "8.bmp")  # other bytes, the same pixels
    PIL.Image.open(train / "dog" / "2.png").resize((30, 21)).save(test / "dog" / "9.png")
    run = load_folder(photos)
    assert counts(run) == {("test", "train"): (2, 1)}
    (record,) = run.record.duplicates or ()
    assert record.example == ("test/cat/7.png", "train/cat/0.png")
    assert record.example_other_label == ("test/cat/8.bmp (cat)", "train/dog/1.png (dog)")
    assert record.in_words() in run.warnings
    assert run.shared["test"].tolist() == [False, False, True, True, False, False, False]


def test_a_pixel_or_a_size_makes_another_image(photos: Path) -> None:
    with PIL.Image.open(photos / "train" / "cat" / "0.png") as image:
        pixels = np.array(image)
    PIL.Image.fromarray(pixels.reshape(30, 20, 3)).save(photos / "test" / "cat" / "turned.png")
    pixels[3, 4, 1] ^= 1
    PIL.Image.fromarray(pixels).save(photos / "test" / "cat" / "changed.png")
    assert load_folder(photos).record.duplicates == ()


def test_a_test_folder_that_is_a_copy_of_train(photos: Path) -> None:
    shutil.rmtree(photos / "test")
    shutil.copytree(photos / "train", photos / "test")
    run = load_folder(photos)
    assert counts(run) == {("test", "train"): (8, 0)}
    assert run.shared["test"].all()


def test_an_image_twice_in_a_split_with_two_labels(photos: Path) -> None:
    shutil.copy(photos / "train" / "cat" / "0.png", photos / "train" / "cat" / "a.png")
    shutil.copy(photos / "train" / "cat" / "1.png", photos / "train" / "dog" / "b.png")
    run = load_folder(photos)
    assert counts(run) == {("train", "train"): (4, 2)}
    (record,) = run.record.duplicates or ()
    assert record.example == ("train/cat/0.png", "train/cat/a.png")
    assert record.example_other_label == ("train/cat/1.png (cat)", "train/dog/b.png (dog)")


@pytest.mark.parametrize(("name", "shown"), [(b"\xff.png", "\\xff.png"), (b"a\x1b[2J.png", "a [2J.png")])
def test_names_that_are_not_utf_8_or_control_the_terminal_are_shown(photos: Path, name: bytes, shown: str) -> None:
    shutil.copy(photos / "train" / "cat" / "0.png", photos / "test" / "cat" / os.fsdecode(name))
    (record,) = load_folder(photos).record.duplicates or ()
    assert record.example == (f"test/cat/{shown}", "train/cat/0.png")
    assert shown.replace("\\", "\\\\") in record.model_dump_json()


def test_grey_and_colour_images_of_the_same_values_are_equal() -> None:
    grey = pictures(6, 8, 8)
    colour = np.stack([grey[[4, 0]]] * 3, axis=-1)
    run = load_splits(train=ImageSplit(grey, [0, 1] * 3), test=ImageSplit(colour, [0, 0]))
    assert counts(run) == {("test", "train"): (2, 0)}
    files: Any = [PIL.Image.fromarray(grey[5]), PIL.Image.fromarray(pictures(1, 9, 9)[0])]
    run = load_splits(train=ImageSplit(grey, [0, 1] * 3), test=ImageSplit(files, [1, 0]))
    assert counts(run) == {("test", "train"): (1, 0)}


def test_images_of_arrays_are_named_by_their_place_in_the_data_set() -> None:
    images = pictures(40)
    images[33] = images[20]
    data = zoo.in_memory(images, np.arange(40) % 2)
    for seed in range(3):
        run = load(data, subset=Subset(val_fraction=0.5, seed=seed))
        (record,) = run.record.duplicates or ()
        assert sorted(record.example) == ["train image 20", "train image 33"]
        assert {record.split, record.other} <= {"train", HELD_OUT}


def test_a_test_split_that_is_kept_is_compared_with_both_parts_of_train() -> None:
    images, labels = pictures(40), np.arange(40) % 2
    test = np.concatenate([images, pictures(4)])
    data = zoo.in_memory(images, labels, test=(test, np.arange(44) % 2))
    run = load(data, subset=Subset(val_fraction=0.25), with_test=True)
    assert counts(run) == {("test", "train"): (30, 0), ("test", HELD_OUT): (10, 0)}
    assert run.shared["test"].tolist() == [True] * 40 + [False] * 4


def test_images_of_the_hub_are_compared(tmp_path: Path) -> None:
    images = pictures(6, 9, 9, 3)
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])})
    for split, chosen in (("train", [0, 1, 2, 3]), ("test", [4, 1, 5])):
        rows = {"image": [PIL.Image.fromarray(images[index]) for index in chosen], "label": [i % 2 for i in chosen]}
        datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / f"{split}-0.parquet")
    run = load(*load_registry().dataset("hf:someone/pets"), folder=tmp_path)
    assert counts(run) == {("test", "train"): (1, 0)}
    (record,) = run.record.duplicates or ()
    assert record.example == ("test image 1", "train image 1")
