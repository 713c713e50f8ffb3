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
    """Images decoded from their files on access, as RGB."""

    concurrent = True

    def __init__(self, paths: list[Path]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> PIL.Image.Image:
        """Decode one image; raises :class:`~zoo.errors.DataError`, which names its path, if that fails."""
        path = self.paths[index]
        try:
            with path.open("rb") as file:
                return decode_image(file, str(path)).convert("RGB")
        except OSError as error:
            raise DataError(
                f"{path} cannot be opened: {error.strerror or error}", code="file-unreadable", path=str(path)
            ) from error


def load(request: DatasetRequest) -> LoadedDataset:
    """Load the folder that the argument names: split ``train`` and, if it exists, ``test``.

    ``test`` is the first of :data:`EVALUATION_FOLDERS` that exists. Classes are in alphabetical order, as in
    torchvision. Hidden files are skipped; files that are no images are skipped with a warning.
    """
    if request.data_dir is not None:
        raise UsageError(
            f"imagefolder:PATH contains its folder; leave out --data-dir, given {request.data_dir}",
            code="option-unused",
            option="data_dir",
        )
    root = Path(request.argument or "").expanduser()
    if not request.argument or not root.is_dir():
        raise UsageError(
            f"imagefolder:{request.argument or 'PATH'} needs an existing folder; {_LAYOUT}",
            code="missing-folder",
            path=request.argument,
        )
    try:
        return _load_folder(root)
    except OSError as error:
        raise DataError(
            f"{error.filename or root} cannot be read: {error.strerror or error}",
            code="file-unreadable",
            path=str(error.filename or root),
        ) from error


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
    return LoadedDataset(classes, splits, source=source, warnings=_warnings(left_out))


def _split_folders(root: Path) -> dict[str, Path]:
    train = root / "train"
    evaluation = next((root / name for name in EVALUATION_FOLDERS if _has_folders(root / name)), None)
    if not _has_folders(train):  # a folder "train" that directly holds images is a class, as in vehicles
        if evaluation is not None:
            raise DataError(
                f"{root} has {evaluation.name} but no train with class folders in it; {_LAYOUT}",
                code="split-missing",
                split="train",
            )
        return {"train": root}
    if evaluation is None:
        return {"train": train}
    if evaluation.resolve() == train.resolve():
        raise DataError(
            f"{evaluation} and {train} are the same folder; expected test images that are not trained on",
            code="same-folder",
            path=str(evaluation),
        )
    return {"train": train, "test": evaluation}


def _class_names(folder: Path) -> tuple[str, ...]:
    names = tuple(sorted(child.name for child in _visible_folders(folder)))
    if not set(names) - {"train", *EVALUATION_FOLDERS}:
        raise DataError(
            f"{folder} has no class folders (folders found: {', '.join(names) or 'none'}); {_LAYOUT}",
            code="class-count",
            path=str(folder),
        )
    if len(names) < 2:
        raise DataError(
            f"{folder} has only one class folder, {names[0]!r}; expected two or more; {_LAYOUT}",
            code="class-count",
            path=str(folder),
        )
    return names


def _check_same_classes(classes: tuple[str, ...], folders: dict[str, Path]) -> None:
    tested = {child.name for child in _visible_folders(folders["test"])}
    for one, other, extra in (
        ("train", "test", set(classes) - tested),
        ("test", "train", tested - set(classes)),
    ):
        if extra:
            raise DataError(
                f"classes {sorted(extra)} are in {folders[one]} but not in {folders[other]}; expected the same class "
                "folders in both",
                code="class-mismatch",
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
            raise DataError(
                f"class folder {folder / name} has no image{others}; expected {', '.join(IMG_EXTENSIONS)}",
                code="class-empty",
                name=name,
            )
        for path in found:
            if not path.is_file():
                raise DataError(
                    f"{path} is a broken link or no regular file; repair or remove it",
                    code="not-a-file",
                    path=str(path),
                )
        paths += found
        labels += [label] * len(found)
    return checked_split(ImagePaths(paths), labels, classes, str(folder))


def _warnings(left_out: list[Path]) -> tuple[str, ...]:
    if not left_out:
        return ()
    return (
        f"{len(left_out):,} file(s) ending in {_endings(left_out)} are left out, such as {left_out[0]}; "
        f"images end in {', '.join(IMG_EXTENSIONS)}",
    )


def _endings(files: list[Path]) -> str:
    """Return the endings of files, the most frequent first."""
    counted = Counter(path.suffix.lower() or "no extension" for path in files)
    return ", ".join(ending for ending, _count in counted.most_common(8)) + (", ..." if len(counted) > 8 else "")


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMG_EXTENSIONS


def _visible_files(class_folder: Path) -> Iterator[Path]:
    for folder, subfolders, files in os.walk(class_folder, onerror=_raise):
        subfolders[:] = [name for name in subfolders if not _is_hidden(name)]
        for path in (Path(folder) / name for name in subfolders):
            if path.is_symlink():  # following it could loop, skipping it would lose images
                raise DataError(
                    f"{path} links to a folder; link {class_folder} itself, or the image files",
                    code="folder-link",
                    path=str(path),
                )
        yield from (Path(folder) / name for name in files if not _is_hidden(name))


def _visible_folders(folder: Path) -> list[Path]:
    return [child for child in folder.iterdir() if child.is_dir() and not _is_hidden(child.name)]


def _has_folders(folder: Path) -> bool:
    return folder.is_dir() and bool(_visible_folders(folder))


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _raise(error: OSError) -> None:
    raise error
