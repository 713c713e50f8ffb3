"""Load the user's own images from one folder per class, or from split folders that contain one folder per class."""

from __future__ import annotations

from pathlib import Path

import PIL.Image

from zoo.class_names import check_class_names
from zoo.dataset import DatasetRequest, ImageSplit, LoadedDataset
from zoo.errors import DataError, UsageError
from zoo.image_reader import ImageReader
from zoo_plugins.decoding import decode_image
from zoo_plugins.folder_layout import LAYOUT, FolderLayout, class_folders, find_layout, visible_folders
from zoo_plugins.found_files import FoundFiles
from zoo_plugins.labels import checked_split


class ImagePaths:
    """A sequence of image files that are decoded to RGB when they are accessed."""

    concurrent = True

    def __init__(self, paths: list[Path], reader: ImageReader) -> None:
        self.paths = paths
        self._reader = reader

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> PIL.Image.Image:
        """Decode one image to RGB; if decoding fails, raise :class:`~zoo.errors.DataError` with the path."""
        path = self.paths[index]
        try:
            with path.open("rb") as file:
                return decode_image(file, str(path), self._reader).convert("RGB")
        except OSError as error:
            raise DataError(
                f"{path} cannot be opened: {error.strerror or error}", code="file-unreadable", path=str(path)
            ) from error


def load(request: DatasetRequest) -> LoadedDataset:
    """Load the images of a folder as split ``train``, and as split ``test`` if the folder has a test split.

    :mod:`zoo_plugins.folder_layout` finds the folders of the splits. Classes are in alphabetical order, as in
    torchvision. Files and folders that operating systems create are skipped and counted; other files that are not
    images are skipped with a warning.
    """
    if request.data_dir is not None:
        raise UsageError(
            f"imagefolder:PATH already names its folder; omit --data-dir {request.data_dir}",
            code="option-unused",
            option="data_dir",
        )
    root = Path(request.argument or "").expanduser()
    if not request.argument or not root.is_dir():
        raise UsageError(
            f"imagefolder:{request.argument or 'PATH'} needs an existing folder; {LAYOUT}",
            code="missing-folder",
            path=request.argument,
        )
    try:
        return _load_folder(root, request)
    except OSError as error:
        raise DataError(
            f"{error.filename or root} cannot be read: {error.strerror or error}",
            code="file-unreadable",
            path=str(error.filename or root),
        ) from error


def _load_folder(root: Path, request: DatasetRequest) -> LoadedDataset:
    layout = find_layout(root)
    names, folders = _same_classes(layout)
    files = FoundFiles()
    for folder in dict.fromkeys((root, *layout.splits.values())):
        files.note_beside_classes(folder)
    splits = {
        split: _read_split(folders[split], names, str(folder), files, request.reader, needed=split == "train")
        for split, folder in layout.splits.items()
    }
    source = f"folder {root.resolve()}"
    if "test" in splits and layout.splits["test"].name != "test":
        source += f" (split test is its folder {layout.splits['test'].name})"
    files.refuse_other_kinds(skip=request.options.skip_unreadable)
    return LoadedDataset(
        names,
        splits,
        source=source,
        warnings=(*layout.warnings(), *files.warnings()),
        reading=(*layout.lines(root), *files.lines()),
        skipped=files.counts(),
    )


def _same_classes(layout: FolderLayout) -> tuple[tuple[str, ...], dict[str, dict[str, Path]]]:
    """Return the class names of all splits, and each split's class folders by class name in Unicode form NFC."""
    folders = {}
    for split, folder in layout.splits.items():
        found = class_folders(folder) if split == "train" else sorted(visible_folders(folder))
        names = check_class_names([child.name for child in found], str(folder))
        folders[split] = dict(zip(names, found, strict=True))
    untrained = sorted(folders.get("test", {}).keys() - folders["train"].keys())
    return (*folders["train"], *untrained), folders  # a later check refuses classes without training images


def _read_split(
    folders: dict[str, Path],
    classes: tuple[str, ...],
    where: str,
    files: FoundFiles,
    reader: ImageReader,
    *,
    needed: bool,
) -> ImageSplit:
    paths: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        if name not in folders:  # the evaluation split lacks this class; a later warning names the class
            continue
        found = files.images_in(folders[name], needed=needed)
        for path in found:
            if not path.is_file():
                raise DataError(
                    f"{path} is a broken link or not a regular file; repair or remove it",
                    code="not-a-file",
                    path=str(path),
                )
        paths += found
        labels += [label] * len(found)
    return checked_split(ImagePaths(paths, reader), labels, classes, where)
