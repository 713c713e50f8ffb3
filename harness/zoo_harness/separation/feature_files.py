"""Read features and labels from array files and tables; nothing in them is unpickled or executed.

``.npz`` and ``.safetensors`` hold both arrays by name; ``.npy`` holds one array. ``.parquet`` has a column of labels,
by default ``label`` or ``labels``. Its features are one column of lists, by default ``features``, or numeric columns,
by default all other columns.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.errors import DataError, UnknownNameError, UsageError
from zoo_harness.separation.validation import Array

FEATURES, LABELS = "features", "labels"
Arrays = dict[str, Callable[[], Array | Tensor]]


def read_features(path: Path, features: str | None = None, labels: str | None = None) -> tuple[Array | Tensor, Array]:
    """Read the features ``(N, D)`` and labels ``(N,)`` of a file, unchanged.

    ``features`` and ``labels``: their names in the file; see the module for the defaults. For ``.npy``, ``labels`` is
    another ``.npy`` file. Raises :class:`~zoo.errors.UsageError` for a missing file or name,
    :class:`~zoo.errors.DataError` for a damaged file or other content.
    """
    if not path.is_file():
        reason = "is a folder" if path.is_dir() else "does not exist"
        raise UsageError(f"no such file: {str(path)!r} {reason}; expected one of {', '.join(_READERS)}")
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise UsageError(f"{path} is not a features file; expected one of {', '.join(_READERS)}")
    try:
        return reader(path, features, labels)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path} cannot be read: {reason:.200}") from error


def _read_npy(path: Path, features: str | None, labels: str | None) -> tuple[Array, Array]:
    if features is not None:
        raise UsageError(f"--features {features}: {path} holds one unnamed array; leave --features out")
    if labels is None:
        raise UsageError(
            f"missing --labels: {path} holds only features; give the file of the labels with --labels FILE.npy"
        )
    other = Path(labels).expanduser()
    if not other.is_file():
        raise UsageError(f"--labels: no such file: {labels!r}; expected an .npy file, because the features are one")
    return _load_npy(path), _load_npy(other)


def _load_npy(path: Path) -> Array:
    array: Array = np.load(path, allow_pickle=False, mmap_mode="r")
    if not isinstance(array, np.ndarray):
        raise DataError(f"{path} holds several arrays; expected an .npy file with one array")
    return array


def _read_npz(path: Path, features: str | None, labels: str | None) -> tuple[Array | Tensor, Array]:
    with np.load(path, allow_pickle=False) as archive:
        arrays: Arrays = {name: lambda name=name: archive[name] for name in archive.files}  # type: ignore[misc]
        return _pair(path, arrays, features, labels)


def _read_safetensors(path: Path, features: str | None, labels: str | None) -> tuple[Array | Tensor, Array]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            arrays: Arrays = {name: lambda name=name: file.get_tensor(name) for name in file.keys()}  # type: ignore[misc]  # noqa: SIM118
            return _pair(path, arrays, features, labels)
    except SafetensorError as error:
        raise DataError(f"{path} cannot be read: {error}") from error


def _read_parquet(path: Path, features: str | None, labels: str | None) -> tuple[Array | Tensor, Array]:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
    except pyarrow.ArrowException as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    names = table.column_names
    label = _named(path, labels, LABELS, names) if labels else _only(path, [n for n in names if n in (LABELS, "label")])
    label_array = table.column(label).to_numpy()
    if features is None and FEATURES in names:
        features = FEATURES
    wanted = [name for name in names if name != label] if features is None else features.split(",")
    for name in wanted:
        _named(path, name, FEATURES, names)
    kinds = [table.schema.field(name).type for name in wanted]
    if len(wanted) == 1 and not _is_number(kinds[0]):
        return _from_lists(path, table.column(wanted[0]).combine_chunks()), label_array
    others = [name for name, kind in zip(wanted, kinds, strict=True) if not _is_number(kind)]
    if others or not wanted:
        raise UsageError(
            f"{path}: column {others[0]!r} holds no numbers; name the columns of features with --features x0,x1"
            if others
            else f"{path} has no column besides the labels"
        )
    return np.stack([table.column(name).to_numpy() for name in wanted], axis=1), label_array


def _is_number(kind: Any) -> bool:
    import pyarrow

    return bool(pyarrow.types.is_floating(kind) or pyarrow.types.is_integer(kind))


def _from_lists(path: Path, column: Any) -> Array:
    import pyarrow

    kind = column.type
    nested = (pyarrow.types.is_list, pyarrow.types.is_large_list, pyarrow.types.is_fixed_size_list)
    if not any(is_kind(kind) for is_kind in nested) or column.null_count:
        raise DataError(f"{path}: the column of features holds {kind}; expected lists of numbers without nulls")
    flat = column.flatten().to_numpy(zero_copy_only=False)
    width, left_over = divmod(len(flat), max(1, len(column)))
    lengths = {len(row) for row in column} if len(column) else set()
    if left_over or len(lengths) > 1:
        raise DataError(
            f"{path}: lists of features have lengths from {min(lengths)} to {max(lengths)}; expected one length"
        )
    rows: Array = flat.reshape(len(column), width)
    return rows


def _pair(path: Path, arrays: Arrays, features: str | None, labels: str | None) -> tuple[Array | Tensor, Array]:
    feature_array = arrays[_named(path, features, FEATURES, arrays)]()
    label_array = arrays[_named(path, labels, LABELS, arrays)]()
    return feature_array, label_array.numpy() if isinstance(label_array, torch.Tensor) else label_array


def _named(path: Path, given: str | None, default: str, names: Iterable[str]) -> str:
    wanted = given or default
    known = list(names)
    if wanted not in known:
        raise UnknownNameError(f"array of {path.name}", wanted, known, f"name it with --{default}")
    return wanted


def _only(path: Path, found: list[str]) -> str:
    if len(found) != 1:
        raise UsageError(f"{path} has {len(found)} columns named label or labels; choose one with --labels")
    return found[0]


_READERS: dict[str, Callable[[Path, str | None, str | None], tuple[Array | Tensor, Array]]] = {
    ".npz": _read_npz,
    ".npy": _read_npy,
    ".safetensors": _read_safetensors,
    ".parquet": _read_parquet,
}
