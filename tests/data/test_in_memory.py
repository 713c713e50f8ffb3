"""Data in memory as a dataset: every form results in the same run, and wrong input is refused at once."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from torch.utils.data import (
    ConcatDataset,
    Dataset as TorchDataset,
    IterableDataset,
    Subset as TorchSubset,
    TensorDataset,
)
from torchvision.datasets import FakeData, ImageFolder
from torchvision.transforms import v2 as transforms

import zoo
from zoo import Backbone, DataError, Preprocessing, UsageError, ZooError
from zoo.dataset import DatasetRequest
from zoo_harness.data.loading import RunData, load_data
from zoo_harness.data.transform import BatchTransform
from zoo_harness.hub.publication import publishable, write_tree
from zoo_harness.records.subset import Subset

from ..saved_runs import train_run

TRANSFORM = BatchTransform(Preprocessing(input_size=(16, 16)))
RANDOM = np.random.default_rng(0)
COLOUR = RANDOM.integers(0, 256, (12, 9, 8, 3)).astype(np.uint8)
GREY = COLOUR[..., 0]
LABELS = [0, 1, 2] * 4
NAMES = ["ant", "bee", "cat"]
TEST = (COLOUR[:6], LABELS[:6])


def loaded(dataset: zoo.Dataset, subset: Subset | None = None, *, with_test: bool = False) -> RunData:
    return load_data(dataset, None, None, subset or Subset(), TRANSFORM, with_test=with_test)


def pictures(pixels: np.ndarray[Any, Any] = COLOUR) -> list[PIL.Image.Image]:
    return [PIL.Image.fromarray(image) for image in pixels]


class Pairs(TorchDataset[Any]):
    """A map-style dataset, with the attributes of torchvision's."""

    def __init__(self, images: Any, labels: Any = LABELS, transform: Any = None, **attributes: Any) -> None:
        self.images, self.labels, self.transform = images, labels, transform
        self.read: list[int] = []
        vars(self).update(attributes)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        self.read.append(index)
        image = self.images[index]
        return (self.transform(image) if self.transform else image), self.labels[index]


def tensor_of(image: PIL.Image.Image) -> torch.Tensor:
    """As torchvision's ToTensor."""
    return transforms.functional.to_dtype(transforms.functional.to_image(image), torch.float32, scale=True)


# The same images in every form


@pytest.mark.parametrize(
    "images",
    [
        COLOUR,
        torch.from_numpy(COLOUR),
        COLOUR.transpose(0, 2, 1, 3).copy().transpose(0, 2, 1, 3),
        np.asfortranarray(COLOUR),
        pictures(),
        tuple(pictures()),
        list(COLOUR),
        list(torch.from_numpy(COLOUR)),
        [torch.from_numpy(image).permute(2, 0, 1) for image in COLOUR],
        [tensor_of(image) for image in pictures()],
        [image.convert("RGBA") for image in pictures()],
    ],
)
def test_the_same_images_give_the_same_fingerprint_in_every_form(images: Any) -> None:
    expected = loaded(zoo.in_memory(COLOUR, LABELS, test=TEST))
    found = loaded(zoo.in_memory(images, LABELS, test=(images[:6], LABELS[:6])))
    assert found.record == expected.record
    assert np.array_equal(found.train.images, COLOUR)
    assert found.record.train.pixels == (9, 8, 3)


@pytest.mark.parametrize(
    "images",
    [
        GREY,
        torch.from_numpy(GREY),
        pictures(GREY),
        [tensor_of(image) for image in pictures(GREY)],
        [torch.from_numpy(image)[None] for image in GREY],
    ],
)
def test_grey_images_stay_grey(images: Any) -> None:
    found = loaded(zoo.in_memory(images, LABELS), Subset(val_fraction=0.25))
    assert found.record.train.pixels == (9, 8)
    assert np.array_equal(np.concatenate([found.train.images, found.evaluation.images]).sum(0), GREY.sum(0))


