"""Score features and labels from array files and tables; nothing in them is unpickled or executed.

``.npz`` and ``.safetensors`` hold both arrays by name; ``.npy`` holds one array. ``.parquet`` has a column of labels,
by default ``label`` or ``labels``. Its features are one column of lists, by default ``features``, or numeric columns,
by default all other columns.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib.format import open_memmap

from zoo.errors import DataError, UnknownNameError, UsageError
from zoo_harness.records.option import with_defaults
from zoo_harness.records.options import SeparationOptions

if TYPE_CHECKING:
    from torch import Tensor

    from zoo_harness.separation.result import Separation
    from zoo_harness.separation.validation import Array

    Pair = tuple[Array | Tensor, Array | Tensor]


def score_file(file: Path, given: SeparationOptions) -> Separation:
    """Score the features of a file, against each other or against the references of another file.

    Without an order it is 2, or 1 if each sample has a single neighbour.
    """
    references, labels_name = given.get("references"), given.get("reference_labels")
    if labels_name is not None and references is None:
        message = f"--reference-labels is unused: {labels_name!r}; expected --references FILE with it"
        raise UsageError(message, code="option-unused", option="reference_labels")
    if references is not None and labels_name is None and references.suffix == ".npy":
        raise _missing_labels(references, "reference_labels")

    from zoo_harness.separation.index import separation  # imports torch

    options = with_defaults(SeparationOptions, given)
    per_class = options["per_class"]
    features, labels = read_features(file, options["features"], options["labels"])
    candidates = (len(labels) if per_class is None else per_class * len(np.unique(labels))) - 1
    reference_features = reference_labels = None
    if references is not None:
        reference_features, reference_labels = read_features(
            references.expanduser(), options["features"], labels_name or options["labels"]
        )
        candidates = len(reference_labels)
    return separation(
        features,
        labels,
        options["order"] or max(1, min(2, candidates)),
        references=reference_features,
        reference_labels=reference_labels,
        metric=options["metric"],
        normalize=options["normalize"],
        per_class=per_class,
        seed=options["seed"],
        memory_budget=options["memory"] * 2**20,
    )


def read_features(path: Path, features: str | None = None, labels: str | None = None) -> Pair:
    """Read the features ``(N, D)`` and labels ``(N,)`` of a file, unchanged.

    ``features`` and ``labels``: their names in the file; see the module for the defaults. For ``.npy``, ``labels`` is
    another ``.npy`` file. Raises :class:`~zoo.errors.UsageError` for a missing file or name,
    :class:`~zoo.errors.DataError` for a damaged file or other content.
    """
    reader = _READERS.get(path.suffix.lower())
    if not path.is_file() or reader is None:
        fault = "a folder" if path.is_dir() else "no features file" if path.exists() else "no such file"
        raise UsageError(
            f"{str(path)!r} is wrong: {fault}; expected one of {', '.join(_READERS)}", code="not-a-file", path=path
        )
    try:
        return reader(path, features, labels)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path} cannot be read: {reason:.200}", code="file-unreadable", path=path) from error


def _read_npy(path: Path, features: str | None, labels: str | None) -> Pair:
    if features is not None:
        message = f"--features is unused: {features!r}; {path} holds one array without a name"
        raise UsageError(message, code="option-unused", option="features")
    if labels is None:
        raise _missing_labels(path, "labels")
    other = Path(labels).expanduser()
    if not other.is_file():
        message = f"--labels is wrong: no such file {labels!r}; expected an .npy file, because the features are one"
        raise UsageError(message, code="not-a-file", path=other)
    return open_memmap(path, mode="r"), open_memmap(other, mode="r")


def _missing_labels(path: Path, option: str) -> UsageError:
    flag = f"--{option.replace('_', '-')}"
    return UsageError(f"{path} holds no labels; try {flag} FILE.npy", code="missing-labels", path=path, option=option)


def _read_npz(path: Path, features: str | None, labels: str | None) -> Pair:
    with np.load(path, allow_pickle=False) as archive:
        known = archive.files
        return archive[_named(path, features, "features", known)], archive[_named(path, labels, "labels", known)]


def _read_safetensors(path: Path, features: str | None, labels: str | None) -> Pair:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            names = _named(path, features, "features", file.keys()), _named(path, labels, "labels", file.keys())
            return file.get_tensor(names[0]), file.get_tensor(names[1])
    except SafetensorError as error:
        raise ValueError(str(error)) from error


def _read_parquet(path: Path, features: str | None, labels: str | None) -> Pair:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
    except pyarrow.ArrowException as error:
        raise ValueError(str(error)) from error
    names = table.column_names
    if labels is None:
        found = [name for name in names if name in ("labels", "label")]
        if len(found) != 1:
            message = f"{path} has {len(found)} columns named label or labels; expected one; try --labels NAME"
            raise UsageError(message, code="missing-labels", path=path, option="labels")
        labels = found[0]
    label_array = table.column(_named(path, labels, "labels", names)).to_numpy()
    if features is None and "features" in names:
        features = "features"
    wanted = [name for name in names if name != labels] if features is None else features.split(",")
    columns = [table.column(_named(path, name, "features", names)) for name in wanted]
    others = [name for name, column in zip(wanted, columns, strict=True) if not _is_number(column.type)]
    if len(wanted) == len(others) == 1:
        return _from_lists(columns[0].combine_chunks()), label_array
    if others or not wanted:
        fault = f"column {others[0]!r} holds no numbers" if others else "there is no column besides the labels"
        raise UsageError(
            f"{path} has no features: {fault}; try --features x0,x1", code="missing-features", path=path, columns=others
        )
    return np.stack([column.to_numpy() for column in columns], axis=1), label_array


def _is_number(kind: Any) -> bool:
    import pyarrow

    return bool(pyarrow.types.is_floating(kind) or pyarrow.types.is_integer(kind))


def _from_lists(column: Any) -> Array:
    import pyarrow

    kind = column.type
    nested = (pyarrow.types.is_list, pyarrow.types.is_large_list, pyarrow.types.is_fixed_size_list)
    if not any(is_kind(kind) for is_kind in nested) or column.null_count:
        raise ValueError(f"the column of features holds {kind}; expected lists of numbers without nulls")
    lengths = {len(row) for row in column}
    if len(lengths) > 1:
        raise ValueError(f"lists of features have lengths from {min(lengths)} to {max(lengths)}; expected one length")
    rows: Array = column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), max(lengths, default=0))
    return rows


def _named(path: Path, given: str | None, default: str, names: Iterable[str]) -> str:
    wanted = given or default
    known = list(names)
    if wanted not in known:
        raise UnknownNameError(f"array of {path.name}", wanted, known, f"name it with --{default}")
    return wanted


_READERS: dict[str, Callable[[Path, str | None, str | None], Pair]] = {
    ".npz": _read_npz,
    ".npy": _read_npy,
    ".safetensors": _read_safetensors,
    ".parquet": _read_parquet,
}
