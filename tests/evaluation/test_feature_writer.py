"""Files of features: bounded memory, the same bytes for the same input, nothing left behind, full disks named."""

from __future__ import annotations

import errno
import os
import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
from safetensors.numpy import load_file

from zoo import Preprocessing, UsageError, ZooError
from zoo_harness.evaluation import feature_writer as module
from zoo_harness.evaluation.feature_writer import WRITERS, check_ending, feature_writer
from zoo_harness.records.features import FeatureArray, FeatureRows, FeaturesRecord

RANDOM = np.random.default_rng(0)
ROWS = {"train": 70, "test": 30}
LABELS = RANDOM.integers(0, 2, 100)
INDICES = np.concatenate([np.arange(count) for count in ROWS.values()])
LAYERS = {"a": RANDOM.normal(size=(100, 5)).astype("f4"), "b.0": RANDOM.normal(size=(100, 33)).astype("f4")}
RECORD = FeaturesRecord(
    network="tiny",
    weights={"kind": "random"},
    tensors_sha256="0" * 64,
    preprocessing=Preprocessing((8, 8)),
    precision="fp32",
    device="cpu",
    seed=0,
    dataset="made",
    title="Made",
    class_names=("cat", "Hündin"),
    layers=tuple(
        FeatureArray(layer=layer, array=f"features.{layer}", width=array.shape[1], vector="flatten")
        for layer, array in LAYERS.items()
    ),
    splits=tuple(
        FeatureRows(split=split, source=split, rows=rows, per_class=(1, 1), subset="all images", fingerprint="f")  # type: ignore[arg-type]
        for split, rows in ROWS.items()
    ),
    versions={},
)


def write(path: Path, batch: int = 16) -> Path:
    with feature_writer(path, RECORD, LABELS, INDICES) as writer:
        for start in range(0, 100, batch):
            writer.append([array[start : start + batch] for array in LAYERS.values()])
    return path


def read(path: Path) -> dict[str, Any]:
    """The arrays as the libraries of each format read them."""
    if path.suffix == ".safetensors":
        found: dict[str, Any] = load_file(path)
        return {**found, "split": np.array(["train", "test"])[found["split"]]}
    if path.suffix == ".npz":
        return dict(np.load(path, allow_pickle=False))
    table = pyarrow.parquet.read_table(path).to_pydict()
    names = {"label": "labels", "index": "indices"}
    return {names.get(name, name): np.array(column) for name, column in table.items()}


@pytest.mark.parametrize("ending", WRITERS)
def test_a_file_holds_everything_and_other_libraries_read_it(
    ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ROW_GROUP_BYTES", 5_000)
    found = read(write(tmp_path / "new" / f"x{ending}"))
    for layer, array in LAYERS.items():
        assert np.array_equal(found[f"features.{layer}"], array)
    assert np.array_equal(found["labels"], LABELS)
    assert np.array_equal(found["indices"], INDICES)
    assert found["split"].tolist() == ["train"] * 70 + ["test"] * 30
    if ending == ".npz":
        assert found["class_names"].tolist() == ["cat", "Hündin"]
        assert FeaturesRecord.model_validate_json(str(found["blockzoo"])) == RECORD
    if ending == ".parquet":
        assert found["class"].tolist() == [RECORD.class_names[label] for label in LABELS]
        assert pyarrow.parquet.ParquetFile(tmp_path / "new" / "x.parquet").num_row_groups > 2


@pytest.mark.parametrize("ending", WRITERS)
def test_the_same_features_give_the_same_bytes(ending: str, tmp_path: Path) -> None:
    first, second = (write(tmp_path / f"{name}{ending}").read_bytes() for name in "xy")
    assert first == second
    if ending != ".parquet":  # whose row groups end with a batch
        assert write(tmp_path / f"z{ending}", batch=100).read_bytes() == first


@pytest.mark.parametrize("ending", WRITERS)
def test_an_error_leaves_no_file(ending: str, tmp_path: Path) -> None:
    def interrupted() -> None:
        with feature_writer(tmp_path / f"x{ending}", RECORD, LABELS, INDICES) as writer:
            writer.append([array[:50] for array in LAYERS.values()])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_is_too_small_is_named_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = namedtuple("free", "free")
    size = 4 * 100 * 38
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: free(size))
    write(tmp_path / "x.safetensors")
    with pytest.raises(ZooError) as caught:  # whose layers are written twice
        write(tmp_path / "x.npz")
    assert (caught.value.code, caught.value.facts["needed"], caught.value.facts["free"]) == (
        "disk-full",
        2 * size,
        size,
    )
    assert [file.name for file in tmp_path.iterdir()] == ["x.safetensors"]


def test_a_disk_that_fills_up_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_descriptor: int, _offset: int, _length: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(ZooError) as caught:
        write(tmp_path / "x.safetensors")
    assert (caught.value.code, caught.value.facts["path"]) == ("disk-full", str(tmp_path))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["x", "x.pt", "x.npy", "npz"])
def test_other_endings_are_refused(name: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_ending(Path(name))
    assert (caught.value.code, caught.value.facts["path"]) == ("out-ending", name)
