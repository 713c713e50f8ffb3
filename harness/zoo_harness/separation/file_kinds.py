"""Detect the format of a file of features, and list the names of its arrays or columns, without importing torch.

The format is detected from the first bytes of a file, because the file name extension may be wrong.
"""

from __future__ import annotations

import csv
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from zoo.errors import DataError, UnknownNameError, UsageError, ZooError
from zoo_harness.records.options import SeparationOptions
from zoo_harness.separation.bookkeeping import short_list
from zoo_harness.separation.feature_metadata import choose_layer, choose_split, read_record

_FIRST_BYTES = {
    b"\x93NUMPY": ".npy",
    b"PK\x03\x04": ".npz",
    b"PAR1": ".parquet",
    b"ARROW1": ".arrow",
    b"\xff\xff\xff\xff": ".arrow",
}
ENDINGS = {
    ".npz": (".npz",),
    ".npy": (".npy",),
    ".safetensors": (".safetensors",),
    ".parquet": (".parquet", ".pq"),
    ".arrow": (".arrow", ".feather", ".ipc"),
    ".csv": (".csv", ".tsv", ".txt"),
}


def check_file(path: Path, given: SeparationOptions) -> None:
    """Raise an error if a file is missing, has an unknown format, or lacks the requested arrays or columns."""
    features, labels = given.get("features"), given.get("labels")
    path = expanded(path)
    with blaming(path):
        kind = kind_of(path)
        if kind == ".npy" and labels is None:
            raise missing_labels(path, "labels")
        record = read_record(path, kind)
        if record is not None:  # the remaining options are checked when the file is read
            choose_layer(record, features)
            choose_split(record, given.get("split"), "test")
        elif kind in (".npz", ".safetensors"):
            chosen_names(features, labels, _arrays_in(path, kind))
        elif kind in _COLUMNS:
            labels_column(_COLUMNS[kind](path), labels)
    if (references := given.get("references")) is not None:
        kind_of(expanded(references))


def delimiter_of(header: bytes) -> str:
    """Return the delimiter that occurs most often in a header line: comma, semicolon or tab."""
    return max(",;\t", key=lambda each: header.count(each.encode()))


def _columns_of_text(path: Path) -> list[str]:
    with path.open("rb") as file:
        header = file.readline()
    text = header.decode("utf-8-sig", "replace")
    return next(csv.reader([text], delimiter=delimiter_of(header)), [])


def _columns_of_parquet(path: Path) -> list[str]:
    import pyarrow.parquet

    with path.open("rb") as file:  # pyarrow cannot open paths that are not UTF-8, but can read open files
        return list(pyarrow.parquet.read_schema(file).names)


_COLUMNS = {".csv": _columns_of_text, ".parquet": _columns_of_parquet}


def _arrays_in(path: Path, kind: str) -> list[str]:
    if kind == ".npz":
        with zipfile.ZipFile(path) as archive:
            return [name.removesuffix(".npy") for name in archive.namelist()]
    from safetensors import safe_open

    with safe_open(path, framework="np") as file:
        return list(file.keys())


def kind_of(path: Path) -> str:
    """Detect a file's format from its first bytes, and return the usual file name extension of the format."""
    with blaming(path):
        if not path.is_file():
            fault = "a folder" if path.is_dir() else "not a regular file" if path.exists() else "no such file"
            message = f"the file cannot be read: {fault}; expected a file of type {', '.join(ENDINGS)}"
            raise UsageError(message, code="not-a-file")
        with path.open("rb") as file:
            start = file.read(4096)
        for first_bytes, kind in _FIRST_BYTES.items():
            if start.startswith(first_bytes):
                return kind
        # The first 8 bytes of a .safetensors file are the length of its JSON header.
        if start[8:9] == b"{" and int.from_bytes(start[:8], "little") < path.stat().st_size:
            return ".safetensors"
        if start and b"\0" not in start and path.suffix.lower() in ENDINGS[".csv"]:
            return ".csv"
        fault = f"it starts with {start[:16]!r}" if start else "it is empty"
        message = f"the file's format is unknown: {fault}; expected {', '.join(ENDINGS)}"
        raise DataError(message, code="file-unreadable")


def labels_column(names: Sequence[str], given: str | None) -> str:
    """Return the given column of labels, or the only column named ``label`` or ``labels`` if no column is given."""
    if given is not None:
        if given not in names:
            raise UnknownNameError("column", given, names, "choose the column of labels with --labels")
        return given
    found = [name for name in names if name.casefold() in ("label", "labels")]
    if len(found) != 1:
        fault = f"{len(found)} of the columns {short_list(names)} are named 'label' or 'labels'"
        message = f"the column of labels is unknown: {fault}; expected exactly one such column; try --labels NAME"
        raise UsageError(message, code="missing-labels", option="labels", columns=names)
    return found[0]


def missing_labels(path: Path, option: str) -> UsageError:
    """Return the error for an .npy file of features if no file of labels is given."""
    flag = f"--{option.replace('_', '-')}"
    return UsageError(f"{path} holds no labels; try {flag} FILE.npy", code="missing-labels", path=path, option=option)


def chosen_names(features: str | None, labels: str | None, known: Sequence[str]) -> tuple[str, str]:
    """Return two names: the name of the array of features, and the name of the array of labels.

    Raises :class:`~zoo.errors.UsageError` if both names are the same, or if a name is not in ``known``.
    """
    names = features or "features", labels or "labels"
    for name, option in zip(names, ("--features", "--labels"), strict=True):
        if name not in known:
            raise UnknownNameError("array", name, known, f"choose an array with {option}")
    if names[0] == names[1]:
        message = f"--features and --labels name the same array: {names[0]!r}; expected two arrays"
        raise UsageError(message, code="option-value", option="features")
    return names


def expanded(path: Path) -> Path:
    """Return the path with ``~`` expanded."""
    with blaming(path):
        return path.expanduser()


@contextmanager
def blaming(path: Path) -> Iterator[None]:
    """Add the file's path to ``ZooError`` exceptions of the block; convert other exceptions to ``DataError``.

    File readers raise exceptions of many classes if a file is damaged.
    """
    try:
        yield
    except ZooError as error:
        if "path" not in error.facts:
            error.args = (f"{path}: {error}",)
            error.facts["path"] = str(path)
        raise
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path} cannot be read: {reason:.200}", code="file-unreadable", path=path) from error
