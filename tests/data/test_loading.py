"""Data of a run: the images of a subset, splits that are refused, and the digest of the images that were read."""

from __future__ import annotations

import errno
import gc
import hashlib
import os
import sys
import threading
import time
import types
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import PIL.Image
import pytest
import torch

from zoo import DataError, Dataset, ImageSplit, LoadedDataset, Preprocessing, UsageError, ZooError, load_registry
from zoo.dataset import AS_FOUND, ReadOptions
from zoo_harness.data import decoding
from zoo_harness.data.loading import RunData, load_data
from zoo_harness.data.transform import BatchTransform
from zoo_harness.records.subset import Subset

TRANSFORM = BatchTransform(Preprocessing(input_size=(16, 16), crop_fraction=0.8))
CPU = torch.device("cpu")


def digits(subset: Subset) -> RunData:
    return load_data(load_registry().dataset("digits")[0], None, None, subset, TRANSFORM)


def chosen(run: RunData) -> list[bytes]:
    return [image.tobytes() for image in run.train.images]


# Which images


def test_all_images_by_default() -> None:
    run = digits(Subset())
    assert (len(run.train), len(run.evaluation)) == (1442, 355)
    assert (run.record.train.split, run.record.evaluation.split) == ("train", "test")
    assert run.record.subset == "all images"


def test_per_class_takes_as_many_of_each() -> None:
    run = digits(Subset(per_class=7, seed=3))
    for split, record in ((run.train, run.record.train), (run.evaluation, run.record.evaluation)):
        assert record.per_class == (7,) * 10
        assert Counter(split.labels.tolist()) == dict.fromkeys(range(10), 7)
    assert run.record.subset == "7 images per class, seed 3"


def test_evaluation_split_with_fewer_stays_balanced() -> None:
    run = digits(Subset(per_class=100))
    assert run.record.train.per_class == (100,) * 10
    assert len(set(run.record.evaluation.per_class)) == 1
    fewest = min(digits(Subset()).record.evaluation.per_class)
    assert run.record.evaluation.per_class[0] == fewest
    assert run.record.subset == (
        f"100 images per class of the training split, {fewest} of the evaluation split "
        "(all that its smallest class has), seed 0"
    )


def test_the_split_that_must_be_balanced_can_be_the_evaluation_split(load: Load) -> None:
    many = ImageSplit(np.zeros((6, 8, 8), np.uint8), np.array([0, 0, 0, 1, 1, 1]))
    few = ImageSplit(np.zeros((3, 8, 8), np.uint8), np.array([0, 1, 1]))
    run = load({"train": few, "test": many}, Subset(per_class=3), balanced="evaluation")
    assert (run.record.train.per_class, run.record.evaluation.per_class) == ((1, 1), (3, 3))
    with pytest.raises(UsageError) as caught:
        load({"train": many, "test": few}, Subset(per_class=2), balanced="evaluation")
    assert caught.value.code == "per-class-too-large"
    assert (caught.value.facts["name"], caught.value.facts["largest"]) == ("cat", 1)


def test_shape_of_raw_pixels_is_recorded(load: Load) -> None:
    run = digits(Subset(limit=3))
    assert (run.record.train.pixels, run.record.train.resized) == ((8, 8), False)
    assert np.shares_memory(run.train.raw_pixels, run.train.images)
    assert run.train.raw_pixels.shape == (3, 64)


@pytest.mark.parametrize("limit", [1, 10, 25, 5000])
def test_limit_takes_classes_in_turn(limit: int) -> None:
    run = digits(Subset(limit=limit))
    for record, whole in ((run.record.train, 1442), (run.record.evaluation, 355)):
        assert record.images == min(limit, whole)
        if limit < 100:
            assert max(record.per_class) - min(record.per_class) <= 1


@pytest.mark.parametrize("options", [{"per_class": 5}, {"limit": 50}, {"fraction": 0.1}, {"val_fraction": 0.25}])
def test_seed_decides_which(options: dict[str, Any]) -> None:
    once, again, other = (digits(Subset(**options, seed=seed)) for seed in (1, 1, 2))
    assert chosen(once) == chosen(again)
    assert once.record.train.fingerprint == again.record.train.fingerprint
    assert set(chosen(once)) != set(chosen(other))
    assert once.record.train.fingerprint != other.record.train.fingerprint


