"""The user's own images: one folder per class, or a train and a test folder of such folders."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import PIL.Image
from torchvision.datasets.folder import IMG_EXTENSIONS

from zoo.dataset import DatasetRequest, ImageSplit, LoadedDataset
from zoo.errors import DataError, UsageError
from zoo_plugins.decoding import decode_image
from zoo_plugins.labels import checked_split

EVALUATION_FOLDERS = ("test", "val", "validation")
_LAYOUT = "expected PATH/train/CLASS/*.jpg and PATH/test/CLASS/*.jpg, or PATH/CLASS/*.jpg"


class ImagePaths:
    """Images decoded from their files when they are asked for, as RGB."""

    concurrent = True

    def __init__(self, paths: list[Path]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> PIL.Image.Image:
        """Decode one; raises :class:`~zoo.errors.DataError` with its path when that fails."""
        path = self.paths[index]
        try:
            with path.open("rb") as file:
                return decode_image(file, str(path)).convert("RGB")
        except OSError as error:
            raise DataError(f"{path} cannot be opened: {error.strerror or error}") from error


def load(request: DatasetRequest) -> LoadedDataset:
    """The folder that the argument names: splits ``train`` and, where there is one, ``test``.

    ``test`` is read from the first of :data:`EVALUATION_FOLDERS` that exists. Classes are in alphabetical
    order, as in torchvision; hidden files are passed over, and so are files that are no images, with a warning.
    """
    if request.data_dir is not None:
        raise UsageError(f"imagefolder:PATH names its folder itself; leave out --data-dir, given {request.data_dir}")
    root = Path(request.argument or "").expanduser()
    if not request.argument or not root.is_dir():
        raise UsageError(f"imagefolder:{request.argument or 'PATH'} needs a folder that exists; {_LAYOUT}")
    try:
        return _load_folder(root)
    except OSError as error:
        raise DataError(f"{error.filename or root} cannot be read: {error.strerror or error}") from error


def _load_folder(root: Path) -> LoadedDataset:
    folders = _split_folders(root)
    classes = _class_names(folders["train"])
    if "test" in folders:
        _check_same_classes(classes, folders)
    left_out: list[Path] = []
    splits = {name: _read_split(folder, classes, left_out) for name, folder in folders.items()}
    source = f"folder {root.resolve()}"
    if "test" in folders and folders["test"].name != "test":
        source += f" (split test is its folder {folders['test'].name})"
    return LoadedDataset(classes, splits, source=source, warnings=_told_of(left_out))


def _split_folders(root: Path) -> dict[str, Path]:
    train = root / "train"
    evaluation = next((root / name for name in EVALUATION_FOLDERS if _has_folders(root / name)), None)
    if not _has_folders(train):  # a folder "train" with images right in it is a class: think of vehicles
        if evaluation is not None:
            raise DataError(f"{root} has {evaluation.name} but no train with class folders in it; {_LAYOUT}")
        return {"train": root}
    if evaluation is None:
        return {"train": train}
    if evaluation.resolve() == train.resolve():
        raise DataError(f"{evaluation} and {train} are one and the same folder; test images must not be trained on")
    return {"train": train, "test": evaluation}


def _class_names(folder: Path) -> tuple[str, ...]:
    names = tuple(sorted(child.name for child in _visible_folders(folder)))
    if not set(names) - {"train", *EVALUATION_FOLDERS}:
        raise DataError(f"{folder} has no class folders (folders found: {', '.join(names) or 'none'}); {_LAYOUT}")
    if len(names) < 2:
        raise DataError(f"{folder} has only one class folder, {names[0]!r}; expected two or more; {_LAYOUT}")
    return names


def _check_same_classes(classes: tuple[str, ...], folders: dict[str, Path]) -> None:
    tested = {child.name for child in _visible_folders(folders["test"])}
    for one, other, extra in (
        ("train", "test", set(classes) - tested),
        ("test", "train", tested - set(classes)),
    ):
        if extra:
            raise DataError(
                f"classes {sorted(extra)} are in {folders[one]} but not in {folders[other]};"
                " both need the same class folders"
            )


def _read_split(folder: Path, classes: tuple[str, ...], left_out: list[Path]) -> ImageSplit:
    paths: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        files = sorted(_visible_files(folder / name))
        found = [path for path in files if _is_image(path)]
        left_out += [path for path in files if not _is_image(path)]
        if not found:
            others = f" but {len(files)} file(s) ending in {_endings(files)}" if files else ""
            raise DataError(f"class folder {folder / name} has no image{others}; expected {', '.join(IMG_EXTENSIONS)}")
        for path in found:
            if not path.is_file():
                raise DataError(f"{path} is a broken link or no regular file; repair or remove it")
        paths += found
        labels += [label] * len(found)
    return checked_split(ImagePaths(paths), labels, classes, str(folder))


def _told_of(left_out: list[Path]) -> tuple[str, ...]:
    if not left_out:
        return ()
    return (
        f"{len(left_out):,} file(s) ending in {_endings(left_out)} are left out, such as {left_out[0]}; "
        f"images end in {', '.join(IMG_EXTENSIONS)}",
    )


def _endings(files: list[Path]) -> str:
    """The endings of files, the most frequent first."""
    counted = Counter(path.suffix.lower() or "no extension" for path in files)
    return ", ".join(ending for ending, _count in counted.most_common(8)) + (", ..." if len(counted) > 8 else "")


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMG_EXTENSIONS


def _visible_files(class_folder: Path) -> Iterator[Path]:
    for folder, subfolders, files in os.walk(class_folder, onerror=_raise):
        subfolders[:] = [name for name in subfolders if not _is_hidden(name)]
        for path in (Path(folder) / name for name in subfolders):
            if path.is_symlink():  # followed, it can lead in a circle; passed over, images would be missing
                raise DataError(f"{path} links to a folder; link {class_folder} itself, or the image files")
        yield from (Path(folder) / name for name in files if not _is_hidden(name))


def _visible_folders(folder: Path) -> list[Path]:
    return [child for child in folder.iterdir() if child.is_dir() and not _is_hidden(child.name)]


def _has_folders(folder: Path) -> bool:
    return folder.is_dir() and bool(_visible_folders(folder))


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _raise(error: OSError) -> None:
    raise error