@pytest.mark.parametrize(
    "dataset",
    [
        Pairs(pictures()),
        Pairs(pictures(), transform=tensor_of),
        Pairs(pictures(), transform=transforms.PILToTensor()),
        Pairs(COLOUR, targets=LABELS),
        Pairs(COLOUR, targets=torch.tensor(LABELS)),
        Pairs(COLOUR, targets=LABELS[::-1]),
        Pairs(COLOUR, targets="something else"),
        Pairs(COLOUR, np.array(LABELS, np.int16)),
        Pairs(COLOUR, torch.tensor(LABELS)),
        TensorDataset(torch.from_numpy(COLOUR), torch.tensor(LABELS)),
        TorchSubset(Pairs(COLOUR, targets=LABELS), range(12)),
        ConcatDataset([Pairs(COLOUR[:5], LABELS[:5]), Pairs(COLOUR[5:], LABELS[5:])]),
        list(zip(pictures(), LABELS, strict=True)),
    ],
)
def test_a_torch_data_set_gives_the_same_images_and_labels(dataset: Any) -> None:
    expected = loaded(zoo.in_memory(COLOUR, LABELS, test=TEST)).record
    found = loaded(zoo.in_memory(dataset, test=TEST)).record
    assert found.train == expected.train
    assert found.classes == ("0", "1", "2")
    assert found.source.startswith("memory (")
    assert found.in_memory
    assert expected.source == "memory"


def test_floating_point_levels_come_back_exactly() -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    for dtype in (torch.float32, torch.float64, torch.float16):
        image = (torch.from_numpy(levels).to(torch.float64) / 255).to(dtype)
        found = zoo.in_memory([image, image], [0, 1]).loader(DatasetRequest())
        assert np.array_equal(found.splits["train"].images[0], levels[0])


def test_listed_labels_spare_reading_every_item() -> None:
    listed, unlisted = Pairs(COLOUR, targets=LABELS), Pairs(COLOUR)
    zoo.in_memory(listed)
    assert len(set(listed.read)) < 12
    zoo.in_memory(unlisted)
    assert len(set(unlisted.read)) == 12


def test_images_of_many_sizes_are_resized_when_they_are_read() -> None:
    images = [PIL.Image.new("RGB", (9 + index, 20), (index, 0, 0)) for index in range(12)]
    for dataset in (zoo.in_memory(images, LABELS), zoo.in_memory(Pairs(images))):
        found = loaded(dataset, Subset(val_fraction=0.25))
        assert found.train.images.shape == (9, 16, 16, 3)
        assert found.record.train.resized


def test_folders_through_torchvision(tmp_path: Path) -> None:
    for number, image in enumerate(pictures()):
        folder = tmp_path / NAMES[number % 3]
        folder.mkdir(exist_ok=True)
        image.save(folder / f"{number:02}.png")
    dataset = zoo.in_memory(ImageFolder(tmp_path), test=ImageFolder(tmp_path))
    found = loaded(dataset).record
    assert (found.classes, found.train.per_class) == (tuple(NAMES), (4, 4, 4))
    assert found.source == "memory (torchvision.datasets.folder.ImageFolder)"
    assert found.train.fingerprint == found.evaluation.fingerprint
    assert zoo.in_memory(TorchSubset(ImageFolder(tmp_path), [0, 5, 9])).classes == tuple(NAMES)


def test_made_up_images_of_torchvision() -> None:
    found = loaded(zoo.in_memory(FakeData(12, (3, 16, 16), 2)), Subset(val_fraction=0.25))
    assert found.train.images.shape[1:] == (16, 16, 3)


# Labels and classes


@pytest.mark.parametrize(
    ("labels", "classes", "expected"),
    [
        (LABELS, None, ("0", "1", "2")),
        (LABELS, NAMES, tuple(NAMES)),
        ([NAMES[label] for label in LABELS], None, tuple(NAMES)),
        ([NAMES[label] for label in LABELS], NAMES[::-1], tuple(NAMES[::-1])),
        (np.array([NAMES[label] for label in LABELS]), None, tuple(NAMES)),
        (np.array([NAMES[label] for label in LABELS], object), None, tuple(NAMES)),
        ([10 * label + 2 for label in LABELS], None, ("2", "12", "22")),
        (torch.tensor(LABELS), np.array(NAMES), tuple(NAMES)),
        ([torch.tensor(label) for label in LABELS], NAMES, tuple(NAMES)),
        ([np.int64(label) for label in LABELS], None, ("0", "1", "2")),
    ],
)
def test_labels_are_whole_numbers_or_names(labels: Any, classes: Any, expected: tuple[str, ...]) -> None:
    dataset = zoo.in_memory(COLOUR, labels, classes=classes, test=(COLOUR[:6], labels[:6]))
    found = loaded(dataset)
    assert dataset.classes == found.record.classes == expected
    turned = [2, 1, 0] * 4 if expected == tuple(NAMES[::-1]) else LABELS
    assert found.train.labels.tolist() == turned
    assert found.evaluation.labels.tolist() == turned[:6]


def test_a_pandas_column_of_labels() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"label": [NAMES[label] for label in LABELS]}, index=range(100, 112))
    assert zoo.in_memory(COLOUR, frame["label"]).classes == tuple(NAMES)


