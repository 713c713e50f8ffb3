"""CIFAR in torchvision's layout: small files in the real format, written as Python 2 and Python 3 write them."""

from __future__ import annotations

import functools
import hashlib
import http.server
import os
import pickle
import struct
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import huggingface_hub.constants
import numpy as np
import pytest
import torchvision.datasets

from zoo import DataError, DatasetRequest, UnreachableError
from zoo_plugins.cifar import CIFAR10_LAYOUT, CIFAR100_LAYOUT, load_cifar10, load_cifar100
from zoo_plugins.cifar_batches import read_batch
from zoo_plugins.datasets import CIFAR10_CLASSES, CIFAR100_CLASSES


class Python2Pickler(pickle._Pickler):
    """Writes what Python 2's protocol 2 wrote: text and bytes alike as byte strings, numpy under its old name."""

    dispatch: ClassVar = dict(pickle._Pickler.dispatch)

    def save_byte_string(self, value: str | bytes) -> None:
        content = value if isinstance(value, bytes) else value.encode("latin1")
        self.write(pickle.BINSTRING + struct.pack("<i", len(content)) + content)
        self.memoize(value)

    dispatch[str] = dispatch[bytes] = save_byte_string

    def save_global(self, value: Any, name: str | None = None) -> None:
        module = value.__module__.replace("numpy._core", "numpy.core")
        self.write(pickle.GLOBAL + f"{module}\n{name or value.__name__}\n".encode())
        self.memoize(value)

    dispatch[type] = save_global


def write_as_python2(path: Path, content: object) -> None:
    with path.open("wb") as file:
        Python2Pickler(file, protocol=2).dump(content)


def write_as_python3(path: Path, content: object) -> None:
    path.write_bytes(pickle.dumps(content, protocol=2))


def write_with_byte_keys(path: Path, content: dict[str, Any]) -> None:
    write_as_python3(path, {key.encode(): value for key, value in content.items()})


def rows(seed: int, count: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 3072), dtype=np.uint8)


def write_cifar10(folder: Path, write: Any = write_as_python3) -> Path:
    folder.mkdir(parents=True)
    batches = [f"data_batch_{number}" for number in range(1, 6)] + ["test_batch"]
    for seed, name in enumerate(batches):
        filenames = [f"leptodactylus_pentadactylus_s_{image:06}.png" for image in range(10)]
        content = {"batch_label": name, "labels": list(range(10)), "data": rows(seed, 10), "filenames": filenames}
        write(folder / name, content)
    write(folder / "batches.meta", {"num_cases_per_batch": 10, "label_names": list(CIFAR10_CLASSES), "num_vis": 3072})
    return folder


def write_cifar100(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for seed, name in enumerate(("train", "test")):
        labels = {"fine_labels": list(range(100)), "coarse_labels": [0] * 100}
        write_as_python2(folder / name, {"data": rows(seed, 100), "batch_label": name, **labels})
    meta = {"fine_label_names": list(CIFAR100_CLASSES), "coarse_label_names": ["fish"]}
    write_as_python2(folder / "meta", meta)
    return folder


@pytest.mark.parametrize("write", [write_as_python2, write_as_python3, write_with_byte_keys])
@pytest.mark.parametrize("given", ["parent", "itself"])
def test_cifar10_reads_what_torchvision_reads(
    tmp_path: Path, write: Any, given: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_cifar10(tmp_path / "cifar-10-batches-py", write)
    loaded = load_cifar10(DatasetRequest(data_dir=tmp_path if given == "parent" else folder))
    assert loaded.classes == CIFAR10_CLASSES
    assert loaded.source == f"folder {folder}"
    assert loaded.splits["train"].labels.tolist() == [*range(10)] * 5
    if write is write_with_byte_keys:  # torchvision reads text keys alone
        return
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "_check_integrity", lambda _self: True)
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)
    for train, split in ((True, "train"), (False, "test")):
        theirs = torchvision.datasets.CIFAR10(tmp_path, train=train)
        assert np.array_equal(loaded.splits[split].images, theirs.data)
        assert loaded.splits[split].labels.tolist() == theirs.targets


def test_python2_files_hold_byte_strings_and_the_old_numpy_name(tmp_path: Path) -> None:
    write_as_python2(tmp_path / "batch", {"data": rows(0, 2)})
    content = (tmp_path / "batch").read_bytes()
    assert b"cnumpy.core.multiarray\n_reconstruct\n" in content
    assert b"_codecs" not in content
    assert np.array_equal(read_batch(tmp_path / "batch")["data"], rows(0, 2))


def test_cifar100_gives_the_fine_labels(tmp_path: Path) -> None:
    write_cifar100(tmp_path / "cifar-100-python")
    loaded = load_cifar100(DatasetRequest(data_dir=tmp_path))
    assert loaded.classes == CIFAR100_CLASSES
    assert loaded.splits["test"].labels.tolist() == list(range(100))
    assert loaded.splits["test"].images.shape == (100, 32, 32, 3)
    assert np.array_equal(loaded.splits["train"].images[0, :, :, 1].ravel(), rows(0, 100)[0, 1024:2048])


class Hostile:
    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.call


@pytest.mark.parametrize("function", [os.mkdir, eval, getattr, np.load])
def test_a_pickle_that_asks_for_more_than_arrays_is_refused(tmp_path: Path, function: Any) -> None:
    folder = write_cifar10(tmp_path / "cifar-10-batches-py")
    trap = tmp_path / "trap"
    write_as_python3(folder / "data_batch_3", {"data": Hostile(function, str(trap)), "labels": []})
    with pytest.raises(DataError, match=rf"\.{function.__name__}") as caught:
        load_cifar10(DatasetRequest(data_dir=tmp_path))
    assert not trap.exists()
    assert caught.value.code == "file-unsafe"
    assert caught.value.facts["path"] == str(folder / "data_batch_3")


