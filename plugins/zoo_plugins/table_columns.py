"""Choose the image, label and split columns of a table: those that the user named, or else columns with usual names."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from zoo.dataset import ReadOptions
from zoo.errors import DataError, UsageError, near_misses
from zoo.image_kinds import is_readable_image, remedy
from zoo_plugins.folder_layout import is_training, split_word
from zoo_plugins.table_file import SPLIT_FOLDER, ArrowColumn, Table

_IMAGE = (
    *("image", "image_path", "img", "img_path", "path", "file", "file_name", "filename", "file_path", "filepath"),
    *("image_file", "image_name", "image_filename", "picture", "photo", "images", "image_id", "id_code"),
)  # fmt: skip
_LABEL = (
    *("label", "labels", "class", "class_name", "classname", "category", "target", "label_name", "y", "species"),
    *("diagnosis", "class_id", "label_id", "category_id", "class_label"),
)  # fmt: skip
_SPLIT = ("split", "subset", "partition", "set", "fold", "usage")


@dataclass(frozen=True)
class TableColumns:
    """The names of the chosen columns; ``split`` is ``None`` if the table has no split column."""

    image: str
    label: str
    split: str | None

    def line(self, table: Table) -> str:
        """Return a line that lists the columns that zoo reads, and the columns that zoo does not read."""
        split = f", {self.split!r} (splits)" if self.split else ""
        rest = [name for name in table.columns if name not in (self.image, self.label, self.split)]
        unread = f"; not read: {', '.join(map(repr, rest[:12]))}{', ...' if len(rest) > 12 else ''}" if rest else ""
        return f"columns {self.image!r} (images), {self.label!r} (labels){split}{unread}"


def choose_columns(table: Table, options: ReadOptions) -> TableColumns:
    """Choose the image, label and split columns of a table.

    If the table lacks a column that the user named, raises :class:`~zoo.errors.UsageError`, which suggests similar
    names. Raises :class:`~zoo.errors.DataError` if no column or several columns are suitable.
    """
    if any(_is_image_name(name) for name in table.columns):
        raise DataError(
            f"{table.path} has no header: its first line is {', '.join(table.columns)}; "
            "add a line with the names of the columns, such as image,label",
            code="table-header",
        )
    named = {"image": options.image_column, "label": options.label_column, "split": options.split_column}
    for kind, name in named.items():
        if name is not None and name not in table.columns:
            _refuse_unknown(table, kind, name)
    if len({name for name in named.values() if name}) < sum(name is not None for name in named.values()):
        raise UsageError(f"options name a column twice: {', '.join(filter(None, named.values()))}", code="option-value")
    split = named["split"] or (SPLIT_FOLDER if table.parts else _split_column(table, named))
    taken = [name for name in (*named.values(), split) if name]
    image = named["image"] or _only(table, "image", _IMAGE, taken, lambda name: _holds_images(table.columns[name]))
    label = named["label"] or _label_column(table, [*taken, image])
    return TableColumns(image, label, split)


def _refuse_unknown(table: Table, kind: str, name: str) -> None:
    near = near_misses(name, table.columns)
    hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
    raise UsageError(
        f"--{kind}-column {name!r} is not in {table.path.name}{hint}; it has {', '.join(map(repr, table.columns))}",
        code="unknown-name",
        option=f"{kind}_column",
        near=near,
    )


def _only(table: Table, kind: str, usual: Sequence[str], taken: Sequence[str], fits: Callable[[str], bool]) -> str:
    """Return the suitable column with a usual name, or else the suitable column; refuse several columns."""
    free = [name for name in table.columns if name not in taken]
    fitting = [name for name in free if fits(name)]
    by_name = [name for name in fitting if _plain(name) in map(_plain, usual)]
    for found in (by_name, fitting):
        if len(found) == 1:
            return found[0]
        if found:
            raise DataError(
                f"{table.path} has {len(found)} columns that may hold the {kind}s: {', '.join(map(repr, found))}; "
                f"expected one; try --{kind}-column {found[0]}",
                code="column-ambiguous",
                kind=kind,
                columns=found,
            )
    return _by_name_alone(table, kind, usual, free)


def _by_name_alone(table: Table, kind: str, usual: Sequence[str], free: Sequence[str]) -> str:
    """Return the only column with a usual name; a later check reports its unsuitable values."""
    found = [name for name in free if _plain(name) in map(_plain, usual)]
    if len(found) == 1:
        return found[0]
    near = [name for name in table.columns if near_misses(name, usual, 1)]
    hint = f" (perhaps {', '.join(map(repr, near))})" if near else ""
    raise DataError(
        f"{table.path} has no {kind} column{hint}; it has {', '.join(map(repr, table.columns))}; "
        f"try --{kind}-column NAME",
        code="column-missing",
        kind=kind,
        near=near,
    )


def _label_column(table: Table, taken: Sequence[str]) -> str:
    """Return the column with a usual name for labels, or else the only remaining column that holds no row numbers."""
    free = [name for name in table.columns if name not in taken]
    by_name = [name for name in free if _plain(name) in map(_plain, _LABEL)]
    left = by_name or [name for name in free if not is_bookkeeping(name)]
    if len(left) == 1:
        return left[0]
    return _only(table, "label", _LABEL, taken, lambda name: name in by_name)


def is_bookkeeping(name: str) -> bool:
    """Whether pandas or a database usually gives this name to a column of row numbers.

    >>> [is_bookkeeping(name) for name in ("Unnamed: 0", "__index_level_0__", "index", "id", "kind")]
    [True, True, True, True, False]
    """
    return bool(re.fullmatch(r"(unnamed: \d+|__index_level_\d+__|level_\d+|index|idx|id|row|)", name.casefold()))


def _split_column(table: Table, named: dict[str, str | None]) -> str | None:
    """Return the column with a usual name for splits, if its values include the training split."""
    found = []
    for name in table.columns:
        if _plain(name) in _SPLIT and name not in named.values():
            words = {split_word(str(value)) for value in table.columns[name]}
            if any(map(is_training, words)):
                found.append(name)
            elif _plain(name) == "split":
                raise DataError(
                    f"column {name!r} of {table.path} names no training split; it has "
                    f"{_some(table.columns[name])}; expected 'train' and 'test'; try --split-column NAME",
                    code="split-missing",
                    split="train",
                )
    if len(found) > 1:
        raise DataError(
            f"{table.path} has {len(found)} columns of splits: {', '.join(map(repr, found))}; try --split-column NAME",
            code="column-ambiguous",
            kind="split",
            columns=found,
        )
    return found[0] if found else None


def _some(values: Sequence[Any]) -> str:
    found = sorted({str(value) for value in values})
    return ", ".join(map(repr, found[:8])) + (", ..." if len(found) > 8 else "")


def _plain(name: str) -> str:
    return re.sub(r"[\s_.-]+", "_", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name.strip())).casefold()


def _holds_images(values: Sequence[Any]) -> bool:
    return isinstance(values, ArrowColumn) or any(_is_image_name(value) for value in values[:100])


def _is_image_name(value: object) -> bool:
    if not isinstance(value, str):
        return False
    path = PurePath(value.replace("\\", "/"))
    return is_readable_image(path) or remedy(path) is not None