def test_classes_of_a_torch_data_set() -> None:
    assert zoo.in_memory(Pairs(COLOUR, classes=NAMES)).classes == tuple(NAMES)
    assert zoo.in_memory(Pairs(COLOUR, classes=NAMES), classes=["x", "y", "z"]).classes == ("x", "y", "z")
    synonyms = [("ant", "emmet"), ("bee",), ("cat",)]
    assert zoo.in_memory(Pairs(COLOUR, classes=synonyms)).classes == ("ant, emmet", "bee", "cat")
    assert zoo.in_memory(Pairs(COLOUR, classes=7)).classes == ("0", "1", "2")


# Runs on it


def test_subsets_and_held_out_parts() -> None:
    dataset = zoo.in_memory(COLOUR, LABELS, test=TEST)
    assert loaded(dataset, Subset(per_class=2)).record.train.per_class == (2, 2, 2)
    held_out = loaded(dataset, Subset(val_fraction=0.25), with_test=True)
    assert held_out.record.evaluation.split == "held out of train"
    assert held_out.test is not None
    assert np.array_equal(held_out.test.images, TEST[0])
    for act, code in (
        (lambda: loaded(zoo.in_memory(COLOUR, LABELS)), "split-missing"),
        (lambda: load_data(dataset, None, Path(), Subset(), TRANSFORM), "option-unused"),
    ):
        with pytest.raises(UsageError) as caught:
            act()
        assert caught.value.code == code


def test_it_is_a_data_set_like_any_other() -> None:
    dataset = zoo.in_memory(COLOUR, LABELS, classes=NAMES, name="insects", title="My insects", license="cc0-1.0")
    assert (dataset.name, dataset.title, dataset.license) == ("insects", "My insects", "cc0-1.0")
    assert dataset.argument is None
    assert len(repr(dataset)) < 500
    assert copy.deepcopy(dataset) == dataset == copy.copy(dataset)
    assert dataset != zoo.in_memory(COLOUR, LABELS, classes=NAMES, name="insects")
    assert hash(dataset) == hash(copy.deepcopy(dataset))
    assert zoo.in_memory(COLOUR, LABELS, name="insects").title == "insects"


def test_runs_on_the_same_images_in_two_forms_are_the_same(tiny_resnet: Backbone, tmp_path: Path) -> None:
    first = train_run(tiny_resnet, zoo.in_memory(COLOUR, LABELS, classes=NAMES, test=TEST), tmp_path / "first")
    pairs = Pairs(pictures(), classes=NAMES)
    second = train_run(tiny_resnet, zoo.in_memory(pairs, test=TEST), tmp_path / "second")
    assert first.status == second.status == "finished"
    assert first.checkpoint_sha256 == second.checkpoint_sha256
    for made in (first, second):
        assert made.results.frozen_part is not None
        assert made.results.frozen_part.reason is None
    assert (first.results.frozen_part.computed, second.results.frozen_part.computed) == (18, 0)  # type: ignore[union-attr]
    model = zoo.load(tmp_path / "second")
    assert model.classes == tuple(NAMES)
    assert set(model.predict(COLOUR)) <= set(NAMES)


def test_the_card_names_no_command_that_cannot_load_the_images(tiny_resnet: Backbone, tmp_path: Path) -> None:
    dataset = zoo.in_memory(COLOUR, LABELS, test=TEST, name="insects")
    record = train_run(tiny_resnet, dataset, tmp_path / "run", Subset(val_fraction=0.25), with_test=True)
    card = (tmp_path / "run" / "README.md").read_text()
    assert "samples.png" in record.plots
    assert "- Dataset: insects, named `insects`" in card
    assert "- Read from: `memory`" in card
    assert "--dataset" not in card
    assert "zoo predict" in card
    assert record.headline[1] is record.dataset.test


def test_private_images_are_not_published_unasked(tiny_resnet: Backbone, tmp_path: Path) -> None:
    train_run(tiny_resnet, zoo.in_memory(COLOUR, LABELS, test=TEST), tmp_path / "run")
    write_tree(publishable(tmp_path / "run"), tmp_path / "tree")
    assert not (tmp_path / "tree" / "samples.png").exists()
    assert (tmp_path / "tree" / "loss.png").exists()
    write_tree(publishable(tmp_path / "run"), tmp_path / "asked", samples=True)
    assert (tmp_path / "asked" / "samples.png").exists()


# The caller's images


