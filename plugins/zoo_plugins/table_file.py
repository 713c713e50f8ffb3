"""Read a table from a CSV, TSV, JSON Lines or parquet file into one list per column, without pandas."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from zoo.errors import DataError
from zoo_plugins.hub_class_names import names_in_schema

TEXT_ENDINGS = (".csv", ".tsv", ".txt")
JSON_ENDINGS = (".jsonl", ".ndjson")
PARQUET_ENDINGS = (".parquet", ".pq")
ENDINGS = (".csv", ".tsv", ".jsonl", ".parquet")
"""The usual file name endings of tables, as error messages list them."""
SPLIT_FOLDER = "split folder"
"""The name of the column that :func:`joined` adds to hold the name of each row's split folder."""
_SPREADSHEETS = (".xlsx", ".xls", ".ods", ".numbers")


@dataclass(frozen=True)
class Table:
    """The columns of a table file; ``notes`` are lines for the run record that describe how the file was read.

    For a text file, ``first_line`` is the line number of the first row. ``class_names`` maps label columns
    to the class names in a parquet file's metadata. ``parts`` lists the tables that :func:`joined` combined.
    """

    path: Path
    columns: dict[str, list[Any]]
    notes: tuple[str, ...] = ()
    first_line: int | None = None
    class_names: dict[str, tuple[str, ...]] = field(default_factory=dict)
    parts: tuple[Table, ...] = ()

    @property
    def rows(self) -> int:
        """The number of rows, without the header."""
        return len(next(iter(self.columns.values()), ()))

    def row_name(self, index: int) -> str:
        """Return the name of a row for messages, such as its line number.

        >>> Table(Path("a.csv"), {}, first_line=2).row_name(0)
        'line 2'
        """
        if self.parts:
            part, inner = self._part_of(index)
            return f"{part.path.parent.name}/{part.path.name}, {part.row_name(inner)}"
        return f"row {index + 1}" if self.first_line is None else f"line {index + self.first_line}"

    def folder_of(self, index: int) -> Path:
        """Return the folder of a row's table, to which the paths in the row are relative."""
        return (self._part_of(index)[0] if self.parts else self).path.parent

    def _part_of(self, index: int) -> tuple[Table, int]:
        """Return the table from which a row of a joined table came, and the row's index in that table."""
        for part in self.parts:
            if index < part.rows:
                return part, index
            index -= part.rows
        raise IndexError(index)

    def some_rows(self, indices: Sequence[int]) -> str:
        """Return a text with the names of the given rows, at most ten of them."""
        return ", ".join(self.row_name(index) for index in indices[:10]) + (", ..." if len(indices) > 10 else "")


def read_table(path: Path) -> Table:
    """Read the table in a file; the ending of the file's name determines the format.

    Raises :class:`~zoo.errors.DataError` for a damaged file, an unknown format, rows of unequal length, and missing or
    duplicate column names.
    """
    ending = path.suffix.lower()
    if ending in PARQUET_ENDINGS:
        table = _read_parquet(path)
    elif ending in JSON_ENDINGS:
        table = _read_json_lines(path)
    elif ending in TEXT_ENDINGS:
        table = _read_text(path)
    else:
        advice = "first save it as CSV" if ending in _SPREADSHEETS else "give the table itself"
        raise DataError(
            f"format of {path} is unknown: {ending or 'no ending'}; expected {', '.join(ENDINGS)}; {advice}",
            code="table-format",
            path=str(path),
        )
    if not table.rows:
        raise DataError(f"{path} has no rows below its header", code="table-empty", path=str(path))
    return table


def joined(root: Path, tables: Sequence[Table]) -> Table:
    """Join the tables of several split folders into one table that has the columns common to all tables.

    The added column :data:`SPLIT_FOLDER` holds the name of each row's folder. Raises :class:`~zoo.errors.DataError` if
    the metadata of the tables number the classes differently.
    """
    first = tables[0]
    if any(table.class_names != first.class_names for table in tables):
        raise DataError(
            f"tables in {root} number the classes differently: {', '.join(str(table.path) for table in tables)}; "
            "expected the same class names in all",
            code="class-mismatch",
            path=str(root),
        )
    common = [name for name in first.columns if all(name in table.columns for table in tables)]
    columns = {name: [value for table in tables for value in table.columns[name]] for name in common}
    columns[SPLIT_FOLDER] = [table.path.parent.name for table in tables for _row in range(table.rows)]
    notes = dict.fromkeys(note for table in tables for note in table.notes)
    dropped = sorted({name for table in tables for name in table.columns} - set(common))
    if dropped:
        notes[f"columns that only some tables have are not read: {', '.join(map(repr, dropped[:12]))}"] = None
    return Table(root, columns, tuple(notes), class_names=first.class_names, parts=tuple(tables))


