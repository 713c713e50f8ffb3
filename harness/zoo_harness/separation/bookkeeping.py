"""Recognise the columns of a table that are not features: indexes, ids, paths, splits and copies of the labels."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np

from zoo.text import one_line

if TYPE_CHECKING:
    from torch import Tensor

    from zoo_harness.separation.validation import Array

_THING = r"(image|img|sample|row|file|line|record|item|example|instance|object|obs|observation|frame|patient|subject)"
# The patterns match lower-case names in which "_" replaces punctuation and spaces. "Unnamed: 0" becomes "unnamed_0".
_KNOWN_NAMES = {
    "stored index": rf"|index|index_level_\d+|unnamed(_\d+)*|{_THING}_?(index|names?)|null_dask_index",
    "row number or id": rf"row|pk|fid|oid|(.*_)?(id|ids|idx|uid|uuid|guid)|{_THING}_?(id|idx|nr|no|num|number)",
    "split or fold": r"(.*_)?(split|splits|fold|folds|kfold|subset|partition)|(is_)?(train|training|test|testing|val|"
    r"valid|validation|dev|holdout)|set",
    "path or file name": r"(.*_)?(path|paths|file|files|filename|filenames|filepath|url|uri)|(file|image)_names?",
    "time": r"(.*_)?(timestamp|datetime|date)",
    "other labels": r"(.*_)?(label|labels|class|target|targets|pred|prediction|predicted)|ground_?truth|gt|"
    r"(class|label|target)_(index|no|nr|num|number|name|encoded)",
}
EQUALS_LABELS = "equals the labels"
_SERIES = 8  # with at least this many columns, a numbered series such as f0, f1, ... is taken to be a feature vector
_FEWEST_ROWS = 5  # with fewer rows, values are often sorted by chance


def known_bookkeeping(name: str) -> str | None:
    """Return why a column's name suggests that the column is not a feature, or ``None`` if the column may be a feature.

    >>> [known_bookkeeping(name) for name in ("Unnamed: 0", "imageId", "cv-fold", "width", "f0")]
    ['stored index', 'row number or id', 'split or fold', None, None]
    """
    separated = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).casefold()
    plain = re.sub(r"[\W_]+", "_", separated).strip("_") or name.strip()
    return next((reason for reason, pattern in _KNOWN_NAMES.items() if re.fullmatch(pattern, plain)), None)


def outside_series(names: Sequence[str]) -> list[str]:
    """Return the names that do not belong to a long numbered series such as f0 to f511.

    If there is no long numbered series, return an empty list.

    >>> outside_series([*(f"f{number}" for number in range(512)), "width"])
    ['width']
    """
    sizes = Counter(map(_stem, names))
    longest = max((size for stem, size in sizes.items() if stem is not None), default=0)
    return [name for name in names if _stem(name) is None or sizes[_stem(name)] < _SERIES] if longest >= _SERIES else []


def short_list(names: Iterable[str], most: int = 12) -> str:
    """Join names with commas, shorten numbered series as in "f0 … f511", and show at most ``most`` parts.

    >>> short_list([*(f"f{number}" for number in range(512)), "width"])
    'f0 … f511 (512), width'
    """
    parts: list[str] = []
    for _series, group in groupby(enumerate(names), lambda item: _stem_and_start(*item)):
        run = [one_line(name) or "''" for _index, name in group]
        parts += run if len(run) < 4 else [f"{run[0]} … {run[-1]} ({len(run):,})"]
    more = [f"and {len(parts) - most:,} more"] if len(parts) > most else []
    return ", ".join([*parts[:most], *more])


def by_reason(reasons: Mapping[str, str]) -> str:
    """Group names by reason, and describe each group as a short list followed by its reason in parentheses.

    >>> by_reason({"id": "row number or id", "row": "row number or id", "fold": "split or fold"})
    'id, row (row number or id); fold (split or fold)'
    """
    groups: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        groups.setdefault(reason, []).append(name)
    return "; ".join(f"{short_list(names)} ({reason})" for reason, names in groups.items())


def copy_finder(labels: Array) -> Callable[[Array], str | None]:
    """Return a function that detects whether a column (N,) equals the labels (N,), or has one value for each class.

    >>> copied = copy_finder(np.array([0, 0, 1, 1]))
    >>> copied(np.array([0.0, 0.0, 1.0, 1.0])), copied(np.array([7, 7, 3, 3])), copied(np.array([0, 1, 1, 1]))
    ('equals the labels', 'one value per class', None)
    """
    classes, first, of_sample = np.unique(labels, return_index=True, return_inverse=True)

    def compare(column: Array) -> str | None:
        values = column[first]
        if len(classes) == len(labels) or (values == values[:1]).all() or not (column == values[of_sample]).all():
            return None
        return EQUALS_LABELS if (values == classes).all() else "one value per class"

    return compare


def row_numbers(features: Tensor) -> Iterator[int]:
    """Yield the indices of columns that may contain row numbers.

    The values of such a column of ``features`` (N, D) are distinct whole numbers that are sorted or have no gaps.

    >>> import torch
    >>> list(row_numbers(torch.tensor([[0, 4], [3, 1], [4, 4], [7, 5], [9, 0]])))
    [0]
    """
    if len(features) < _FEWEST_ROWS:
        return
    import torch

    start = features[:64].to(torch.float64).diff(dim=0).sign()
    lowest, highest = (bound.to(torch.float64) for bound in features.aminmax(dim=0))
    without_gap = highest - lowest == len(features) - 1
    for index in (((start == start[0]) & (start != 0)).all(0) | without_gap).nonzero()[:, 0].tolist():
        column = features[:, index].to(torch.float64)
        signs = column.diff().sign()
        in_order = bool((signs == signs[0]).all())
        if (column == column.round()).all() and (in_order or len(column.unique()) == len(column)):
            yield index


def _stem(name: str) -> str | None:
    """Return a name without the number at its end, or ``None`` if the name does not end with a number."""
    return name.rstrip("0123456789") if name[-1:].isdecimal() else None


def _stem_and_start(index: int, name: str) -> tuple[str, int]:
    """Return a key that is equal for successive names of a numbered series, such as f7 at index 1 and f8 at index 2."""
    stem = name.rstrip("0123456789")
    return stem, int(name[len(stem) :] or -index) - index