def test_the_callers_images_are_neither_copied_nor_changed() -> None:
    images, labels = COLOUR.copy(), list(LABELS)
    images.flags.writeable = False
    dataset = zoo.in_memory(images, labels, test=TEST)
    given = dataset.loader(DatasetRequest()).splits["train"]
    assert np.shares_memory(given.images, images)
    labels.reverse()
    run = loaded(dataset)
    assert run.train.labels.tolist() == LABELS
    assert not np.shares_memory(run.train.images, images)
    assert np.array_equal(images, COLOUR)


@pytest.mark.parametrize("form", ["array", "tensor", "arrays", "PIL"])
def test_images_that_changed_since_are_refused(form: str) -> None:
    pixels = COLOUR.copy()
    images: Any = {"array": pixels, "tensor": torch.from_numpy(pixels), "arrays": list(pixels), "PIL": pictures(pixels)}
    dataset = zoo.in_memory(images[form], LABELS, test=TEST)
    before = loaded(dataset).record
    if form == "PIL":
        images[form][7].putpixel((0, 0), (1, 2, 3))
    else:
        pixels[7, 0, 0] ^= 1
    with pytest.raises(DataError) as caught:
        loaded(dataset)
    assert caught.value.code == "images-changed"
    if form != "PIL":
        pixels[7, 0, 0] ^= 1
        assert loaded(dataset).record == before


def test_a_list_may_be_changed_afterwards() -> None:
    images = pictures()
    dataset = zoo.in_memory(images, LABELS, test=TEST)
    images.clear()
    assert len(loaded(dataset).train) == 12


@pytest.mark.parametrize("form", [list, np.array])
def test_a_torch_data_set_whose_labels_changed_is_refused(form: Any) -> None:
    pairs = Pairs(COLOUR, form(LABELS))
    dataset = zoo.in_memory(pairs, test=TEST)
    pairs.labels[4] = 2
    with pytest.raises(DataError) as caught:
        loaded(dataset)
    assert caught.value.code == "images-changed"


# Input that is refused


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        return iter(zip(COLOUR, LABELS, strict=True))


class Broken(Pairs):
    def __getitem__(self, index: int) -> tuple[Any, Any]:
        raise FileNotFoundError("0001.png")


ONE_HOT = np.eye(3, dtype=int)[LABELS]


