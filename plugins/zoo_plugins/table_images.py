"""Find and decode the images that a table contains, or the image files that a table names."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import PIL.Image

from zoo.errors import DataError
from zoo.image_kinds import readable_endings
from zoo.image_reader import ImageReader
from zoo_plugins.decoding import decode_image
from zoo_plugins.system_files import is_system_name
from zoo_plugins.table_file import ArrowColumn, Table


class HeldImages:
    """The encoded images in a column of a table, which are decoded to RGB when they are accessed."""

    concurrent = True

    def __init__(self, table: Table, column: str, rows: Sequence[int], reader: ImageReader) -> None:
        self._table = table
        self._values = table.columns[column]
        self._rows = rows
        self._reader = reader

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> PIL.Image.Image:
        """Decode one image to RGB; if decoding fails, raise :class:`~zoo.errors.DataError` with the row."""
        return self.decode(index).convert("RGB")

    def decode(self, index: int) -> PIL.Image.Image:
        """Decode one image to mode ``L`` or ``RGB``."""
        row = self._rows[index]
        value = self._values[row]
        content = value.get("bytes") if isinstance(value, dict) else value
        where = f"{self._table.path}, {self._table.row_name(row)}"
        if not isinstance(content, bytes):
            raise DataError(f"{where} contains no encoded image", code="image-missing")
        return decode_image(io.BytesIO(content), where, self._reader)


@dataclass(frozen=True)
class NamedFiles:
    """The image files that rows of a table name; ``missing`` has the names for which no file exists."""

    paths: dict[int, Path]
    missing: dict[int, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def holds_images(table: Table, column: str) -> bool:
    """Whether a column contains encoded images instead of file names."""
    values = table.columns[column]
    if not isinstance(values, ArrowColumn):
        return False
    value: Any = values[0]
    return isinstance(value, bytes) or (isinstance(value, dict) and value.get("bytes") is not None)


def find_files(table: Table, column: str, rows: Sequence[int], *, skip_missing: bool) -> NamedFiles:
    r"""Return the image files that the rows of a table name by paths relative to the table's folder.

    If no file has the name as written, the backslashes of Windows paths are read as slashes. If ``skip_missing`` is
    false, missing files raise :class:`~zoo.errors.DataError`, which lists up to ten missing files.
    """
    paths, missing, turned = {}, {}, 0
    for row in rows:
        folder = table.folder_of(row)
        value: Any = table.columns[column][row]
        name = (value.get("path") if isinstance(value, dict) else value) or ""
        written = folder / str(name)
        path = folder / str(name).replace("\\", "/") if "\\" in str(name) and not _is_file(written) else written
        turned += path != written and _is_file(path)
        if name and _is_file(path):
            paths[row] = path
        else:
            missing[row] = str(name)
    if missing and (not skip_missing or not paths):
        raise _missing_files(table, column, missing, len(rows))
    notes = (f"{turned:,} names with backslashes are read as paths",) if turned else ()
    return NamedFiles(paths, missing, notes)


def _is_file(path: Path) -> bool:
    try:
        return os.path.isfile(path)  # noqa: PTH113 - Path.is_file raises an error for names that are too long
    except ValueError:  # the name contains a null character
        return False


def _missing_files(table: Table, column: str, missing: dict[int, str], rows: int) -> DataError:
    shown = ", ".join(f"{name or '(empty)'} ({table.row_name(row)})" for row, name in list(missing.items())[:10])
    rest = ", ..." if len(missing) > 10 else ""
    first = next(iter(missing))
    return DataError(
        f"{len(missing):,} of {rows:,} image files in column {column!r} of {table.path} are missing: {shown}{rest}; "
        f"{_advice(table.folder_of(first), missing[first])}; or try --skip-unreadable",
        code="files-missing",
        count=len(missing),
        names=list(missing.values())[:10],
    )


def _advice(folder: Path, name: str) -> str:
    """Return advice on how the table could name its missing files; ``name`` is the first missing name."""
    if "://" in name:
        return "zoo does not download images from addresses in a table; download them first"
    endings = [ending for ending in readable_endings() if name and _is_file(folder / (name + ending))]
    if endings:
        return f"the files end in {endings[0]}: add the ending to the names in the column"
    deeper = [each for each in sorted(folder.iterdir()) if each.is_dir() and not is_system_name(each.name)]
    for inner in deeper:
        for ending in ("", *readable_endings()):
            if name and _is_file(inner / (name + ending)):
                return f"there is {inner.name}/{name}{ending}: write the paths relative to the folder of the table"
    return f"paths are relative to {folder}"