@pytest.mark.parametrize(
    ("content", "code"),
    [
        ([1, 2], "file-kind"),
        ({"data": rows(0, 2)}, "file-kind"),
        ({"data": "abc", "labels": [0]}, "image-array"),
        ({"data": rows(0, 2).astype(float), "labels": [0, 1]}, "image-array"),
        ({"data": rows(0, 2)[:, :5], "labels": [0, 1]}, "image-array"),
        ({"data": rows(0, 2), "labels": [0]}, "label-count"),
        ({"data": rows(0, 2), "labels": [0, "cat"]}, "label-type"),
        ({"data": rows(0, 2), "labels": [0.0, 0.5]}, "label-type"),
        ({"data": rows(0, 2), "labels": [0, 10]}, "label-unknown"),
    ],
)
def test_a_batch_with_other_content_is_named(tmp_path: Path, content: object, code: str) -> None:
    folder = write_cifar10(tmp_path / "cifar-10-batches-py")
    write_as_python3(folder / "data_batch_2", content)
    with pytest.raises(DataError, match="data_batch_2") as caught:
        load_cifar10(DatasetRequest(data_dir=tmp_path))
    assert caught.value.code == code


def test_damaged_and_missing_files_are_named(tmp_path: Path) -> None:
    folder = write_cifar10(tmp_path / "cifar-10-batches-py")
    whole = (folder / "data_batch_5").read_bytes()
    for damaged in (b"", whole[: len(whole) // 2], b"\x80\x02" + b"}" * 9, b"<html>", None):
        if damaged is None:
            (folder / "data_batch_5").unlink()
        else:
            (folder / "data_batch_5").write_bytes(damaged)
        with pytest.raises(DataError) as caught:
            load_cifar10(DatasetRequest(data_dir=tmp_path))
        assert caught.value.code in ("file-unreadable", "file-kind")
        assert caught.value.facts["path"] == str(folder / "data_batch_5")


@pytest.mark.parametrize("meta", [{"label_names": ["cat", "dog"]}, {"label_names": 10}, {}])
def test_other_class_names_are_refused(tmp_path: Path, meta: dict[str, Any]) -> None:
    folder = write_cifar10(tmp_path / "cifar-10-batches-py")
    write_as_python3(folder / "batches.meta", meta)
    with pytest.raises(DataError) as caught:
        load_cifar10(DatasetRequest(data_dir=tmp_path))
    assert (caught.value.code, caught.value.facts["path"]) == ("class-mismatch", str(folder / "batches.meta"))


def test_only_the_data_dir_is_searched(tmp_path: Path) -> None:
    with pytest.raises(UnreachableError) as caught:
        load_cifar10(DatasetRequest(data_dir=tmp_path))
    assert len(caught.value.tried) == 1


@pytest.mark.parametrize("name", ["CIFAR10", "CIFAR100"])
def test_names_addresses_and_digests_are_those_of_torchvision(name: str) -> None:
    ours, theirs = {"CIFAR10": CIFAR10_LAYOUT, "CIFAR100": CIFAR100_LAYOUT}[name], getattr(torchvision.datasets, name)
    for field, value in vars(ours).items():
        published = getattr(theirs, field)
        assert value == (tuple(map(tuple, published)) if isinstance(published, list) else published), field


@pytest.fixture
def unreachable_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    # The top-level domain "invalid" never resolves, with or without a network (RFC 2606).
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "https://hub.invalid")
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "no-cache")
    monkeypatch.setenv("ZOO_DATA_DIR", str(tmp_path / "data"))


@pytest.mark.usefixtures("unreachable_hub")
def test_the_error_lists_every_location(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CIFAR100_LAYOUT, "url", "https://home.invalid/cifar-100-python.tar.gz")
    with pytest.raises(UnreachableError, match=r"--data-dir FOLDER with cifar-100-python.*HF_HUB_OFFLINE") as caught:
        load_cifar100(DatasetRequest())
    reasons = [reason for _place, reason in caught.value.tried]
    assert [len(reasons), sum("does not resolve" in reason for reason in reasons)] == [4, 2]


@pytest.fixture
def home_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = tmp_path / "home"
    folder.mkdir()
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}/cifar-10-python.tar.gz"
        monkeypatch.setattr(CIFAR10_LAYOUT, "url", url)
        yield folder
        server.shutdown()
        thread.join()


@pytest.mark.usefixtures("unreachable_hub")
def test_the_home_servers_archive_is_checked_unpacked_and_found_again(
    home_server: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = home_server / "cifar-10-python.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(write_cifar10(tmp_path / "made" / "cifar-10-batches-py"), "cifar-10-batches-py")
    url = CIFAR10_LAYOUT.url
    with pytest.raises(UnreachableError, match="corrupted"):  # torchvision's digest is that of the real archive
        load_cifar10(DatasetRequest())
    assert list((tmp_path / "data").iterdir()) == []
    digest = hashlib.md5(archive.read_bytes(), usedforsecurity=False).hexdigest()
    monkeypatch.setattr(CIFAR10_LAYOUT, "tgz_md5", digest)
    assert load_cifar10(DatasetRequest()).source == url
    assert load_cifar10(DatasetRequest()).source == f"folder {tmp_path}/data/cifar-10-batches-py"
