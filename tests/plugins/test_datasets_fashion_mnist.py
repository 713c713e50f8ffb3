"""Fashion-MNIST: the real files where Debian's package is installed, and small files in the same format."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import huggingface_hub.constants
import numpy as np
import pytest

from zoo import DataError, DatasetRequest, UnreachableError, load_registry
from zoo_plugins import fashion_mnist
from zoo_plugins.idx_format import read_idx


def idx_bytes(array: np.ndarray) -> bytes:
    return bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def write_split(folder: Path, prefix: str, count: int, *, packed: bool = True) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    images = np.random.default_rng(count).integers(0, 256, (count, 28, 28), dtype=np.uint8)
    labels = (np.arange(count) % 10).astype(np.uint8)
    for name, array in ((f"{prefix}-images-idx3-ubyte", images), (f"{prefix}-labels-idx1-ubyte", labels)):
        content = idx_bytes(array)
        (folder / f"{name}.gz").write_bytes(gzip.compress(content)) if packed else (folder / name).write_bytes(content)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    write_split(tmp_path, "train", 20)
    write_split(tmp_path, "t10k", 10)
    return tmp_path


@pytest.mark.skipif(
    not fashion_mnist.DEBIAN_FOLDER.is_dir(), reason="Debian's package dataset-fashion-mnist is not installed"
)
def test_the_real_files_of_debians_package() -> None:
    loaded = fashion_mnist.load(DatasetRequest())
    record = load_registry().datasets["fashion_mnist"]
    assert {name: len(split) for name, split in loaded.splits.items()} == record.sizes
    assert loaded.classes == record.classes
    assert loaded.source == "Debian package dataset-fashion-mnist in /usr/share/datasets/fashion-mnist"
    assert np.bincount(loaded.splits["train"].labels).tolist() == [6000] * 10
    assert np.bincount(loaded.splits["test"].labels).tolist() == [1000] * 10
    assert loaded.splits["train"].images.mean() == pytest.approx(0.2860 * 255, abs=0.05)  # the published mean


@pytest.mark.parametrize("layout", ["", "raw", "FashionMNIST/raw"])
@pytest.mark.parametrize("packed", [True, False])
def test_a_data_dir_in_each_layout(tmp_path: Path, layout: str, packed: bool) -> None:
    write_split(tmp_path / layout, "train", 20, packed=packed)
    write_split(tmp_path / layout, "t10k", 10, packed=packed)
    loaded = fashion_mnist.load(DatasetRequest(data_dir=tmp_path))
    assert loaded.splits["train"].images.shape == (20, 28, 28)
    assert loaded.splits["test"].labels.tolist() == list(range(10))
    assert loaded.splits["train"].images.flags.writeable  # torch warns of arrays that are not


def test_the_zoos_data_folder_comes_before_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fashion_mnist, "DEBIAN_FOLDER", tmp_path / "no-package")
    monkeypatch.setenv("ZOO_DATA_DIR", str(tmp_path))
    write_split(tmp_path / "FashionMNIST" / "raw", "train", 20)
    write_split(tmp_path / "FashionMNIST" / "raw", "t10k", 10)
    assert fashion_mnist.load(DatasetRequest()).source == f"folder {tmp_path}/FashionMNIST/raw"


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "file-kind"),
        (b"\x89PNG\r\n", "file-kind"),
        (idx_bytes(np.zeros((2, 2), np.uint8)), "file-kind"),
        (idx_bytes(np.zeros(3, np.uint8))[:6], "file-damaged"),
        (idx_bytes(np.zeros(30, np.uint8))[:-1], "file-damaged"),
        (idx_bytes(np.zeros(30, np.uint8)) + b"x", "file-damaged"),
        (bytes((0, 0, 8, 1)) + b"\xff" * 4, "file-damaged"),
    ],
)
def test_a_damaged_idx_file_is_named(tmp_path: Path, content: bytes, code: str) -> None:
    for path, written in ((tmp_path / "labels", content), (tmp_path / "labels.gz", gzip.compress(content))):
        path.write_bytes(written)
        with pytest.raises(DataError) as caught:
            read_idx(path, dimensions=1)
        assert (caught.value.code, caught.value.facts["path"]) == (code, str(path))


def refusal(folder: Path) -> DataError:
    with pytest.raises(DataError) as caught:
        fashion_mnist.load(DatasetRequest(data_dir=folder))
    return caught.value


def test_a_truncated_or_false_gz_file_is_named(small: Path) -> None:
    path = small / "train-images-idx3-ubyte.gz"
    for content in (path.read_bytes()[:500], b"<html>"):
        path.write_bytes(content)
        error = refusal(small)
        assert (error.code, error.facts["path"]) == ("file-unreadable", str(path))


def test_files_that_do_not_fit_together_are_named(small: Path) -> None:
    write_split(small / "other", "t10k", 7)
    (small / "other" / "t10k-labels-idx1-ubyte.gz").replace(small / "t10k-labels-idx1-ubyte.gz")
    assert refusal(small).code == "label-count"
    (small / "t10k-labels-idx1-ubyte.gz").unlink()
    assert refusal(small).code == "missing-file"


def test_only_the_data_dir_is_searched(tmp_path: Path) -> None:
    with pytest.raises(UnreachableError, match="no idx files in it") as caught:
        fashion_mnist.load(DatasetRequest(data_dir=tmp_path))
    assert [place for place, _reason in caught.value.tried] == [f"folder {tmp_path}"]


def test_the_error_lists_every_location(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fashion_mnist, "DEBIAN_FOLDER", tmp_path / "no-package")
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "no-cache")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("ZOO_DATA_DIR", str(tmp_path / "no-data"))
    with pytest.raises(UnreachableError, match=r"HF_HUB_OFFLINE is set.*apt-get install.*--data-dir") as caught:
        fashion_mnist.load(DatasetRequest())
    assert len(caught.value.tried) == 4
