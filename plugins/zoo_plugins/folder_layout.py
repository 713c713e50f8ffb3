"""Find the folders of the splits in a folder of images by their usual names; refuse ambiguous folders."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from zoo.errors import DataError
from zoo_plugins.system_files import is_system_name

_TRAINING = ("train", "training")
_TESTING = ("test", "testing")
_VALIDATION = ("val", "validation", "valid", "dev", "eval", "evaluation")
EVALUATION = (*_TESTING, *_VALIDATION)
"""Names of evaluation splits; if several splits exist, zoo reads the split whose name comes first."""
_ADDITIONS = ("", "set", "split", "data", "images", "imgs")
LAYOUT = "expected PATH/train/CLASS/*.jpg and PATH/test/CLASS/*.jpg, or PATH/CLASS/*.jpg"


def split_word(name: str) -> str | None:
    """Return the standard name of a split, such as ``train`` for ``Train_set``, or ``None`` if no split has the name.

    >>> [split_word(name) for name in ("Train", "testing", "VALID", "training_set", "trainer")]
    ['train', 'testing', 'valid', 'training', None]
    """
    plain = re.sub(r"[\s_.-]", "", name.casefold())
    for word in (*_TRAINING, *EVALUATION):
        if plain.startswith(word) and plain[len(word) :] in _ADDITIONS:
            return word
    return None


def is_training(word: str | None) -> bool:
    """Whether a standard name from :func:`split_word` is a name of the training split."""
    return word in _TRAINING


def looks_like_a_split(name: str) -> bool:
    """Whether a folder's name contains the name of a split, as ``seg_train`` and ``test-2019`` do.

    >>> [looks_like_a_split(name) for name in ("seg_train", "Val2017", "testament", "train")]
    [True, True, False, True]
    """
    parts = re.split(r"[_.\d-]+", name.casefold())  # not split at spaces, because "test tube" can be a class
    return split_word(name) is not None or any(part in (*_TRAINING, *EVALUATION) for part in parts)


@dataclass(frozen=True)
class FolderLayout:
    """The folder of each split (``train``, and ``test`` if it exists), and the other folders, which are not read."""

    splits: dict[str, Path]
    unread: tuple[Path, ...] = ()

    def lines(self, root: Path) -> tuple[str, ...]:
        """Return one line per split that names the split's folder."""
        return tuple(
            f"split {name} is folder {'itself' if folder == root else folder.relative_to(root)}"
            for name, folder in self.splits.items()
        )

    def warnings(self) -> tuple[str, ...]:
        """Return a warning that names the folders that are not read."""
        if not self.unread:
            return ()
        names = ", ".join(repr(folder.name) for folder in self.unread[:8]) + (", ..." if len(self.unread) > 8 else "")
        return (
            f"{len(self.unread)} folder(s) beside the splits are not read: {names}; "
            "the classes are the folders inside of the splits",
        )


def find_layout(root: Path) -> FolderLayout:
    """Find the folders of the splits in ``root``; if there are none, ``root`` itself is the training split.

    A folder with the name of a split is a split if it contains folders, and a class if it contains images only: a
    dataset of vehicles may have a class "train". Raises :class:`~zoo.errors.DataError` if two folders could be the same
    split or if the training split is missing. Split folders without class folders, and splits inside of subfolders,
    raise this error too.
    """
    folders = sorted(visible_folders(root))
    named = [folder for folder in folders if split_word(folder.name) and has_folders(folder)]
    training = [folder for folder in named if is_training(split_word(folder.name))]
    evaluation = _evaluation(named)
    if not training:
        if evaluation is not None:
            raise DataError(
                f"{root} has {evaluation.name} but no train folder that contains class folders; {LAYOUT}",
                code="split-missing",
                path=str(root),
                split="train",
            )
        _refuse_flat_splits(root, folders)
        _refuse_deeper_layout(root, folders)
        return FolderLayout({"train": root})
    _refuse_two(training, "train")
    splits = {"train": training[0]} | ({"test": evaluation} if evaluation else {})
    if evaluation is not None and evaluation.resolve() == training[0].resolve():
        raise DataError(
            f"{evaluation} and {training[0]} are the same folder; expected test images that are not trained on",
            code="same-folder",
            path=str(root),
        )
    unread = [folder for folder in folders if folder not in splits.values() and _has_files(folder)]
    return FolderLayout(splits, tuple(unread))


def _evaluation(named: Sequence[Path]) -> Path | None:
    """Return the evaluation split's folder: a test folder if there is one, else a validation folder."""
    for words in (_TESTING, *((word,) for word in _VALIDATION)):
        found = [folder for folder in named if split_word(folder.name) in words]
        if found:
            _refuse_two(found, "test" if words == _TESTING else "validation")
            return found[0]
    return None