@pytest.mark.parametrize(
    ("code", "images", "labels", "options"),
    [
        ("image-dtype", COLOUR / 255, LABELS, {}),
        ("image-dtype", torch.from_numpy(COLOUR).float(), LABELS, {}),
        ("image-dtype", COLOUR.astype(np.int64), LABELS, {}),
        ("image-dtype", list(COLOUR / 255), LABELS, {}),
        ("image-shape", COLOUR.transpose(0, 3, 1, 2), LABELS, {}),
        ("image-shape", COLOUR[0, 0], LABELS, {}),
        ("image-shape", COLOUR[:, :0], LABELS, {}),
        ("image-shape", np.zeros((12, 8, 8, 4), np.uint8), LABELS, {}),
        ("image-shape", [COLOUR, COLOUR], [0, 1], {}),
        ("image-shape", Pairs(COLOUR.transpose(0, 3, 1, 2)), None, {}),
        ("image-shape", [torch.rand(8, 8, 3)] * 12, LABELS, {}),
        ("image-range", [tensor_of(image) * 2 - 1 for image in pictures()], LABELS, {}),
        ("image-range", Pairs([torch.full((3, 4, 4), torch.nan)] * 12), None, {}),
        ("image-range", Pairs([torch.full((3, 4, 4), 255.0)] * 12), None, {}),
        ("image-type", ["cat.png", "dog.png"], [0, 1], {}),
        ("image-undecodable", [image.convert("F") for image in pictures(GREY)], LABELS, {}),
        ("image-random", Pairs(pictures(), transform=transforms.RandomCrop(4)), None, {}),
        ("images-type", Stream(), None, {}),
        ("images-type", iter(COLOUR), LABELS, {}),
        ("images-type", "photos", LABELS, {}),
        ("images-type", {"image": COLOUR}, None, {}),
        ("images-type", None, None, {}),
        ("images-empty", COLOUR[:0], [], {}),
        ("images-empty", [], [], {}),
        ("images-empty", Pairs([]), None, {}),
        ("item-type", pictures(), None, {}),
        ("item-type", [*((image, 0) for image in COLOUR), 3], None, {}),
        ("item-unreadable", Broken(COLOUR), None, {}),
        ("labels-missing", COLOUR, None, {}),
        ("label-count", COLOUR, LABELS[:-1], {}),
        ("label-count", pictures(), [*LABELS, 0], {}),
        ("label-shape", COLOUR, ONE_HOT, {}),
        ("label-shape", COLOUR, ONE_HOT.tolist(), {}),
        ("label-shape", COLOUR, torch.from_numpy(ONE_HOT), {}),
        ("label-shape", Pairs(COLOUR, ONE_HOT), None, {}),
        ("label-type", COLOUR, np.array(LABELS) + 0.5, {}),
        ("label-type", COLOUR, [None] * 12, {}),
        ("label-type", COLOUR, [*LABELS[:-1], "ant"], {}),
        ("label-type", COLOUR, "abcabcabcabc", {}),
        ("label-type", COLOUR, 3, {}),
        ("label-unknown", COLOUR, [*LABELS[:-1], 3], {"classes": NAMES}),
        ("label-unknown", COLOUR, [*LABELS[:-1], -1], {"classes": NAMES}),
        ("label-unknown", COLOUR, [*LABELS[:-1], -1], {}),
        ("label-unknown", COLOUR, ["ant", "bee", "cta"] * 4, {"classes": NAMES}),
        ("class-not-in-train", COLOUR, LABELS, {"test": (COLOUR[:3], [0, 1, 3])}),
        ("label-unknown", COLOUR, LABELS, {"test": (COLOUR[:3], [0, 1, -1])}),
        ("label-unknown", COLOUR, LABELS, {"test": (COLOUR[:3], ["ant", "bee", "cat"])}),
        ("class-count", COLOUR, [0] * 12, {}),
        ("class-count", COLOUR, [0] * 12, {"classes": ["ant"]}),
        ("class-empty", COLOUR, LABELS, {"classes": [*NAMES, "dog"]}),
        ("class-empty", Pairs(COLOUR, classes=[*NAMES, "dog"]), None, {}),
        ("class-name", COLOUR, LABELS, {"classes": ["ant", "bee", "ant"]}),
        ("class-name", COLOUR, LABELS, {"classes": ["ant", "bee", " "]}),
        ("class-name", COLOUR, LABELS, {"classes": [0, 1, 2]}),
        ("class-name", COLOUR, LABELS, {"classes": "abc"}),
        ("class-mismatch", Pairs(COLOUR, classes=NAMES), None, {"test": Pairs(COLOUR, classes=NAMES[::-1])}),
        ("class-mismatch", COLOUR, LABELS, {"test": Pairs(COLOUR, classes=NAMES)}),
        ("item-type", COLOUR, LABELS, {"test": [COLOUR, LABELS]}),
        ("labels-missing", COLOUR, LABELS, {"test": COLOUR}),
        ("image-dtype", COLOUR, LABELS, {"test": (COLOUR / 255, LABELS)}),
        ("name", COLOUR, LABELS, {"name": "My data"}),
        ("name", COLOUR, LABELS, {"title": ""}),
        ("name", COLOUR, LABELS, {"license": 3}),
        ("name-taken", COLOUR, LABELS, {"name": "cifar10"}),
    ],
)
def test_wrong_input_is_refused_at_once(code: str, images: Any, labels: Any, options: dict[str, Any]) -> None:
    with pytest.raises(ZooError) as caught:
        zoo.in_memory(images, labels, **options)
    assert caught.value.code == code
    assert isinstance(caught.value, DataError | UsageError)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("labels", "argument", "index"),
    [([0, 1, 2, 7] * 3, "labels", 3), ([0, 1, 2.5, 1] * 3, "labels", 2), ([0, 1, 2, [0, 1]] * 3, "labels", 3)],
)
def test_a_wrong_label_is_found(labels: list[Any], argument: str, index: int) -> None:
    with pytest.raises(DataError) as caught:
        zoo.in_memory(COLOUR, labels, classes=NAMES)
    assert caught.value.facts["argument"] == argument
    assert caught.value.facts["index"] == index


@pytest.mark.parametrize(
    "labels",
    [np.array(LABELS, float), np.array(LABELS)[:, None], np.float16(LABELS)[:, None], [float(each) for each in LABELS]],
)
def test_whole_numbers_of_any_type_are_labels(labels: Any) -> None:
    found, expected = (loaded(zoo.in_memory(COLOUR, each, test=TEST)) for each in (labels, LABELS))
    assert found.record.classes == expected.record.classes
    assert found.record.train == expected.record.train


@pytest.mark.parametrize("progress", ["yes", lambda *_given: None])
def test_a_progress_that_is_no_reporter_is_refused(progress: Any) -> None:
    with pytest.raises(UsageError) as caught:
        zoo.layers("resnet18_cifar", zoo.in_memory(COLOUR, LABELS, test=TEST), progress=progress)
    assert caught.value.code == "progress-type"
