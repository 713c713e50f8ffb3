"""Read the features of one layer and one split from a file that ``zoo features`` has written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo.errors import DataError
from zoo_harness.records.features import LABELS, FeaturesRecord
from zoo_harness.separation.tables import column_array
from zoo_harness.separation.validation import Array

if TYPE_CHECKING:
    from torch import Tensor


def read_rows(
    path: Path, kind: str, record: FeaturesRecord, array: str, split: str | None = None
) -> tuple[Array | Tensor, Array | Tensor]:
    """Read the features (N, D) and labels (N,) of a split from a file, or of all rows if ``split`` is ``None``.

    ``kind``: the file format, such as ".npz". ``array``: the name under which the file stores the layer's features.
    """
    rows = slice(0, record.rows) if split is None else record.rows_of(split)
    read: Callable[[Path, str, slice], tuple[Array | Tensor, Array | Tensor, int]] = _ROWS[kind]
    features, labels, count = read(path, array, rows)
    if count != record.rows:
        message = f"the number of rows is wrong: {count}; expected {record.rows}, the number in the file's metadata"
        raise DataError(message, code="file-unreadable", rows=count)
    return features, labels


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


_ROWS: dict[str, Any] = {".npz": _npz_rows, ".safetensors": _safetensors_rows, ".parquet": _parquet_rows}