def test_a_fraction_takes_the_same_part_of_each_class_of_both_splits() -> None:
    run, whole = digits(Subset(fraction=0.3, seed=5)), digits(Subset())
    for part, everything in ((run.record.train, whole.record.train), (run.record.evaluation, whole.record.evaluation)):
        assert part.per_class == tuple(round(0.3 * count) for count in everything.per_class)
    assert set(chosen(run)) < set(chosen(whole))
    assert run.record.subset == "0.3 of each class, rounded, at least 1 image, seed 5"
    assert (run.record.fraction, run.record.per_class, run.record.eval_fraction) == (0.3, None, None)


def test_a_small_fraction_leaves_one_image_of_each_class() -> None:
    run = digits(Subset(fraction=1e-9))
    assert run.record.train.per_class == run.record.evaluation.per_class == (1,) * 10


@pytest.mark.parametrize(
    ("options", "train", "evaluation", "words"),
    [
        (
            {"per_class": 5, "eval_limit": 25},
            50,
            25,
            "training split: 5 images per class, seed 0; evaluation: at most 25",
        ),
        (
            {"limit": 30, "eval_fraction": 1.0},
            30,
            355,
            "training split: at most 30 images, classes in turn, seed 0; ev",
        ),
        ({"eval_fraction": 0.1}, 1442, 39, "training split: all images; evaluation: 0.1 of each class"),
        (
            {"fraction": 0.5, "val_fraction": 0.2, "eval_limit": 40},
            577,
            40,
            "0.2 of the training split held out for evaluation; training split: 0.5 of each class, rounded, at least 1",
        ),
    ],
)
def test_the_evaluation_split_may_have_a_part_of_its_own(
    options: dict[str, Any], train: int, evaluation: int, words: str
) -> None:
    run = digits(Subset(**options))
    assert (len(run.train), len(run.evaluation)) == (train, evaluation)
    assert run.record.subset.startswith(words)
    counts = run.record.evaluation.per_class
    assert max(counts) - min(counts) <= (1 if "eval_limit" in options else 4)
    assert {name: getattr(run.record, name) for name in options} == options


def test_the_test_split_that_is_kept_for_the_end_has_the_part_of_the_evaluation() -> None:
    where = load_registry().dataset("digits")[0], None, None, Subset(val_fraction=0.2, eval_limit=20)
    run = load_data(*where, TRANSFORM, with_test=True)
    assert run.record.test is not None
    assert (run.record.evaluation.images, run.record.test.images) == (20, 20)


def test_larger_subset_contains_the_smaller() -> None:
    assert set(chosen(digits(Subset(per_class=5)))) <= set(chosen(digits(Subset(per_class=20))))


def test_held_out_part_is_disjoint_and_stratified() -> None:
    whole = digits(Subset())
    run = digits(Subset(val_fraction=0.25))
    assert run.record.evaluation.split == "held out of train"
    assert len(run.train) + len(run.evaluation) == len(whole.train)
    parts = [Counter(chosen(run)), Counter(image.tobytes() for image in run.evaluation.images)]
    assert parts[0] + parts[1] == Counter(chosen(whole)), "every training image, each once"
    for held_out, all_of_class in zip(run.record.evaluation.per_class, whole.record.train.per_class, strict=True):
        assert held_out == round(all_of_class / 4)
    assert run.record.subset == "0.25 of the training split held out for evaluation"


def test_held_out_part_and_per_class_together() -> None:
    run = digits(Subset(val_fraction=0.5, per_class=10))
    assert run.record.train.per_class == run.record.evaluation.per_class == (10,) * 10
    assert not set(chosen(run)) & {image.tobytes() for image in run.evaluation.images}


@pytest.mark.parametrize(
    "options",
    [
        {"per_class": 5, "limit": 5},
        {"per_class": 5, "fraction": 0.5},
        {"limit": 5, "fraction": 0.5},
        {"eval_limit": 5, "eval_fraction": 0.5},
        {"per_class": 0},
        {"limit": -1},
        {"eval_limit": 0},
        {"fraction": 0.0},
        {"fraction": 1.5},
        {"fraction": float("nan")},
        {"eval_fraction": 2.0},
        {"val_fraction": 1.0},
        {"val_fraction": 0.0},
    ],
)
def test_a_subset_that_cannot_exist(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(options)).replace("_", "-")):
        Subset(**options)


