"""CIFAR as it is downloaded: the archives of the python and the binary version, and hostile ones."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from zoo import DataError, DatasetRequest
from zoo.dataset import LoadedDataset
from zoo_plugins.cifar import CIFAR10_LAYOUT, load_cifar10, load_cifar100
from zoo_plugins.cifar_files import CifarFiles
from zoo_plugins.datasets import CIFAR10_CLASSES, CIFAR100_CLASSES

from .test_datasets_cifar import rows, write_cifar10, write_cifar100


def pack(folder: Path, archive: Path, mode: str = "w:gz") -> Path:
    with tarfile.open(archive, mode) as tar:  # type: ignore[call-overload]
        tar.add(folder, folder.name)
    return archive


def write_binary10(folder: Path) -> Path:
    folder.mkdir(parents=True)
    names = [f"data_batch_{number}" for number in range(1, 6)] + ["test_batch"]
    for seed, name in enumerate(names):
        labels = np.arange(10, dtype=np.uint8)[:, None]
        (folder / f"{name}.bin").write_bytes(np.hstack([labels, rows(seed, 10)]).tobytes())
    (folder / "batches.meta.txt").write_text("\n".join(CIFAR10_CLASSES) + "\n\n")
    return folder


def write_binary100(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for seed, name in enumerate(("train", "test")):
        labels = np.stack([np.zeros(100), np.arange(100)], axis=1).astype(np.uint8)  # coarse, then fine
        (folder / f"{name}.bin").write_bytes(np.hstack([labels, rows(seed, 100)]).tobytes())
    (folder / "fine_label_names.txt").write_text("\n".join(CIFAR100_CLASSES))
    (folder / "coarse_label_names.txt").write_text("fish")
    return folder


def same(one: LoadedDataset, other: LoadedDataset) -> bool:
    return one.classes == other.classes and all(
        np.array_equal(one.splits[name].images, other.splits[name].images)
        and np.array_equal(one.splits[name].labels, other.splits[name].labels)
        for name in ("train", "test")
    )


@pytest.mark.parametrize(
    ("load", "python", "binary", "archives"),
    [
        (load_cifar10, write_cifar10, write_binary10, ("cifar-10-python.tar.gz", "cifar-10-binary.tar.gz")),
        (load_cifar100, write_cifar100, write_binary100, ("cifar-100-python.tar.gz", "cifar-100-binary.tar.gz")),
    ],
)
def test_both_versions_packed_and_unpacked_give_the_same(
    tmp_path: Path, load: Any, python: Any, binary: Any, archives: tuple[str, str]
) -> None:
    names = ("cifar-10-batches-py", "cifar-10-batches-bin")
    if load is load_cifar100:
        names = ("cifar-100-python", "cifar-100-binary")
    made = [write(tmp_path / name / name) for write, name in zip((python, binary), names, strict=True)]
    expected = load(DatasetRequest(data_dir=made[0]))
    for folder, name in zip(made, archives, strict=True):
        (tmp_path / f"of {name}").mkdir()
        archive = pack(folder, tmp_path / f"of {name}" / name)
        for place in (folder, folder.parent, archive, archive.parent):
            found = load(DatasetRequest(data_dir=place))
            assert same(found, expected), place
            assert (
                found.source
                == f"{'archive' if '.tar' in str(place) else 'folder'} {archive if '.tar' in str(place) else folder}"
            )
    assert [path.name for path in (tmp_path / f"of {archives[0]}").iterdir()] == [archives[0]], "nothing is unpacked"


def test_another_md5_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = pack(write_cifar10(tmp_path / "cifar-10-batches-py"), tmp_path / "cifar-10-python.tar.gz")
    digest = hashlib.md5(archive.read_bytes(), usedforsecurity=False).hexdigest()
    (told,) = load_cifar10(DatasetRequest(data_dir=archive)).warnings
    assert digest in told
    assert CIFAR10_LAYOUT.tgz_md5 in told
    monkeypatch.setattr(CIFAR10_LAYOUT, "tgz_md5", digest)
    assert load_cifar10(DatasetRequest(data_dir=archive)).warnings == ()
    (told,) = load_cifar10(DatasetRequest(data_dir=tmp_path / "cifar-10-batches-py")).warnings
    assert "data_batch_1, data_batch_2" in told


def test_damaged_archives_are_told_with_their_md5(tmp_path: Path) -> None:
    archive = pack(write_cifar10(tmp_path / "cifar-10-batches-py"), tmp_path / "cifar-10-python.tar.gz")
    whole = archive.read_bytes()
    flipped = bytearray(gzip.decompress(whole))
    flipped[5000] ^= 1
    broken_sum = gzip.compress(bytes(flipped))[:-8] + whole[-8:]
    for damaged in (b"", b"<html>", whole[:-9], whole[: len(whole) // 2], broken_sum, whole[:-8] + bytes(8)):
        archive.write_bytes(damaged)
        with pytest.raises(DataError) as caught:
            load_cifar10(DatasetRequest(data_dir=archive))
        assert caught.value.code in ("archive-damaged", "archive-other")
        assert str(archive) in str(caught.value)


def hostile(archive: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(archive, "w:gz") as tar:
        for member, content in members:
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return archive


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def test_paths_and_links_in_an_archive_lead_nowhere(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("\n".join(CIFAR10_CLASSES))
    archive = hostile(
        tmp_path / "a.tar.gz",
        (member("../../escaped"), b"out"),
        (member("/escaped"), b"out"),
        (member("cifar-10-batches-bin/batches.meta.txt", tarfile.SYMTYPE, str(secret)), b""),
        (member("cifar-10-batches-bin/data_batch_1.bin", tarfile.FIFOTYPE), b""),
    )
    with pytest.raises(DataError) as caught:
        load_cifar10(DatasetRequest(data_dir=archive))
    assert caught.value.code == "archive-other"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tar.gz", "secret"]


def test_files_that_would_fill_the_memory_are_refused(tmp_path: Path) -> None:
    archive = tmp_path / "a.tar.gz"
    for name in ("data_batch_1.bin", "unknown"):
        header = member(f"cifar-10-batches-bin/{name}")
        header.size = 2**31
        archive.write_bytes(gzip.compress(header.tobuf() + bytes(2**16)))
        with pytest.raises(DataError) as caught:
            load_cifar10(DatasetRequest(data_dir=archive))
        assert caught.value.code == "file-too-large"
    folder = write_binary10(tmp_path / "cifar-10-batches-bin")
    with (folder / "data_batch_2.bin").open("r+b") as file:
        file.truncate(2**31)  # sparse
    with pytest.raises(DataError) as caught:
        load_cifar10(DatasetRequest(data_dir=folder))
    assert caught.value.code == "file-too-large"


@pytest.mark.parametrize("content", [b"", bytes(3073 + 1), bytes([200]) + bytes(3072)])
def test_damaged_binary_batches_are_named(tmp_path: Path, content: bytes) -> None:
    folder = write_binary10(tmp_path / "cifar-10-batches-bin")
    (folder / "data_batch_3.bin").write_bytes(content)
    with pytest.raises(DataError, match=r"data_batch_3\.bin"):
        load_cifar10(DatasetRequest(data_dir=folder))


def test_an_archive_of_the_other_cifar_is_refused(tmp_path: Path) -> None:
    archive = pack(write_cifar100(tmp_path / "cifar-100-python"), tmp_path / "cifar-100-python.tar.gz")
    with pytest.raises(DataError) as caught:
        load_cifar10(DatasetRequest(data_dir=archive))
    assert caught.value.code == "archive-other"


@pytest.mark.timeout(20)
def test_a_pipe_in_place_of_a_batch_holds_up_nothing(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "data_batch_1")
    with pytest.raises(DataError) as raised:
        CifarFiles(tmp_path).read("data_batch_1", 100)
    assert raised.value.code == "file-unreadable"
