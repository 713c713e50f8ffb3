"""Read features and labels from tables in the formats parquet, Arrow, Feather, CSV and TSV.

The labels are one column, by default ``label`` or ``labels``. The features are either a column of lists, by default
``features``, or several numeric columns. By default, all numeric columns are features, except for indexes, ids and
other bookkeeping columns.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import numpy as np
import torch

from zoo.errors import DataError, UnknownNameError, UsageError
from zoo_harness.separation.bookkeeping import (
    EQUALS_LABELS,
    by_reason,
    copy_finder,
    known_bookkeeping,
    outside_series,
    short_list,
)
from zoo_harness.separation.file_kinds import delimiter_of, labels_column
from zoo_harness.separation.validation import Array, checked_labels, named_labels

if TYPE_CHECKING:
    from pyarrow import Table

_NUMBERS, _LISTS, _TRUTH_VALUES, _TEXT = "numbers", "lists of numbers", "booleans", "text"


class TableSamples(NamedTuple):
    """The features (N, D), the labels (N,), and the names of the feature columns of a table.

    ``class_names``: the sorted class names if the column of labels holds text; ``labels`` are indices into these names.
    ``left_out``: the reasons why columns are not features, as a dictionary by column name.
    """

    features: Array
    labels: torch.Tensor
    class_names: tuple[str, ...]
    columns: list[str]
    left_out: dict[str, str]


def read_parquet(file: BinaryIO) -> Table:
    """Read a parquet file."""
    import pyarrow.parquet

    return pyarrow.parquet.read_table(file)


def read_arrow(file: BinaryIO) -> Table:
    """Read an Arrow file, a Feather file, or an Arrow stream such as the library ``datasets`` writes."""
    import pyarrow.ipc

    is_stream = file.read(4) == b"\xff" * 4
    file.seek(0)
    return (pyarrow.ipc.open_stream if is_stream else pyarrow.ipc.open_file)(file).read_all()


def read_text(file: BinaryIO) -> Table:
    """Read a text table with column names in the first line, separated by commas, semicolons or tabs."""
    from pyarrow.csv import ConvertOptions, ParseOptions, ReadOptions, read_csv

    header, first_row = file.readline(), file.readline()
    size = file.seek(0, 2)
    file.seek(0)
    delimiter = delimiter_of(header)
    decimal_point = "," if delimiter != "," and re.search(rb"\d,\d", first_row) else "."
    return read_csv(
        file,
        # Read the file as one block. pyarrow infers column types from the first block, and a column of fractions may
        # begin with many whole numbers.
        ReadOptions(block_size=min(max(size, 2**20), 2**31 - 1)),
        ParseOptions(delimiter=delimiter),
        ConvertOptions(decimal_point=decimal_point),
    )


def columns_of(
    table: Table, features: str | Sequence[str] | None, labels: str | None, exclude: str | None
) -> TableSamples:
    """Choose the feature columns and the column of labels of a table, and return their values.

    ``features`` and ``exclude``: column names and patterns such as ``f*``, separated by commas. ``features`` may also
    be a sequence of names. A pattern in ``features`` does not match bookkeeping columns such as ids. Raises
    :class:`~zoo.errors.UsageError` if the table lacks a given column, or if it is unclear whether a column is a
    feature.
    """
    table.validate(full=True)  # the offsets in a damaged file may point to addresses outside of the file
    names: list[str] = table.column_names
    doubled = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if doubled:
        message = f"several columns have the same name: {short_list(doubled)}; expected one column of each name"
        raise DataError(message, code="columns-doubled", columns=doubled)
    if features is not None and exclude is not None:
        message = f"--exclude is unused: {exclude!r}; expected either --features or --exclude"
        raise UsageError(message, code="option-unused", option="exclude")
    labels = labels_column(names, labels)
    given, class_names = named_labels(column_array(table, labels))
    label_array = checked_labels(given, torch.empty(table.num_rows, 0))
    others = [name for name in names if name != labels]
    left_out, doubts = _bookkeeping(table, others, label_array.numpy())
    if features is None:
        left_out |= dict.fromkeys(_matching(exclude.split(","), others, others) if exclude else (), "--exclude")
        used = _chosen(table, others, left_out, doubts)
    else:
        candidates = [name for name in others if name not in left_out]
        if isinstance(features, str):
            used = _matching(features.split(","), others, candidates)
        else:
            used = _matching(features, others, ())
    left_out = {name: reason for name, reason in left_out.items() if name not in used}
    return TableSamples(_matrix(table, used, left_out), label_array, class_names, used, left_out)


def _matching(wanted: Iterable[str], names: Sequence[str], candidates: Sequence[str]) -> list[str]:
    """Replace each pattern in ``wanted`` by the matching candidates, and return the names without duplicates."""
    found: dict[str, None] = {}
    for item in wanted:
        matches = [item] if item in names else [name for name in candidates if fnmatchcase(name, item)]
        if not matches:
            raise UnknownNameError("feature column", item, names)
        found |= dict.fromkeys(matches)
    return list(found)


def _bookkeeping(table: Table, names: Sequence[str], labels: Array) -> tuple[dict[str, str], dict[str, str]]:
    """Return two dictionaries from column names to reasons: columns that are not features, and doubtful columns."""
    stored = (table.schema.pandas_metadata or {}).get("index_columns", [])
    copy_of_labels = copy_finder(labels)
    left_out: dict[str, str] = {}
    doubts: dict[str, str] = {}
    for name in names:
        kind = _kind(table.schema.field(name).type)
        copy = copy_of_labels(column_array(table, name)) if kind in (_NUMBERS, _TRUTH_VALUES) else None
        if name in stored:
            left_out[name] = "stored index"
        elif known := known_bookkeeping(name):
            left_out[name] = known
        elif copy == EQUALS_LABELS:
            left_out[name] = copy
        elif kind == _TEXT and _holds_numbers(table.column(name)):
            doubts[name] = "numbers as text"
        elif kind not in (_NUMBERS, _LISTS, _TRUTH_VALUES):
            left_out[name] = kind
        elif copy or kind == _TRUTH_VALUES:
            doubts[name] = copy or kind
    return left_out, doubts


def _chosen(table: Table, names: Sequence[str], left_out: dict[str, str], doubts: dict[str, str]) -> list[str]:
    """Return the feature columns, and add the remaining columns to ``left_out``.

    Raises :class:`~zoo.errors.UsageError` if it is unclear whether a column is a feature.
    """
    used = [name for name in names if name not in left_out]
    kinds = {name: _kind(table.schema.field(name).type) for name in used}
    if kinds.get("features") == _LISTS:
        left_out |= {name: "not in column features" for name in used if name != "features"}
        return ["features"]
    numbers = [name for name in used if kinds[name] == _NUMBERS]
    lists = [name for name in used if kinds[name] == _LISTS]
    doubts = {name: reason for name, reason in doubts.items() if name in used}
    doubts |= dict.fromkeys(outside_series(numbers), "not in the numbered series")
    doubts |= dict.fromkeys(lists if len(used) > 1 else (), "lists beside other columns")
    if doubts:
        advice = "try --features NAME,... or --exclude NAME,...; both take patterns such as 'f*'"
        message = f"it is unclear whether columns are features: {by_reason(doubts)}; {advice}"
        raise UsageError(message, code="columns-ambiguous", columns=list(doubts))
    return used


def _matrix(table: Table, names: Sequence[str], left_out: dict[str, str]) -> Array:
    kinds = {name: _kind(table.schema.field(name).type) for name in names}
    if list(kinds.values()) == [_LISTS]:
        return column_array(table, names[0])
    others = [name for name, kind in kinds.items() if kind not in (_NUMBERS, _TRUTH_VALUES)]
    if others or not names:
        fault = ", ".join(f"{name!r} holds {kinds[name]}" for name in others[:5]) or "no column is left"
        unused = f" ({by_reason(left_out)})" if left_out else ""
        message = f"there are no features: {fault}{unused}; expected columns of numbers; try --features x0,x1"
        raise UsageError(message, code="missing-features", columns=others)
    return np.stack([column_array(table, name) for name in names], axis=1)


def _kind(type_: Any) -> str:
    """Return a word for the values in a column of the given pyarrow type, such as "numbers" or "text"."""
    from pyarrow import types

    type_ = _plain_type(type_)
    if types.is_floating(type_) or types.is_integer(type_) or types.is_decimal(type_):
        return _NUMBERS
    if types.is_boolean(type_):
        return _TRUTH_VALUES
    if types.is_string(type_) or types.is_large_string(type_) or types.is_string_view(type_):
        return _TEXT
    if types.is_null(type_):
        return "empty"
    if types.is_list(type_) or types.is_large_list(type_) or types.is_fixed_size_list(type_):
        return _LISTS if _kind(type_.value_type) in (_NUMBERS, _LISTS) else "lists"
    return str(type_).partition("<")[0].partition("[")[0]  # for example "timestamp" for "timestamp[ns]"


def _plain_type(type_: Any) -> Any:
    from pyarrow import BaseExtensionType, types

    if isinstance(type_, BaseExtensionType):
        return _plain_type(type_.storage_type)
    return _plain_type(type_.value_type) if types.is_dictionary(type_) else type_


def _holds_numbers(column: Any) -> bool:
    """Whether more than half of the texts in a column's first 1,000 rows can be parsed as numbers."""
    texts = [str(value).strip().replace(",", ".") for value in column.slice(0, 1000).to_pylist() if value]

    def is_number(text: str) -> bool:
        try:
            float(text)
        except ValueError:
            return False
        return True

    return 2 * sum(map(is_number, texts)) > len(texts)


