"""Load CIFAR-10 and CIFAR-100 from the Hub, from a folder or archive, or from the authors' server.

Folder names, file names, addresses and digests are copies of the constants in torchvision's dataset classes. A test
compares the copies with torchvision. This module does not import torchvision, because the import takes seconds.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo.dataset import DatasetRequest, ImageSplit, LoadedDataset
from zoo.errors import DataError
from zoo.reachability import why_unreachable
from zoo_plugins.cifar_batches import as_text, read_batch
from zoo_plugins.cifar_binary import read_binary_batch, read_class_names
from zoo_plugins.cifar_files import CifarFiles, check_md5, read_archive
from zoo_plugins.datasets import CIFAR10_CLASSES, CIFAR10_HUB_ID, CIFAR100_CLASSES, CIFAR100_HUB_ID
from zoo_plugins.labels import checked_split
from zoo_plugins.locations import NotHere, data_folder, first_found, reach_advice

if TYPE_CHECKING:
    from zoo_plugins.hub_dataset import HubCopy

_SHAPE = (3, 32, 32)


@dataclasses.dataclass
class PythonLayout:
    """A CIFAR archive of Python pickles, with the name and MD5 of each file; torchvision uses the same field names."""

    base_folder: str
    url: str
    filename: str
    tgz_md5: str
    train_list: tuple[tuple[str, str], ...]
    test_list: tuple[tuple[str, str], ...]
    meta: dict[str, str]


_HOME = "https://www.cs.toronto.edu/~kriz/"
CIFAR10_LAYOUT = PythonLayout(
    base_folder="cifar-10-batches-py",
    url=f"{_HOME}cifar-10-python.tar.gz",
    filename="cifar-10-python.tar.gz",
    tgz_md5="c58f30108f718f92721af3b95e74349a",
    train_list=(
        ("data_batch_1", "c99cafc152244af753f735de768cd75f"),
        ("data_batch_2", "d4bba439e000b95fd0a9bffe97cbabec"),
        ("data_batch_3", "54ebc095f3ab1f0389bbae665268c751"),
        ("data_batch_4", "634d18415352ddfa80567beed471001a"),
        ("data_batch_5", "482c414d41f54cd18b22e5b47cb7c3cb"),
    ),
    test_list=(("test_batch", "40351d587109b95175f43aff81a1287e"),),
    meta={"filename": "batches.meta", "key": "label_names", "md5": "5ff9c542aee3614f3951f8cda6e48888"},
)
CIFAR100_LAYOUT = PythonLayout(
    base_folder="cifar-100-python",
    url=f"{_HOME}cifar-100-python.tar.gz",
    filename="cifar-100-python.tar.gz",
    tgz_md5="eb9058c3a382ffc7106e4002c42a8d85",
    train_list=(("train", "16019d7e3df5f24257cddd939b257f8d"),),
    test_list=(("test", "f0ef6b0ae62326f3e7ffdfab6717acfc"),),
    meta={"filename": "meta", "key": "fine_label_names", "md5": "7973b15100ade9c7d40fb424638fde48"},
)


@dataclasses.dataclass(frozen=True)
class _Edition:
    name: str
    layout: PythonLayout
    labels_key: str
    classes: tuple[str, ...]
    hub_id: str
    hub_columns: tuple[str, str]
    binary: _Binary
    most: int  # the largest accepted file, in bytes: twice the size of the largest published file


@dataclasses.dataclass(frozen=True)
class _Binary:
    """The binary version of a CIFAR dataset, which torchvision cannot read."""

    folder: str
    train: tuple[str, ...]
    test: str
    names: str
    labels: int  # the number of label bytes before the pixels in each record
    archive: str
    md5: str


_CIFAR10 = _Edition(
    name="cifar10",
    layout=CIFAR10_LAYOUT,
    labels_key="labels",
    classes=CIFAR10_CLASSES,
    hub_id=CIFAR10_HUB_ID,
    hub_columns=("img", "label"),
    binary=_Binary(
        folder="cifar-10-batches-bin",
        train=tuple(f"data_batch_{number}.bin" for number in range(1, 6)),
        test="test_batch.bin",
        names="batches.meta.txt",
        labels=1,
        archive="cifar-10-binary.tar.gz",
        md5="c32a1d4ab5d03f1284b67883e8d87530",
    ),
    most=64 * 2**20,
)
_CIFAR100 = _Edition(
    name="cifar100",
    layout=CIFAR100_LAYOUT,
    labels_key="fine_labels",
    classes=CIFAR100_CLASSES,
    hub_id=CIFAR100_HUB_ID,
    hub_columns=("img", "fine_label"),
    binary=_Binary(
        folder="cifar-100-binary",
        train=("train.bin",),
        test="test.bin",
        names="fine_label_names.txt",
        labels=2,
        archive="cifar-100-binary.tar.gz",
        md5="03b5dce01913d631647c71ecec9e9cb8",
    ),
    most=320 * 2**20,
)


def load_cifar10(request: DatasetRequest) -> LoadedDataset:
    """Load CIFAR-10 with colour images ``(N, 32, 32, 3)``; ``--data-dir`` names the only folder or archive to read."""
    return _load(_CIFAR10, request)


def load_cifar100(request: DatasetRequest) -> LoadedDataset:
    """Load CIFAR-100 with its fine labels; the sources are the same as in :func:`load_cifar10`."""
    return _load(_CIFAR100, request)


def _load(edition: _Edition, request: DatasetRequest) -> LoadedDataset:
    if request.data_dir is not None:
        folder = request.data_dir.expanduser()
        locations = [lambda: _from_folder(edition, folder)]
    else:
        # The authors' server comes last, because downloads from this server have been slow since June 2026.
        locations = [
            lambda: _hub_copy(edition).cached(),
            lambda: _from_folder(edition, data_folder()),
            lambda: _hub_copy(edition).online(),
            lambda: _from_home_server(edition),
        ]
    advice = reach_advice(f"{edition.layout.base_folder} in it, or the archive {edition.layout.filename}")
    return first_found(f"dataset {edition.name}", locations, advice)


def _hub_copy(edition: _Edition) -> HubCopy:
    from zoo_plugins.hub_dataset import HubCopy  # this import loads ``datasets``, which takes a second

    return HubCopy(edition.hub_id, columns=edition.hub_columns, classes=edition.classes)


def _from_folder(edition: _Edition, root: Path) -> LoadedDataset:
    """Read the pickles of CIFAR, or else its binary files, from ``root``: a folder, its parent folder or an archive."""
    layout, binary = edition.layout, edition.binary
    if root.is_file():
        return _from_archive(edition, root)
    for folder in (root / layout.base_folder, root):
        if (folder / layout.meta["filename"]).is_file():
            published = [*layout.train_list, *layout.test_list]
            return _read_python(edition, CifarFiles(folder, warnings=check_md5(folder, published)))
    for folder in (root / binary.folder, root):
        if (folder / binary.train[0]).is_file():
            return _read_binary(edition, CifarFiles(folder))
    for archive in (root / layout.filename, root / binary.archive):
        if archive.is_file():
            return _from_archive(edition, archive)
    sought = f"neither {layout.base_folder} nor {layout.meta['filename']} in it, nor {binary.folder} or an archive"
    raise NotHere(f"folder {root}", sought if root.is_dir() else "no such folder")


def _from_archive(edition: _Edition, path: Path) -> LoadedDataset:
    layout, binary = edition.layout, edition.binary
    python = [layout.meta["filename"], *(name for name, _digest in (*layout.train_list, *layout.test_list))]
    wanted = [*python, *binary.train, binary.test, binary.names]
    published = {layout.meta["filename"]: layout.tgz_md5, binary.train[0]: binary.md5}
    files = read_archive(path, wanted, edition.most, published)
    if layout.meta["filename"] in files.contents:
        return _read_python(edition, files)
    return _read_binary(edition, files)


def _from_home_server(edition: _Edition) -> LoadedDataset:
    url = edition.layout.url
    reason = why_unreachable(url)
    if reason:
        raise NotHere(url, reason)
    from torchvision.datasets.utils import download_and_extract_archive  # this import loads torch, which takes seconds

    target = data_folder()
    try:
        target.mkdir(parents=True, exist_ok=True)
        # The archive is unpacked in a temporary folder and then moved; a killed download thus leaves no partial folder.
        with tempfile.TemporaryDirectory(prefix="incomplete-", dir=target) as scratch:
            download_and_extract_archive(url, scratch, md5=edition.layout.tgz_md5)
            (Path(scratch) / edition.layout.base_folder).replace(target / edition.layout.base_folder)
    except (OSError, RuntimeError) as error:  # torchvision raises RuntimeError for a wrong digest
        raise NotHere(url, f"{type(error).__name__}: {error}") from error
    found = _from_folder(edition, target)
    return dataclasses.replace(found, source=url)


def _read_python(edition: _Edition, files: CifarFiles) -> LoadedDataset:
    meta = edition.layout.meta
    names = _batch(edition, files, meta["filename"]).get(meta["key"])
    if not isinstance(names, list):
        names = [str(names)]
    _check_classes(edition, tuple(map(as_text, names)), files.called(meta["filename"]), meta["key"])
    lists = {"train": edition.layout.train_list, "test": edition.layout.test_list}
    splits = {
        split: _joined(_read_part(edition, files, name) for name, _digest in listed) for split, listed in lists.items()
    }
    return LoadedDataset(edition.classes, splits, source=files.source, warnings=files.warnings)


def _read_binary(edition: _Edition, files: CifarFiles) -> LoadedDataset:
    binary = edition.binary
    names = read_class_names(files, binary.names)
    _check_classes(edition, names, files.called(binary.names), "its lines")
    splits = {
        split: _joined(read_binary_batch(files, name, binary.labels, edition.classes, edition.most) for name in listed)
        for split, listed in (("train", binary.train), ("test", (binary.test,)))
    }
    return LoadedDataset(edition.classes, splits, source=files.source, warnings=files.warnings)


def _check_classes(edition: _Edition, names: tuple[str, ...], where: str, key: str) -> None:
    if names != edition.classes:
        raise DataError(
            f"{where} names the classes {list(names)} under {key!r}; expected the classes of {edition.name}",
            code="class-mismatch",
            path=where,
        )


def _batch(edition: _Edition, files: CifarFiles, name: str) -> dict[str, Any]:
    return read_batch(Path(files.called(name)), files.read(name, edition.most))


def _joined(parts: Iterable[ImageSplit]) -> ImageSplit:
    parts = list(parts)
    images = np.concatenate([part.images for part in parts])
    return ImageSplit(images=images, labels=np.concatenate([part.labels for part in parts]))


def _read_part(edition: _Edition, files: CifarFiles, name: str) -> ImageSplit:
    path, batch = files.called(name), _batch(edition, files, name)
    missing = {"data", edition.labels_key} - batch.keys()
    if missing:
        raise DataError(
            f"{path} has only the keys {sorted(batch)}, without {sorted(missing)}; expected a batch of {edition.name}",
            code="file-kind",
            path=str(path),
        )
    rows = batch["data"]
    if not isinstance(rows, np.ndarray) or rows.dtype != np.uint8 or rows.shape[1:] != (np.prod(_SHAPE),):
        found = f"{rows.dtype} {rows.shape}" if isinstance(rows, np.ndarray) else type(rows).__name__
        raise DataError(
            f"{path} holds data of {found}; expected uint8 (N, {np.prod(_SHAPE)})", code="image-array", path=str(path)
        )
    images = np.ascontiguousarray(rows.reshape(-1, *_SHAPE).transpose(0, 2, 3, 1))
    return checked_split(images, batch[edition.labels_key], edition.classes, path)
