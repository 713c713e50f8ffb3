"""What ``zoo.dataset_stats`` measures: the figures of plain numpy, for arrays, files of many sizes and 16 bits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import skimage.data

import zoo
from zoo import DataError
from zoo.registry import load_registry
from zoo_harness.data.loading import load_data
from zoo_harness.data.transform import BatchTransform
from zoo_harness.records.subset import Subset

from ..plugins.test_datasets_cifar import rows, write_cifar100

COLOURS = skimage.data.coffee()


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(pixels).save(path)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Crops of a photo, 10 to 60 pixels a side, in two classes and two splits, and a grey one."""
    draws = np.random.default_rng(0)
    for split, count in (("train", 6), ("test", 2)):
        for name in ("cat", "dog"):
            for number in range(count):
                y, x, height, width = draws.integers(10, 60, 4)
                save(tmp_path / split / name / f"{number}.png", COLOURS[y : y + height, x : x + width])
    save(tmp_path / "train" / "cat" / "grey.png", skimage.data.camera()[:20, :30])
    return tmp_path


def pixels_of(folder: Path) -> list[np.ndarray]:
    return [np.array(PIL.Image.open(path).convert("RGB")) for path in sorted(folder.rglob("*.png"))]


def test_files_of_many_sizes_have_the_figures_of_numpy(photos: Path) -> None:
    found = zoo.dataset_stats(f"imagefolder:{photos}")
    assert [*found.splits] == ["train", "test"]
    for name, split in found.splits.items():
        images = pixels_of(photos / name)
        values = np.concatenate([image.reshape(-1, 3) for image in images]) / 255
        assert (split.images, split.pixels) == (len(images), len(values))
        assert split.mean == pytest.approx(values.mean(0))
        assert split.std == pytest.approx(values.std(0))
        for measured, expected in (
            (split.height, [image.shape[0] for image in images]),
            (split.width, [image.shape[1] for image in images]),
            (split.aspect_ratio, [image.shape[1] / image.shape[0] for image in images]),
        ):
            assert (measured.min, measured.median, measured.max) == (min(expected), np.median(expected), max(expected))
        luma = [float((image.reshape(-1, 3).mean(0) / 255) @ (0.299, 0.587, 0.114)) for image in images]
        shown = split.brightness
        assert shown.darkest.value == pytest.approx(min(luma))
        assert shown.brightest.value == pytest.approx(max(luma))
        assert shown.mean == pytest.approx(np.mean(luma))
        expected = np.quantile(luma, (0.05, 0.5, 0.95))
        assert (shown.percentile_5, shown.median, shown.percentile_95) == pytest.approx(expected)
        darkest = sorted((photos / name).rglob("*.png"))[int(np.argmin(luma))]
        assert shown.darkest.name == str(darkest.relative_to(photos))
        assert split.size is None
    train, test = found.splits.values()
    assert (train.per_class, test.per_class) == ((7, 6), (2, 2))
    assert (train.grey, test.grey) == (1, 0)


def test_files_in_the_format_of_cifar_have_the_figures_of_numpy(tmp_path: Path) -> None:
    write_cifar100(tmp_path / "cifar-100-python")
    found = zoo.dataset_stats("cifar100", data_dir=tmp_path)
    for seed, split in enumerate(found.splits.values()):
        values = rows(seed, 100).reshape(100, 3, 1024) / 255
        assert split.mean == pytest.approx(values.mean((0, 2)))
        assert split.std == pytest.approx(values.std((0, 2)))
        assert (split.size, split.images, split.grey) == ((32, 32), 100, 0)
    assert found.duplicates == ()


def test_images_of_16_bits_are_read_by_one_range(tmp_path: Path) -> None:
    levels = np.arange(900, dtype=np.uint16).reshape(30, 30)
    for split in ("train", "test"):
        for name, factor in (("cat", 1), ("dog", 4)):  # 10 and 12 bits
            save(tmp_path / split / name / "0.png", levels * factor)
    found = zoo.dataset_stats(f"imagefolder:{tmp_path}")
    assert found.value_range == (0, 4095)
    values = np.concatenate([levels, levels * 4]) // 16 / 255
    assert found.splits["train"].mean == pytest.approx((values.mean(),) * 3)
    assert found.splits["train"].grey == 2


def test_equal_images_are_those_that_a_run_finds(photos: Path) -> None:
    save(photos / "test" / "dog" / "same.png", pixels_of(photos / "train" / "cat")[0])
    found = zoo.dataset_stats(f"imagefolder:{photos}")
    dataset, argument = load_registry().dataset(f"imagefolder:{photos}")
    run = load_data(dataset, argument, None, Subset(), BatchTransform(zoo.Preprocessing((16, 16))))
    assert found.duplicates == run.record.duplicates
    assert [(each.split, each.other, each.images, each.other_label) for each in found.duplicates] == [
        ("test", "train", 1, 1)
    ]


def test_unreadable_images_are_refused_or_skipped(photos: Path, caplog: pytest.LogCaptureFixture) -> None:
    before = zoo.dataset_stats(f"imagefolder:{photos}")
    (photos / "train" / "cat" / "00.png").write_bytes(b"damaged")
    with pytest.raises(DataError) as caught:
        zoo.dataset_stats(f"imagefolder:{photos}")
    assert caught.value.facts["count"] == 1
    found = zoo.dataset_stats(f"imagefolder:{photos}", skip_unreadable=True)
    assert found.skipped == {"unreadable images": 1}
    assert (found.splits, found.duplicates) == (before.splits, before.duplicates)
    assert any("skipped 1 images" in message for message in caplog.messages)


def test_a_subset_is_that_of_a_run(photos: Path) -> None:
    subset, name = Subset(per_class=3, seed=5), f"imagefolder:{photos}"
    found = zoo.dataset_stats(name, per_class=3, seed=5)
    dataset, argument = load_registry().dataset(name)
    transform = BatchTransform(zoo.Preprocessing((16, 16)))
    run = load_data(dataset, argument, None, subset, transform, count_values=True)
    train, counts = found.splits["train"], run.train.counts
    assert counts is not None
    assert (train.mean, train.std, train.pixels) == (counts.mean, counts.std, counts.pixels)
    assert (train.per_class, found.splits["test"].per_class) == ((3, 3), (2, 2))
    assert found.subset.startswith("3 images per class of the train split, 2 of the test split")


def test_arrays_in_memory_are_measured() -> None:
    images = np.arange(6, dtype=np.uint8).repeat(4).reshape(6, 2, 2)
    found = zoo.dataset_stats(zoo.in_memory(images, [0, 1, 0, 1, 0, 1]))
    [split] = found.splits.values()
    assert split.mean == pytest.approx((2.5 / 255,) * 3)
    assert (split.brightness.darkest.name, split.brightness.brightest.name) == ("train image 0", "train image 5")
    assert (split.size, split.grey, split.per_class) == ((2, 2), 6, (3, 3))