def test_too_many_per_class_names_the_class_and_the_largest_number() -> None:
    fewest = min((count, str(name)) for name, count in enumerate(digits(Subset()).record.train.per_class))
    with pytest.raises(UsageError) as caught:
        digits(Subset(per_class=150))
    assert caught.value.code == "per-class-too-large"
    assert (caught.value.facts["largest"], caught.value.facts["name"]) == fewest


# Splits of a loader

Load = Callable[..., RunData]


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Load:
    """Load splits as the loader of a third party would give them."""

    def load_splits(
        splits: dict[str, ImageSplit],
        subset: Subset | None = None,
        classes: tuple[str, ...] = ("cat", "dog"),
        transform: BatchTransform = TRANSFORM,
        balanced: Literal["train", "evaluation"] = "train",
        options: ReadOptions = AS_FOUND,
    ) -> RunData:
        module = types.ModuleType("third_party")
        module.load = lambda _request: LoadedDataset(classes, splits, source="third party")
        monkeypatch.setitem(sys.modules, "third_party", module)
        pets = Dataset(name="pets", title="Pets", loader="third_party:load", classes=None, license=None, citation=None)
        return load_data(pets, None, None, subset or Subset(), transform, balanced, options=options)

    return load_splits


def images(count: int, *shape: int, dtype: type = np.uint8) -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).integers(0, 256, (count, *(shape or (8, 8)))).astype(dtype)


GOOD = ImageSplit(images(6), [0, 0, 0, 1, 1, 1])


@pytest.mark.parametrize(
    ("code", "split"),
    [
        ("label-unknown", ImageSplit(images(3), [0, 1, 2])),
        ("label-unknown", ImageSplit(images(3), [0, -1, -1])),
        ("label-count", ImageSplit(images(3), [0, 1])),
        ("images-empty", ImageSplit(images(0), [])),
        ("label-type", ImageSplit(images(2), [0.0, 1.0])),
        ("label-type", ImageSplit(images(2), [[0, 1], [1, 0]])),
        ("label-type", ImageSplit(images(2), ["cat", "dog"])),
        ("image-array", ImageSplit(images(2, dtype=float), [0, 1])),
        ("image-array", ImageSplit(images(2, 8, 8, 4), [0, 1])),
        ("image-array", ImageSplit(images(2, 3, 8, 8), [0, 1])),
    ],
)
def test_bad_split_is_refused(load: Load, code: str, split: ImageSplit) -> None:
    with pytest.raises(DataError, match="split 'test'") as caught:
        load({"train": GOOD, "test": split})
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("code", "options"),
    [
        ("class-empty", {"splits": {"train": GOOD, "test": GOOD}, "classes": ("cat", "dog", "emu")}),
        ("class-count", {"splits": {"train": GOOD, "test": GOOD}, "classes": ("cat",)}),
        ("split-missing", {"splits": {"test": GOOD}}),
        ("split-missing", {"splits": {"train": GOOD}}),
        ("val-fraction-empty-class", {"splits": {"train": GOOD}, "subset": Subset(val_fraction=0.1)}),
    ],
)
def test_classes_and_splits_that_are_missing(load: Load, code: str, options: dict[str, Any]) -> None:
    with pytest.raises((DataError, UsageError)) as caught:
        load(**options)
    assert caught.value.code == code


def test_a_split_may_be_held_out(load: Load) -> None:
    assert load({"train": GOOD}, Subset(val_fraction=0.34)).record.evaluation.per_class == (1, 1)