def _read_json_lines(path: Path) -> Table:
    rows, first = [], None
    for number, line in enumerate(_decoded(path).split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(
                f"{path}, line {number} is not JSON: {error}", code="table-damaged", path=str(path), line=number
            ) from error
        if not isinstance(row, dict):
            raise DataError(
                f"{path}, line {number} is JSON of type {type(row).__name__}; expected a JSON object in each line",
                code="table-damaged",
                path=str(path),
                line=number,
            )
        first = first or number
        rows.append(row)
    names = dict.fromkeys(name for row in rows for name in row)
    return Table(path, {name: [row.get(name) for row in rows] for name in names}, first_line=first)


def _read_parquet(path: Path) -> Table:
    try:
        table = pyarrow.parquet.read_table(path)
    except (OSError, pyarrow.ArrowException) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{path} cannot be read as a parquet file: {reason}", code="table-damaged") from error
    _check_header(path, table.column_names)
    names = {name: names_in_schema(table.schema, name) for name in table.column_names}
    # An encoded image stays in Arrow's memory until zoo accesses the image.
    columns = {name: _values(table.column(name)) for name in table.column_names}
    return Table(path, columns, class_names={name: found for name, found in names.items() if found})


def _values(column: Any) -> Any:
    kind = column.type
    is_image = pyarrow.types.is_struct(kind) or pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind)
    return ArrowColumn(column) if is_image else column.to_pylist()


class ArrowColumn(Sequence[Any]):
    """A column of Arrow values, each of which is converted to Python when it is accessed."""

    def __init__(self, column: Any) -> None:
        self._column = column

    def __len__(self) -> int:
        return len(self._column)

    def __getitem__(self, index: Any) -> Any:
        return self._column[index].as_py()


def _read_text(path: Path) -> Table:
    text = _decoded(path)
    delimiter, notes = _delimiter(path, text)
    try:
        lines = [
            (number, row) for number, row in _numbered(csv.reader(io.StringIO(text), delimiter=delimiter, strict=True))
        ]
    except csv.Error as error:
        raise DataError(f"{path} cannot be read as a table: {error}", code="table-damaged", path=str(path)) from error
    if not lines:
        raise DataError(f"{path} is empty; expected a header and rows", code="table-empty", path=str(path))
    (_first, header), rows = lines[0], lines[1:]
    header = [name.strip() for name in header]
    _check_header(path, header)
    uneven = [number for number, row in rows if len(row) != len(header)]
    if uneven:
        shown = ", ".join(f"line {number}" for number in uneven[:10]) + (", ..." if len(uneven) > 10 else "")
        raise DataError(
            f"{path}: {len(uneven):,} rows do not have {len(header)} cells as the header has: {shown}; "
            "quote cells that contain the separator",
            code="table-uneven",
            lines=uneven[:10],
        )
    columns = {name: [row[place].strip() for _number, row in rows] for place, name in enumerate(header)}
    return Table(path, columns, notes, first_line=rows[0][0] if rows else 2)


def _numbered(reader: Any) -> list[tuple[int, list[str]]]:
    """Return pairs of a line number and a row for all rows that are not empty."""
    rows, begin = [], 1
    for row in reader:
        if any(cell.strip() for cell in row):
            rows.append((begin, row))
        begin = reader.line_num + 1
    return rows


def _decoded(path: Path) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}", code="file-unreadable") from error
    encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"  # Excel writes these marks
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise DataError(
            f"{path} is not UTF-8 text: byte {content[error.start]:#04x} in line {line}; save it as UTF-8",
            code="table-encoding",
            path=str(path),
            line=line,
        ) from error


def _delimiter(path: Path, text: str) -> tuple[str, tuple[str, ...]]:
    """Return the separator of the cells, and a note if files with this ending usually have another separator."""
    usual = "\t" if path.suffix.lower() == ".tsv" else ","
    header = text.lstrip("\r\n").partition("\n")[0]
    if usual in header:
        return usual, ()
    names = {",": "commas", ";": "semicolons", "\t": "tabs"}
    counts = {each: header.count(each) for each in names if each != usual}
    found = max(counts, key=lambda each: counts[each])
    return (found, (f"cells are separated by {names[found]}",)) if counts[found] else (usual, ())


def _check_header(path: Path, names: Sequence[str]) -> None:
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise DataError(
            f"{path} has {names.count(repeated[0])} columns named {repeated[0]!r}; rename them",
            code="table-header",
            name=repeated[0],
        )