def _refuse_two(found: Sequence[Path], split: str) -> None:
    if len(found) > 1:
        raise DataError(
            f"{found[0].parent} has {len(found)} folders that may be the {split} split: "
            f"{', '.join(folder.name for folder in found)}; expected one; rename or move the others",
            code="split-ambiguous",
            split=split,
            folders=[folder.name for folder in found],
        )


def _refuse_flat_splits(root: Path, folders: Sequence[Path]) -> None:
    """Raise an error if folders with the names of splits contain no class folders, because they could be classes."""
    alike = [folder for folder in folders if looks_like_a_split(folder.name)]
    trains = any(re.search("|".join(_TRAINING), folder.name.casefold()) for folder in alike)
    if len(alike) < 2 or not (trains or len(alike) == len(folders)):
        return
    names = ", ".join(folder.name for folder in alike)
    if any(has_folders(folder) for folder in alike):
        advice = f"name the folders {', '.join(map(repr, _TRAINING))} and {', '.join(map(repr, EVALUATION))}"
    elif tables := [table for folder in alike for table in _tables_in(folder)]:
        advice = f"if {tables[0].relative_to(root)} holds the labels, try table:{root}"
    else:
        advice = "sort the images into one folder per class in each split, or give the labels with table:FILE.csv"
    raise DataError(
        f"{root} has no class folders, and some of its folders have names of splits: {names}; {LAYOUT}; {advice}",
        code="classes-look-like-splits",
        path=str(root),
        folders=[folder.name for folder in alike],
    )


def _refuse_deeper_layout(root: Path, folders: Sequence[Path]) -> None:
    """Raise an error if the splits are in subfolders: ``PATH/images/train/CLASS`` or ``PATH/CLASS/train``."""
    for folder in folders:
        for inner in (folder, *visible_folders(folder)):
            splits = sorted(child for child in visible_folders(inner) if split_word(child.name))
            if len({is_training(split_word(child.name)) for child in splits}) < 2:
                continue
            names = ", ".join(child.name for child in splits)
            if all(has_folders(child) for child in splits):
                raise DataError(
                    f"{root} has its splits in a subfolder: {inner.relative_to(root)} has {names}; "
                    f"try imagefolder:{inner}",
                    code="layout-nested",
                    path=str(root),
                    try_path=str(inner),
                )
            raise DataError(
                f"{root} has splits inside of a class: {inner.relative_to(root)} has {names}; {LAYOUT}; "
                "move the classes into the splits",
                code="layout-splits-in-classes",
                path=str(root),
            )


def visible_folders(folder: Path) -> list[Path]:
    """Return the subfolders of a folder, without hidden folders and folders that operating systems create."""
    with os.scandir(folder) as entries:  # faster than iterdir for folders with many images
        return [Path(entry.path) for entry in entries if entry.is_dir() and not is_system_name(entry.name)]


def has_folders(folder: Path) -> bool:
    """Whether a folder contains at least one visible folder."""
    return folder.is_dir() and bool(visible_folders(folder))


def _has_files(folder: Path) -> bool:
    return any(not is_system_name(child.name) for child in folder.iterdir())


def class_folders(folder: Path) -> list[Path]:
    """Return the class folders of a split, sorted by name.

    Raises :class:`~zoo.errors.DataError` if there are fewer than two folders, or if all have the names of splits.
    """
    found = sorted(visible_folders(folder), key=lambda child: child.name)
    names = [child.name for child in found]
    if not set(names) - {*_TRAINING, *EVALUATION}:
        raise DataError(
            f"{folder} has no class folders (folders found: {', '.join(names) or 'none'}); {LAYOUT}{_hint(folder)}",
            code="class-count",
            path=str(folder),
        )
    if len(names) < 2:
        raise DataError(
            f"{folder} has only one class folder, {names[0]!r}; expected two or more; {LAYOUT}{_inner_hint(found[0])}",
            code="class-count",
            path=str(folder),
        )
    return found


def _hint(folder: Path) -> str:
    """Return advice to read the labels from a table in the folder, or ``""`` if the folder has no table."""
    tables = _tables_in(folder)
    return f"; if {tables[0].name} holds the labels, try table:{tables[0]}" if tables else ""


def _tables_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in (".csv", ".tsv", ".jsonl", ".parquet"))


def _inner_hint(folder: Path) -> str:
    return f"; if its {len(visible_folders(folder))} folders are the classes, try imagefolder:{folder}" * (
        len(visible_folders(folder)) > 1
    )
