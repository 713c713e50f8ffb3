"""CIFAR-10 and CIFAR-100 from the Hub, a folder in torchvision's layout, or their home server.

Folder and file names, address and digest are read from torchvision's classes, not written here.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torchvision.datasets
from torchvision.datasets.utils import download_and_extract_archive

from zoo.dataset import DatasetRequest, ImageSplit, LoadedDataset
from zoo.errors import DataError
from zoo.reachability import why_unreachable
from zoo_plugins.cifar_batches import as_text, read_batch
from zoo_plugins.datasets import CIFAR10_CLASSES, CIFAR10_HUB_ID, CIFAR100_CLASSES, CIFAR100_HUB_ID
from zoo_plugins.hub_dataset import HubCopy
from zoo_plugins.labels import checked_split
from zoo_plugins.locations import NotHere, data_folder, first_found, reach_advice

_SHAPE = (3, 32, 32)


@dataclasses.dataclass(frozen=True)
class _Edition:
    name: str
    layout: Any
    labels_key: str
    classes: tuple[str, ...]
    hub: HubCopy


_CIFAR10 = _Edition(
    name="cifar10",
    layout=torchvision.datasets.CIFAR10,
    labels_key="labels",
    classes=CIFAR10_CLASSES,
    hub=HubCopy(CIFAR10_HUB_ID, columns=("img", "label"), classes=CIFAR10_CLASSES),
)
_CIFAR100 = _Edition(
    name="cifar100",
    layout=torchvision.datasets.CIFAR100,
    labels_key="fine_labels",
    classes=CIFAR100_CLASSES,
    hub=HubCopy(CIFAR100_HUB_ID, columns=("img", "fine_label"), classes=CIFAR100_CLASSES),
)


def load_cifar10(request: DatasetRequest) -> LoadedDataset:
    """Load both splits, colour ``(N, 32, 32, 3)``; with ``--data-dir`` only from there."""
    return _load(_CIFAR10, request)


def load_cifar100(request: DatasetRequest) -> LoadedDataset:
    """Load both splits, fine labels, colour ``(N, 32, 32, 3)``; with ``--data-dir`` only from there."""
    return _load(_CIFAR100, request)


def _load(edition: _Edition, request: DatasetRequest) -> LoadedDataset:
    if request.data_dir is not None:
        folder = request.data_dir.expanduser()
        locations = [lambda: _from_folder(edition, folder)]
    else:
        # This machine, then the Hub, then the home server, which has been throttled since June 2026.
        locations = [
            edition.hub.cached,
            lambda: _from_folder(edition, data_folder()),
            edition.hub.online,
            lambda: _from_home_server(edition),
        ]
    advice = reach_advice(f"{edition.layout.base_folder} in it, as torchvision unpacks it")
    return first_found(f"data set {edition.name}", locations, advice)


def _from_folder(edition: _Edition, root: Path) -> LoadedDataset:
    meta_file = edition.layout.meta["filename"]
    for folder in (root / edition.layout.base_folder, root):
        if (folder / meta_file).is_file():
            return _read_folder(edition, folder)
    reason = f"neither {edition.layout.base_folder} nor {meta_file} in it" if root.is_dir() else "no such folder"
    raise NotHere(f"folder {root}", reason)


def _from_home_server(edition: _Edition) -> LoadedDataset:
    url = edition.layout.url
    reason = why_unreachable(url)
    if reason:
        raise NotHere(url, reason)
    target = data_folder()
    try:
        target.mkdir(parents=True, exist_ok=True)
        # Unpacked elsewhere and moved when complete, so that a killed download leaves no partial folder.
        with tempfile.TemporaryDirectory(prefix="incomplete-", dir=target) as scratch:
            download_and_extract_archive(url, scratch, md5=edition.layout.tgz_md5)
            (Path(scratch) / edition.layout.base_folder).replace(target / edition.layout.base_folder)
    except (OSError, RuntimeError) as error:  # torchvision raises RuntimeError for a wrong digest
        raise NotHere(url, f"{type(error).__name__}: {error}") from error
    found = _from_folder(edition, target)
    return dataclasses.replace(found, source=url)


def _read_folder(edition: _Edition, folder: Path) -> LoadedDataset:
    _check_classes(edition, folder / edition.layout.meta["filename"])
    files = {"train": edition.layout.train_list, "test": edition.layout.test_list}
    splits = {
        split: _read_split(edition, [folder / name for name, _digest in listed]) for split, listed in files.items()
    }
    return LoadedDataset(edition.classes, splits, source=f"folder {folder.resolve()}")


def _check_classes(edition: _Edition, path: Path) -> None:
    key = edition.layout.meta["key"]
    names = read_batch(path).get(key)
    if not isinstance(names, list) or tuple(map(as_text, names)) != edition.classes:
        raise DataError(
            f"{path} names the classes {names} under {key!r}; expected those of {edition.name}",
            code="class-mismatch",
            path=str(path),
        )


def _read_split(edition: _Edition, paths: Iterable[Path]) -> ImageSplit:
    parts = [_read_part(edition, path) for path in paths]
    images = np.concatenate([part.images for part in parts])
    return ImageSplit(images=images, labels=np.concatenate([part.labels for part in parts]))


def _read_part(edition: _Edition, path: Path) -> ImageSplit:
    batch = read_batch(path)
    missing = {"data", edition.labels_key} - batch.keys()
    if missing:
        raise DataError(
            f"{path} lacks {sorted(missing)}; it has {sorted(batch)}; expected a batch of {edition.name}",
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
    return checked_split(images, batch[edition.labels_key], edition.classes, str(path))
