"""Convert a label column of a table to class names and indices; refuse unusable labels, and warn about unusual ones."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from zoo.class_names import normalised
from zoo.errors import DataError
from zoo_plugins.table_file import Table


@dataclass(frozen=True)
class TableLabels:
    """The class names, the class index of each row, and warnings about the labels."""

    classes: tuple[str, ...]
    indices: list[int]
    warnings: tuple[str, ...] = ()


def read_labels(table: Table, column: str, rows: Sequence[int]) -> TableLabels:
    """Read the labels in some rows of a table, and make a class of each distinct label.

    Classes are sorted by name, after texts were converted to Unicode form NFC; integer labels are sorted as numbers. If
    the metadata of a parquet file name the classes of integer labels, these names are used. Raises
    :class:`~zoo.errors.DataError` for rows without a label, for fractions, for a different label in every row, and for
    fewer than two classes.
    """
    values = [table.columns[column][row] for row in rows]
    where = f"label column {column!r} of {table.path}"
    missing = [row for row, value in zip(rows, values, strict=True) if _is_missing(value)]
    if missing:
        raise DataError(
            f"{where} has {len(missing):,} rows without a label: {table.some_rows(missing)}; "
            "fill them in or remove these rows",
            code="label-missing",
            count=len(missing),
            rows=[table.row_name(row) for row in missing[:10]],
        )
    if column in table.class_names:
        return _named_numbers(values, table.class_names[column], where)
    numbers = _numbers(values)
    if numbers is None:
        names = [normalised(str(value)) for value in values]
        warnings: tuple[str, ...] = ()
        classes = sorted(set(names))
    else:
        _refuse_fractions(table, rows, numbers, where)
        names, warnings = _numbered_names(values, where)
        classes = sorted(set(names), key=lambda name: (float(name), name))
    _check_classes(classes, len(values), where)
    place = {name: index for index, name in enumerate(classes)}
    return TableLabels(tuple(classes), [place[name] for name in names], warnings)


def _is_missing(value: Any) -> bool:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return True
    return isinstance(value, str) and value.strip().casefold() in ("", "nan")


def _numbers(values: Sequence[Any]) -> list[float] | None:
    """Return all labels as numbers, or ``None`` if a label is not a number."""
    if any(isinstance(value, bool) for value in values):
        return None
    try:
        numbers = [float(value) for value in values]
    except (TypeError, ValueError, OverflowError):
        return None
    # The function float accepts "1_0" and "inf", but zoo reads such texts as class names.
    plain = all(set(str(value).strip().lower()) <= set("0123456789+-.e") for value in values)
    return numbers if plain and all(map(math.isfinite, numbers)) else None


def _refuse_fractions(table: Table, rows: Sequence[int], numbers: Sequence[float], where: str) -> None:
    fractions = [row for row, number in zip(rows, numbers, strict=True) if number != int(number)]
    if fractions:
        raise DataError(
            f"{where} holds decimal fractions ({len(fractions):,} rows: {table.some_rows(fractions)}); expected names "
            "or whole numbers; try --label-column NAME",
            code="label-fraction",
            count=len(fractions),
        )


def _numbered_names(values: Sequence[Any], where: str) -> tuple[list[str], tuple[str, ...]]:
    """Return the class names of numeric labels, and warnings about decimals and about missing numbers."""
    texts = [str(value).strip() for value in values]
    decimal = [text for text in texts if not text.lstrip("+-").isdigit()]
    names = [text if text.lstrip("+-").isdigit() else str(int(float(text))) for text in texts]
    warnings = []
    if decimal:
        warnings.append(f"{where} holds decimals (such as {decimal[0]}); they are read as whole numbers")
    found = {int(name) for name in names}
    low, high = min(found), max(found)
    absent = [number for number in range(low, high + 1) if number not in found] if high - low < 100_000 else []
    if absent or high - low >= 100_000:
        shown = ", ".join(map(str, absent[:10])) + (", ..." if len(absent) > 10 else "")
        warnings.append(f"{where} has {len(found)} numbers from {low} to {high}" + f", without {shown}" * bool(absent))
    return names, tuple(warnings)


def _named_numbers(values: Sequence[Any], classes: tuple[str, ...], where: str) -> TableLabels:
    outside = [value for value in values if not isinstance(value, int) or not 0 <= value < len(classes)]
    if outside:
        hidden = "; -1 usually marks hidden test labels" if outside[0] == -1 else ""
        raise DataError(
            f"{where} holds {outside[0]!r}; expected 0 to {len(classes) - 1}, the numbers of its classes{hidden}",
            code="label-unknown",
        )
    return TableLabels(classes, list(values))


def _check_classes(classes: Sequence[str], rows: int, where: str) -> None:
    if len(classes) < 2:
        raise DataError(
            f"{where} has only one class, {classes[0]!r}; expected two or more", code="class-count", name=classes[0]
        )
    if len(classes) == rows and rows > 2:
        raise DataError(
            f"{where} has a different value in each of its {rows:,} rows; expected classes with several images; "
            "try --label-column NAME",
            code="label-unique",
        )


def conflicting(keys: Sequence[Any], indices: Sequence[int]) -> tuple[list[Any], int]:
    """Return the keys that have several different labels, and the number of keys that occur more than once.

    >>> conflicting(["a", "b", "a", "b"], [0, 1, 0, 2])
    (['b'], 2)
    """
    labels: dict[Any, set[int]] = {}
    for key, index in zip(keys, indices, strict=True):
        labels.setdefault(key, set()).add(index)
    repeated = sum(count > 1 for count in Counter(keys).values())
    return [key for key, found in labels.items() if len(found) > 1], repeated