def test_a_missing_split_is_named_with_the_given_folder(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        PIL.Image.new("L", (5, 5)).save(tmp_path / name / "0.png")
    with pytest.raises(UsageError) as caught:
        load_data(*load_registry().dataset(f"imagefolder:{tmp_path}"), None, Subset(), TRANSFORM)
    assert caught.value.facts == {"split": "test", "dataset": f"imagefolder:{tmp_path}"}


def test_classes_of_the_data_must_be_the_declared_ones() -> None:
    declared = load_registry().dataset("digits")[0]
    other = Dataset(**{**vars(declared), "classes": ("zero", "one")})
    with pytest.raises(DataError) as caught:
        load_data(other, None, None, Subset(), TRANSFORM)
    assert caught.value.code == "class-mismatch"


# The digest


def test_fingerprint_sees_every_pixel_and_label(load: Load) -> None:
    pixels = images(6)
    lighter = pixels.copy()
    lighter[4, 2, 2] ^= 1
    found = [
        load({"train": split, "test": GOOD}).record.train.fingerprint
        for split in (
            ImageSplit(pixels, [0, 0, 0, 1, 1, 1]),
            ImageSplit(lighter, [0, 0, 0, 1, 1, 1]),
            ImageSplit(pixels, [0, 0, 1, 0, 1, 1]),
            ImageSplit(pixels[[1, 0, 2, 3, 4, 5]], [0, 0, 0, 1, 1, 1]),
            ImageSplit(pixels.reshape(6, 4, 16), [0, 0, 0, 1, 1, 1]),
        )
    ]
    assert len(set(found)) == 5
    again = load({"train": ImageSplit(pixels, np.array([0, 0, 0, 1, 1, 1], np.int16)), "test": GOOD})
    assert again.record.train.fingerprint == found[0], "the type of the labels does not matter"


def test_fingerprint_is_the_same_in_every_process_and_version(load: Load) -> None:
    split = ImageSplit(np.arange(128, dtype=np.uint8).reshape(2, 8, 8), [0, 1])
    content = np.array([0, 1], "<i8").tobytes() + b"(2, 8, 8)" + bytes(range(128))
    assert load({"train": split, "test": split}).record.train.fingerprint == hashlib.sha256(content).hexdigest()


# Batches


def test_batches_come_in_order_with_their_labels() -> None:
    run = digits(Subset(per_class=3))
    batches = list(run.train.in_order(8, CPU))
    assert [len(labels) for _images, labels in batches] == [8, 8, 8, 6]
    expected = TRANSFORM(torch.from_numpy(run.train.images))
    assert torch.equal(torch.cat([batch for batch, _labels in batches]), expected)
    assert torch.equal(torch.cat([labels for _images, labels in batches]), run.train.labels)
    some = np.array([5, 0, 29])
    assert torch.equal(run.train.batch(some, CPU)[0], expected[some])


# Image files


class CountedFiles:
    """Image files of many sizes that count the times each is decoded."""

    def __init__(self, pictures: list[np.ndarray[Any, Any]]) -> None:
        self.pictures = pictures
        self.decoded: Counter[int] = Counter()

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> PIL.Image.Image:
        self.decoded[index] += 1
        return PIL.Image.fromarray(self.pictures[index])


@pytest.fixture
def files() -> CountedFiles:
    return CountedFiles([images(1, 20 + 3 * number, 30 - number, 3)[0] for number in range(6)])


def test_files_of_many_sizes_are_decoded_once(load: Load, files: CountedFiles) -> None:
    run = load({"train": ImageSplit(files, GOOD.labels), "test": GOOD})
    assert files.decoded == dict.fromkeys(range(6), 1)
    for _epoch in range(2):
        batch, labels = run.train.batch(np.array([4, 1]), CPU)
    assert files.decoded == dict.fromkeys(range(6), 1)
    expected = torch.cat([TRANSFORM(torch.from_numpy(files.pictures[index])[None]) for index in (4, 1)])
    assert torch.equal(batch, expected), "the same as resizing and normalising in one go"
    assert labels.tolist() == [1, 0]
    assert (run.record.train.pixels, run.record.train.resized) == ((16, 16, 3), True)
    assert (run.record.evaluation.pixels, run.record.evaluation.resized) == ((8, 8), False)


def test_files_that_are_not_chosen_are_not_decoded(load: Load, files: CountedFiles) -> None:
    run = load({"train": ImageSplit(files, GOOD.labels), "test": GOOD}, Subset(per_class=1))
    assert (len(run.train), files.decoded.total()) == (2, 2)


def test_files_and_their_fingerprint(load: Load, files: CountedFiles) -> None:
    once, again = (load({"train": ImageSplit(files, GOOD.labels), "test": GOOD}) for _time in range(2))
    files.pictures[3] = files.pictures[3].copy()
    files.pictures[3][0, 0, 0] ^= 1
    other = load({"train": ImageSplit(files, GOOD.labels), "test": GOOD})
    assert once.record.train.fingerprint == again.record.train.fingerprint != other.record.train.fingerprint


class ConcurrentFiles(CountedFiles):
    """The same, which several threads may ask; those in ``broken`` cannot be decoded."""

    concurrent = True
    broken: tuple[int, ...] = ()

    def __init__(self, pictures: list[np.ndarray[Any, Any]]) -> None:
        super().__init__(pictures)
        self.threads: set[int] = set()

    def __getitem__(self, index: int) -> PIL.Image.Image:
        self.threads.add(threading.get_ident())
        time.sleep(0.002 if index % 3 else 0.01)  # later ones are done earlier
        if index in self.broken:
            raise DataError(f"image {index} cannot be decoded", code="image-broken")
        return super().__getitem__(index)


def test_several_threads_decode_to_the_same(load: Load) -> None:
    pictures = [images(1, 20 + number % 5, 30, 3)[0] for number in range(40)]
    labels = np.arange(40) % 2
    one, several = CountedFiles(pictures), ConcurrentFiles(pictures)
    alone, together = (load({"train": ImageSplit(files, labels), "test": GOOD}) for files in (one, several))
    assert np.array_equal(alone.train.images, together.train.images)
    assert alone.record == together.record
    assert several.decoded == dict.fromkeys(range(40), 1)
    assert threading.get_ident() not in several.threads


def test_one_image_that_cannot_be_decoded_keeps_its_error(load: Load) -> None:
    files = ConcurrentFiles([images(1, 20, 30, 3)[0] for _number in range(20)])
    files.broken = (9,)
    with pytest.raises(DataError, match="image 9 cannot be decoded") as caught:
        load({"train": ImageSplit(files, np.arange(20) % 2), "test": GOOD})
    assert caught.value.code == "image-broken"
    assert "--skip-unreadable" in str(caught.value)


def test_all_images_that_cannot_be_decoded_are_listed_at_once(load: Load) -> None:
    files = ConcurrentFiles([images(1, 20, 30, 3)[0] for _number in range(40)])
    files.broken = tuple(range(2, 26, 2))
    with pytest.raises(DataError, match=r"12 of 40 images cannot be read: image 2 .*image 20 .*and 2 more") as caught:
        load({"train": ImageSplit(files, np.arange(40) % 2), "test": GOOD})
    assert (caught.value.code, caught.value.facts["count"]) == ("images-unreadable", 12)
    assert "image 22" not in str(caught.value)


def test_unreadable_images_can_be_skipped(load: Load) -> None:
    pictures = [images(1, 20 + number % 3, 30, 3)[0] for number in range(20)]
    files, whole = ConcurrentFiles(pictures), ConcurrentFiles(pictures[1:4] + pictures[5:])
    files.broken = (0, 4)
    labels = np.arange(20) % 2
    skip = ReadOptions(skip_unreadable=True)
    run = load({"train": ImageSplit(files, labels), "test": GOOD}, options=skip)
    expected = load({"train": ImageSplit(whole, np.delete(labels, (0, 4))), "test": GOOD})
    assert run.record.skipped == {"unreadable images": 2}
    assert expected.record.skipped == {}
    assert run.record.train == expected.record.train, "the same as without these files, by its digest too"
    assert np.array_equal(run.train.images, expected.train.images)
    assert torch.equal(run.train.labels, expected.train.labels)
    assert any("skipped 2 images" in line for line in run.warnings)


def test_a_class_is_not_skipped_whole(load: Load) -> None:
    files = ConcurrentFiles([images(1, 20, 30, 3)[0] for _number in range(10)])
    files.broken = tuple(range(0, 10, 2))
    with pytest.raises(DataError) as caught:
        load({"train": ImageSplit(files, np.arange(10) % 2), "test": GOOD}, options=ReadOptions(skip_unreadable=True))
    assert (caught.value.code, caught.value.facts["name"]) == ("class-unreadable", "cat")


def test_a_column_is_refused_where_there_is_none() -> None:
    with pytest.raises(UsageError) as caught:
        load_data(
            load_registry().dataset("digits")[0],
            None,
            None,
            Subset(),
            TRANSFORM,
            options=ReadOptions(label_column="kind"),
        )
    assert (caught.value.code, caught.value.facts["option"]) == ("option-unused", "label_column")


def test_a_class_that_the_evaluation_split_lacks_is_named(load: Load) -> None:
    run = load({"train": GOOD, "test": ImageSplit(GOOD.images[:1], GOOD.labels[:1])})
    lacking = "dog" if GOOD.labels[0] == 0 else "cat"
    assert [line for line in run.warnings if f"no image of 1 of 2 classes ('{lacking}')" in line]
    assert 0 in run.record.evaluation.per_class


@pytest.mark.parametrize(("classes", "told"), [(("cat", "Cat"), "differ only in case"), (("cat", "cat "), "spaces")])
def test_class_names_that_look_alike_are_told(load: Load, classes: tuple[str, ...], told: str) -> None:
    assert any(told in line for line in load({"train": GOOD, "test": GOOD}, classes=classes).warnings)


@pytest.mark.parametrize("name", ["a\x1b[2J", "a\u202eb", "", " ", "a\nb"])
def test_class_names_of_any_data_set_are_checked_when_it_is_read(load: Load, name: str) -> None:
    with pytest.raises(DataError) as caught:
        load({"train": GOOD, "test": GOOD}, classes=("cat", name))
    assert caught.value.code == "class-name"


def test_a_strip_is_refused_before_it_fills_the_memory(tmp_path: Path) -> None:
    for split in ("train", "test"):
        for name in ("cat", "dog"):
            (tmp_path / split / name).mkdir(parents=True)
            PIL.Image.new("RGB", (30, 40)).save(tmp_path / split / name / "1.png")
    PIL.Image.new("RGB", (60_000, 1)).save(tmp_path / "train" / "dog" / "strip.png")
    dataset, argument = load_registry().dataset(f"imagefolder:{tmp_path}")
    large = BatchTransform(Preprocessing(input_size=(224, 224)))
    with pytest.raises(DataError) as caught:
        load_data(dataset, argument, None, Subset(), large)
    assert caught.value.code == "image-strip"
    assert caught.value.facts["image"] == str(tmp_path / "train" / "dog" / "strip.png")


def test_image_folder(tmp_path: Path) -> None:
    for number in range(6):
        folder = tmp_path / ("cat" if number % 2 else "dog")
        folder.mkdir(exist_ok=True)
        PIL.Image.fromarray(images(1, 20 + number, 30, 3)[0]).save(folder / f"{number}.png")
    dataset, argument = load_registry().dataset(f"imagefolder:{tmp_path}")
    run = load_data(dataset, argument, None, Subset(val_fraction=0.34), TRANSFORM)
    assert run.record.classes == ("cat", "dog")
    assert run.record.argument == str(tmp_path)
    assert (run.record.train.per_class, run.record.evaluation.per_class) == ((2, 2), (1, 1))
    assert run.train.images.shape == (4, 16, 16, 3)


def test_many_decoded_images_are_stored_in_a_file_that_needs_no_removal(
    load: Load, files: CountedFiles, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    splits = {"train": ImageSplit(files, GOOD.labels), "test": GOOD}
    in_memory = load(splits)
    monkeypatch.setattr(decoding, "_IN_MEMORY", 100)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    mapped = load(splits)
    assert isinstance(mapped.train.images, np.memmap)
    assert list(tmp_path.iterdir()) == []
    everything = np.arange(6)
    assert torch.equal(mapped.train.batch(everything, CPU)[0], in_memory.train.batch(everything, CPU)[0])
    assert mapped.record == in_memory.record
    del mapped
    gc.collect()


def test_a_disk_that_is_too_small(load: Load, files: CountedFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_space(*_args: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(decoding, "_IN_MEMORY", 100)
    monkeypatch.setattr(os, "posix_fallocate", no_space)
    with pytest.raises(ZooError, match="No space left on device") as caught:
        load({"train": ImageSplit(files, GOOD.labels), "test": GOOD})
    assert caught.value.code == "disk-full"
