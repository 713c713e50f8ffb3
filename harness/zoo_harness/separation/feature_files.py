"""Read one split of one layer from a file of ``zoo features``, which is known by the record in its metadata."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo.errors import DataError, UnknownNameError, UsageError
from zoo_harness.records.features import KEY, LABELS, FeatureArray, FeaturesRecord
from zoo_harness.separation.tables import column_array
from zoo_harness.separation.validation import Array

if TYPE_CHECKING:
    from torch import Tensor


def read_record(path: Path, kind: str) -> FeaturesRecord | None:
    """Return the record of a file of ``zoo features``, or ``None`` for any other file; ``kind``: such as ".npz"."""
    text = _METADATA[kind](path) if kind in _METADATA else None
    return None if text is None else FeaturesRecord.model_validate_json(text)


def choose_layer(record: FeaturesRecord, given: str | None) -> FeatureArray:
    """Return the layer of this name, or without a name the only one."""
    known = {each.layer: each for each in record.layers}
    if given is None and len(known) == 1:
        return record.layers[0]
    if given is None:
        message = f"the file holds {len(known)} layers: {', '.join(known)}; expected one; try --features LAYER"
        raise UsageError(message, code="missing-features", layers=list(known))
    found = known.get(given) or next((each for each in record.layers if each.array == given), None)
    if found is None:
        raise UnknownNameError("layer", given, known, "name it with --features")
    return found


def choose_split(record: FeaturesRecord, given: str | None, preferred: str) -> str:
    """Return the split of this name; without a name the only one, or of both the preferred one."""
    known = [each.split for each in record.splits]
    if given is not None and given not in known:
        raise UnknownNameError("split", given, known, "name it with --split")
    return given or (preferred if preferred in known else known[0])


def read_rows(
    path: Path, kind: str, record: FeaturesRecord, array: str, split: str | None = None
) -> tuple[Array | Tensor, Array | Tensor]:
    """Return the features (N, D) and labels (N,) of a split, or of all rows."""
    rows = slice(0, record.rows) if split is None else record.rows_of(split)
    read: Callable[[Path, str, slice], tuple[Array | Tensor, Array | Tensor, int]] = _ROWS[kind]
    features, labels, count = read(path, array, rows)
    if count != record.rows:
        message = f"the number of rows is wrong: {count}; expected {record.rows}, the number in the file's metadata"
        raise DataError(message, code="file-unreadable", rows=count)
    return features, labels


def _npz_metadata(path: Path) -> str | None:
    with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
        return str(archive[KEY]) if KEY in archive.files else None


def _safetensors_metadata(path: Path) -> str | None:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        return (file.metadata() or {}).get(KEY)


def _parquet_metadata(path: Path) -> str | None:
    import pyarrow.parquet

    with path.open("rb") as file:
        text = (pyarrow.parquet.read_schema(file).metadata or {}).get(KEY.encode())
    return None if text is None else text.decode()


def _npz_rows(path: Path, array: str, rows: slice) -> tuple[Array, Array, int]:
    with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
        labels: Array = archive[LABELS]
        return archive[array][rows], labels[rows], len(labels)


def _safetensors_rows(path: Path, array: str, rows: slice) -> tuple[Tensor, Tensor, int]:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        labels = file.get_tensor(LABELS)
        return file.get_slice(array)[rows], labels[rows], len(labels)


def _parquet_rows(path: Path, array: str, rows: slice) -> tuple[Array, Array, int]:
    import pyarrow.parquet

    with path.open("rb") as file:
        table = pyarrow.parquet.read_table(file, columns=[array, "label"])
    part = table.slice(rows.start, rows.stop - rows.start)
    return column_array(part, array), column_array(part, "label"), table.num_rows


_METADATA = {".npz": _npz_metadata, ".safetensors": _safetensors_metadata, ".parquet": _parquet_metadata}
_ROWS: dict[str, Any] = {".npz": _npz_rows, ".safetensors": _safetensors_rows, ".parquet": _parquet_rows}
