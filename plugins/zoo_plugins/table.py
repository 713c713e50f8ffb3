"""Load images whose labels are in a table (``table:FILE``) or in the metadata files of a folder (``table:FOLDER``)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from zoo.dataset import DatasetRequest, ImageSplit, LoadedDataset
from zoo.errors import DataError, UsageError
from zoo_plugins.folder_layout import EVALUATION, is_training, split_word, visible_folders
from zoo_plugins.image_folder import ImagePaths
from zoo_plugins.labels import checked_split
from zoo_plugins.readable_rows import readable_array
from zoo_plugins.table_columns import TableColumns, choose_columns
from zoo_plugins.table_file import ENDINGS, Table, joined, read_table
from zoo_plugins.table_images import HeldImages, find_files, holds_images
from zoo_plugins.table_labels import TableLabels, conflicting, read_labels

METADATA = tuple(f"metadata{ending}" for ending in ENDINGS)
"""The names that the ``datasets`` library defines for the metadata file in a folder of images."""


def load(request: DatasetRequest) -> LoadedDataset:
    """Load the images that a table lists as split ``train``, and as split ``test`` if the table has a test split.

    In a folder, the table is the file ``metadata.csv``. If only the folder's split folders, such as ``train``, contain
    such files, these files are joined. Paths in a table are relative to the table's folder. ``--image-column``,
    ``--label-column`` and ``--split-column`` name the columns; without these options, zoo looks for columns with usual
    names.
    """
    if request.data_dir is not None:
        raise UsageError(f"table:FILE already names its file; omit --data-dir {request.data_dir}", code="option-unused")
    table = _named_table(request.argument)
    columns = choose_columns(table, request.options)
    splits, unread = _rows_of_splits(table, columns)
    rows = [row for split in splits.values() for row in split]
    if holds_images(table, columns.image):
        return _load_held(table, columns, splits, unread, request)
    files = find_files(table, columns.image, rows, skip_missing=request.options.skip_unreadable)
    kept = [row for row in rows if row in files.paths]
    labels = read_labels(table, columns.label, kept)
    index_of = dict(zip(kept, labels.indices, strict=True))
    found = {}
    for name, members in splits.items():
        present = [row for row in members if row in files.paths]
        images = ImagePaths([files.paths[row] for row in present], request.reader)
        where = f"{table.path}, split {name}"
        found[name] = checked_split(images, [index_of[row] for row in present], labels.classes, where)
    warnings = [*labels.warnings, *unread, *_repeated(table, found)]
    if files.missing:
        warnings.append(f"skipped {len(files.missing):,} rows whose files are missing (--skip-unreadable)")
    return _loaded(table, columns, labels, found, warnings, files.notes, {"missing files": len(files.missing)})


def _named_table(argument: str | None) -> Table:
    path = Path(argument or "").expanduser()
    if path.is_dir() and argument:
        found = metadata_in(path)
        if len(found) == 1:
            return read_table(found[0])
        of_splits = [] if found else _metadata_of_splits(path)
        if of_splits:
            return joined(path, [read_table(each) for each in of_splits])
        tables = sorted(each.name for each in path.iterdir() if each.suffix.lower() in ENDINGS)
        advice = f"try table:{path / tables[0]}" if tables else f"name a file that ends in {', '.join(ENDINGS)}"
        raise UsageError(
            f"folder {path} has {len(found) or 'no'} metadata files; expected one, such as {METADATA[0]}; {advice}",
            code="table-missing",
            path=str(path),
            tables=tables,
        )
    if not argument or not path.is_file():
        raise UsageError(
            f"table:{argument or 'PATH'}: no such file; expected {', '.join(ENDINGS)}, or a folder with {METADATA[0]}",
            code="missing-file",
            path=str(path),
        )
    return read_table(path)


def _metadata_of_splits(root: Path) -> list[Path]:
    """Return the metadata files in the folders of the splits, or ``[]`` if the training split has no metadata file."""
    folders = [folder for folder in sorted(visible_folders(root)) if split_word(folder.name)]
    found = {folder: files for folder in folders if (files := metadata_in(folder))}
    training = [folder.name for folder in found if is_training(split_word(folder.name))]
    many = next((files for files in found.values() if len(files) > 1), None)
    if many or len(training) > 1:
        names = [file.name for file in many] if many else training
        raise DataError(
            f"{many[0].parent if many else root} has {len(names)} tables or folders of one split: {', '.join(names)}; "
            "expected one; move the others",
            code="split-ambiguous",
            names=names,
        )
    return [files[0] for files in found.values()] if training else []


def metadata_in(folder: Path) -> list[Path]:
    """Return the metadata files that exist in a folder of images."""
    return [folder / name for name in METADATA if (folder / name).is_file()]


def _rows_of_splits(table: Table, columns: TableColumns) -> tuple[dict[str, list[int]], list[str]]:
    """Return the row indices of each split, and warnings about rows that belong to no split."""
    if columns.split is None:
        return {"train": list(range(table.rows))}, []
    written = ["" if value is None else str(value) for value in table.columns[columns.split]]
    words = [split_word(value) for value in written]
    evaluation = next((word for word in EVALUATION if word in words), None)
    chosen = {
        "train": [row for row, word in enumerate(words) if is_training(word)],
        "test": [row for row, word in enumerate(words) if word is not None and word == evaluation],
    }
    if not chosen["train"]:
        raise DataError(
            f"column {columns.split!r} of {table.path} names no training split; it has "
            f"{', '.join(map(repr, sorted(set(written))[:8]))}; expected 'train' and 'test'",
            code="split-missing",
            split="train",
        )
    left_out = Counter(
        value for value, word in zip(written, words, strict=True) if not is_training(word) and word != evaluation
    )
    warnings = [
        f"{sum(left_out.values()):,} rows of other splits are not read: "
        + ", ".join(f"{value or '(empty)'!r} ({count:,})" for value, count in left_out.most_common(8))
    ] * bool(left_out)
    return {name: rows for name, rows in chosen.items() if rows}, warnings


def _load_held(
    table: Table, columns: TableColumns, rows: Mapping[str, Sequence[int]], unread: list[str], request: DatasetRequest
) -> LoadedDataset:
    """Load images that the table itself contains; images of equal size become one array."""
    every = [row for members in rows.values() for row in members]
    labels = read_labels(table, columns.label, every)
    index_of = dict(zip(every, labels.indices, strict=True))
    found, warnings, skipped = {}, [*labels.warnings, *unread], 0
    for name, members in rows.items():
        images = HeldImages(table, columns.image, members, request.reader)
        split = checked_split(images, [index_of[row] for row in members], labels.classes, f"{table.path}, split {name}")
        found[name], left_out = readable_array(images, split, request.reader, skip=request.options.skip_unreadable)
        skipped += left_out
        if left_out:
            warnings.append(f"skipped {left_out:,} images of split {name!r} that cannot be read (--skip-unreadable)")
    return _loaded(table, columns, labels, found, warnings, (), {"unreadable images": skipped})


def _repeated(table: Table, splits: Mapping[str, ImageSplit]) -> list[str]:
    """Raise an error for images with several labels, and return warnings about images that occur in several rows."""
    names = {name: [path.resolve() for path in split.images.paths] for name, split in splits.items()}  # type: ignore[union-attr]
    keys = [path for paths in names.values() for path in paths]
    conflicts, repeated = conflicting(
        keys, np.concatenate([np.asarray(split.labels) for split in splits.values()]).tolist()
    )
    if conflicts:
        raise DataError(
            f"{table.path} gives several labels to {len(conflicts):,} images, such as {conflicts[0].name}; expected "
            "one label per image; remove the wrong rows",
            code="label-conflict",
            names=[path.name for path in conflicts[:10]],
        )
    shared = set(names.get("train", ())) & set(names.get("test", ()))
    lines = [f"{repeated:,} images occur in more than one row; each row counts"] * bool(repeated)
    return lines + [f"{len(shared):,} images are in both splits, train and test"] * bool(shared)


def _loaded(
    table: Table,
    columns: TableColumns,
    labels: TableLabels,
    splits: dict[str, ImageSplit],
    warnings: Sequence[str],
    notes: Sequence[str],
    skipped: Mapping[str, int],
) -> LoadedDataset:
    return LoadedDataset(
        labels.classes,
        splits,
        source=f"table {table.path.resolve()}",
        warnings=tuple(warnings),
        reading=(columns.line(table), *table.notes, *notes),
        skipped={kind: count for kind, count in skipped.items() if count},
    )
