"""Convert the labels in all parquet files of a dataset to the same class indices, using the metadata of each file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet

from zoo.class_names import normalised
from zoo.errors import DataError

Names = tuple[str, ...]


@dataclass(frozen=True)
class LabelFile:
    """A parquet file, its number of rows, and the class names in its metadata, or ``None``."""

    path: Path
    rows: int
    names: Names | None


def names_in_schema(schema: pyarrow.Schema, column: str) -> Names | None:
    """Return the class names, in label order, that the ``datasets`` library stored in a schema's metadata.

    >>> features = '{"info": {"features": {"kind": {"names": ["cat", "dog"], "_type": "ClassLabel"}}}}'
    >>> names_in_schema(pyarrow.schema([("kind", "int64")], {"huggingface": features}), "kind")
    ('cat', 'dog')
    """
    content = (schema.metadata or {}).get(b"huggingface")
    try:
        names = json.loads(content)["info"]["features"][column]["names"] if content else None
    except (ValueError, KeyError, TypeError):  # not a column of class labels, or metadata of other software
        return None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return None
    return tuple(map(normalised, names))


def read_label_file(path: Path, column: str) -> LabelFile:
    """Read the row count and class names of a parquet file; raise :class:`~zoo.errors.DataError` if it is damaged."""
    try:
        metadata = pyarrow.parquet.read_metadata(path)
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(
            f"{path} cannot be read as a parquet file ({str(error).splitlines()[0]}), so its class names are unknown; "
            "download it again",
            code="table-damaged",
            path=str(path),
        ) from error
    return LabelFile(path, metadata.num_rows, names_in_schema(metadata.schema.to_arrow_schema(), column))


def labels_by_name(
    labels: Mapping[str, np.ndarray[Any, Any]], files: Mapping[str, Sequence[LabelFile]], classes: Names, where: str
) -> tuple[dict[str, np.ndarray[Any, Any]], tuple[str, ...]]:
    """Return each split's labels as indices into ``classes``, and lines for the run record about changed labels.

    ``labels`` contains the class indices from the files. ``files`` lists the parquet files of each split in the order
    of the rows, and omits splits in other formats. Raises :class:`~zoo.errors.DataError` if the files name different
    classes.
    """
    classes = tuple(map(normalised, classes))
    named = [file for split in labels for file in files.get(split, ()) if file.names is not None]
    if all(file.names == classes for file in named):
        return dict(labels), ()
    _refuse_other_names(named, where)
    if set(named[0].names or ()) != set(classes):
        return _by_place(labels, named[0], classes, where)
    mapped = {split: _mapped(split, values, files.get(split, ()), classes, where) for split, values in labels.items()}
    changed = [split for split, values in mapped.items() if not np.array_equal(values, labels[split])]
    return mapped, (
        f"class numbers mapped by name in split {', '.join(changed)}: its files number the classes differently",
    ) * bool(changed)


def _refuse_other_names(named: Sequence[LabelFile], where: str) -> None:
    first = named[0]
    for file in named:
        extra = sorted(set(first.names or ()) ^ set(file.names or ()))
        if extra:
            raise DataError(
                f"{where}: {first.path.name} and {file.path.name} name different classes; only one of both has "
                f"{', '.join(map(repr, extra[:10]))}{', ...' if len(extra) > 10 else ''}; expected the same names",
                code="class-mismatch",
                names=extra,
                files=[first.path.name, file.path.name],
            )


def _by_place(
    labels: Mapping[str, np.ndarray[Any, Any]], file: LabelFile, classes: Names, where: str
) -> tuple[dict[str, np.ndarray[Any, Any]], tuple[str, ...]]:
    """Return the labels unchanged, because the dataset's description names other classes than every file."""
    names = file.names or ()
    if len(names) != len(classes):
        raise DataError(
            f"{where}: {file.path.name} names {len(names)} classes, but the dataset's description names {len(classes)}"
            "; expected the same classes",
            code="class-mismatch",
            files=[file.path.name],
        )
    example = next((pair for pair in zip(names, classes, strict=True) if pair[0] != pair[1]), names[:2])
    return dict(labels), (
        f"class names are those of the dataset's description, by place; its files have others (such as "
        f"{example[0]!r} for {example[1]!r})",
    )


def _mapped(
    split: str, labels: np.ndarray[Any, Any], files: Sequence[LabelFile], classes: Names, where: str
) -> np.ndarray[Any, Any]:
    if not files:
        return labels
    unnamed = [file.path.name for file in files if file.names is None]
    if unnamed or sum(file.rows for file in files) != len(labels):
        raise DataError(
            f"{where}, split {split}: files number the classes differently, and "
            + (f"{unnamed[0]} has no class names" if unnamed else "the rows of each file are unknown")
            + "; give every file its class names",
            code="class-names-unknown",
            split=split,
        )
    parts = np.split(labels, np.cumsum([file.rows for file in files])[:-1])
    return np.concatenate([_numbered(part, file.names or (), classes) for part, file in zip(parts, files, strict=True)])


def _numbered(labels: np.ndarray[Any, Any], names: Names, classes: Names) -> np.ndarray[Any, Any]:
    numbers = np.array([classes.index(name) for name in names])
    inside = (labels >= 0) & (labels < len(names))
    mapped = labels.copy()  # labels without a class stay unchanged; a later check reports such labels
    mapped[inside] = numbers[labels[inside]]
    return mapped