def column_array(table: Table, name: str) -> Array:
    """Return a column of a table as an array (N,), or as an array (N, D) if the column holds lists."""
    import pyarrow

    column = table.column(name).combine_chunks()
    if isinstance(column, pyarrow.ExtensionArray):
        column = column.storage
    if isinstance(column, pyarrow.DictionaryArray):
        column = column.dictionary_decode()
    if _kind(column.type) == _LISTS:
        return _from_lists(column, name)
    if pyarrow.types.is_decimal(column.type):
        column = column.cast(pyarrow.float64())
    numbers: Array = column.to_numpy(zero_copy_only=False)
    return numbers


def _from_lists(column: Any, name: str) -> Array:
    import pyarrow.compute

    if _kind(column.type.value_type) != _NUMBERS or column.null_count:
        fault = f"{column.type} with {column.null_count} nulls"
        raise ValueError(f"column {name!r} holds {fault}; expected a list of numbers in each row")
    lengths = pyarrow.compute.min_max(pyarrow.compute.list_value_length(column)).as_py()
    if lengths["min"] != lengths["max"]:
        message = f"lists of column {name!r} have lengths from {lengths['min']} to {lengths['max']}"
        raise ValueError(f"{message}; expected one length")
    rows: Array = column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), lengths["max"] or 0)
    return rows
