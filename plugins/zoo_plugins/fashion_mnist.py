"""Load Fashion-MNIST from idx files on this machine, or else from the Hub."""

from __future__ import annotations

import contextlib
import gzip
import re
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.dataset import DatasetRequest, ImageSplit, LoadedDataset
from zoo.errors import DataError
from zoo_plugins.datasets import FASHION_CLASSES, FASHION_HUB_ID
from zoo_plugins.idx_format import read_idx
from zoo_plugins.labels import checked_split
from zoo_plugins.locations import NotHere, data_folder, first_found, reach_advice

if TYPE_CHECKING:
    from zoo_plugins.hub_dataset import HubCopy

DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
DEBIAN_CHANGELOG = Path("/usr/share/doc/dataset-fashion-mnist/changelog.Debian.gz")
_PREFIX = {"train": "train", "test": "t10k"}
_SIDE = 28


def load(request: DatasetRequest) -> LoadedDataset:
    """Load both splits of Fashion-MNIST as grey images ``(N, 28, 28)``.

    ``--data-dir`` is the folder of the idx files, or a folder that contains ``FashionMNIST/raw`` as torchvision writes
    it. Without ``--data-dir``, zoo looks in Debian's package ``dataset-fashion-mnist``, in its own data folder (in
    torchvision's layout), and on the Hub, in this order.
    """
    if request.data_dir is not None:
        folder = request.data_dir.expanduser()
        locations = [lambda: _from_folder(folder)]
    else:
        locations = [
            _from_debian,
            lambda: _from_folder(data_folder()),
            lambda: _hub_copy().cached(),
            lambda: _hub_copy().online(),
        ]
    advice = "apt-get install dataset-fashion-mnist, or " + reach_advice("the idx files")
    return first_found("dataset fashion_mnist", locations, advice)


def _hub_copy() -> HubCopy:
    from zoo_plugins.hub_dataset import HubCopy  # this import loads ``datasets``, which takes a second

    return HubCopy(FASHION_HUB_ID, classes=FASHION_CLASSES)


def _from_debian() -> LoadedDataset:
    found = _from_folder(DEBIAN_FOLDER)
    source = f"Debian package dataset-fashion-mnist in {DEBIAN_FOLDER}"
    return LoadedDataset(found.classes, found.splits, source=source, revision=_debian_version())


def _debian_version() -> str | None:
    with contextlib.suppress(OSError), gzip.open(DEBIAN_CHANGELOG, "rt", encoding="utf-8") as changelog:
        match = re.search(r"\((\S+)\)", changelog.readline())
        return match.group(1) if match else None
    return None


def _from_folder(root: Path) -> LoadedDataset:
    for folder in (root, root / "raw", root / "FashionMNIST" / "raw"):
        if any(folder.glob("*-images-idx3-ubyte*")):
            splits = {name: _read_split(folder, prefix) for name, prefix in _PREFIX.items()}
            return LoadedDataset(FASHION_CLASSES, splits, source=f"folder {folder.resolve()}")
    reason = "no idx files in it" if root.is_dir() else "no such folder"
    raise NotHere(f"folder {root}", reason)


def _read_split(folder: Path, prefix: str) -> ImageSplit:
    path = _packed_or_not(folder / f"{prefix}-images-idx3-ubyte")
    images = read_idx(path, dimensions=3)
    if images.shape[1:] != (_SIDE, _SIDE):
        raise DataError(
            f"{path} holds images of {images.shape[1:]} pixels; expected {(_SIDE, _SIDE)}",
            code="image-array",
            path=str(path),
        )
    labels = read_idx(_packed_or_not(folder / f"{prefix}-labels-idx1-ubyte"), dimensions=1)
    return checked_split(images, labels, FASHION_CLASSES, str(path))


def _packed_or_not(path: Path) -> Path:
    packed = path.with_name(path.name + ".gz")
    if not path.is_file() and not packed.is_file():
        raise DataError(
            f"{path.parent} has neither {path.name} nor {packed.name}; copy the missing file there",
            code="missing-file",
            path=str(path),
        )
    return path if path.is_file() else packed
