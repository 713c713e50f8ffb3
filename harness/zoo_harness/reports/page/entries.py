"""Build the rows of a report from a comparison of runs and the records of these runs, best row first."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count, takewhile
from pathlib import Path

from zoo.text import one_line
from zoo_harness.records.comparison import ComparedRow, ComparedRun, ImageSet, RowDifference
from zoo_harness.records.run import RunRecord
from zoo_harness.reports.comparison import SIGNIFICANT, Comparison

LONGEST = 80  # the most characters of a name


@dataclass(frozen=True)
class Entry:
    """One row of a report, with the number ``number`` on the page; ``name`` names its run folders.

    ``is_best`` is true if no other row on the same images has a higher accuracy. ``label`` is the backbone's name, or
    ``name`` if another row on the same images has the same backbone.
    """

    number: int
    name: str
    label: str
    row: ComparedRow
    run: ComparedRun
    records: tuple[RunRecord, ...]
    difference: RowDifference | None
    is_best: bool

    @property
    def record(self) -> RunRecord:
        """The record of the run with the lowest seed."""
        return self.records[0]

    @property
    def is_alike(self) -> bool:
        """Whether the row is the best on its images, or the paired test cannot tell the row from the best."""
        return self.is_best or (self.difference is not None and self.difference.p_holm >= SIGNIFICANT)

    @property
    def title(self) -> str:
        """The backbone and the name of the runs."""
        return f"{shown(self.run.backbone, 40)} ({shown(self.name, 60)})"

    def mean(self, measure: Callable[[RunRecord], float | None]) -> float | None:
        """Return the mean of a metric over the runs of the row, or ``None`` if a run lacks the metric."""
        values = [measure(record) for record in self.records]
        known = [value for value in values if value is not None]
        return sum(known) / len(known) if len(known) == len(values) else None


@dataclass(frozen=True)
class Group:
    """The rows on the same images, highest accuracy first; the unique ``title`` names the dataset and the split."""

    title: str
    images: ImageSet
    entries: tuple[Entry, ...]


def groups_of(found: Comparison, records: Sequence[RunRecord], origins: Sequence[Path | str]) -> tuple[Group, ...]:
    """Return one group for each set of images; ``records`` and ``origins`` belong to the runs of the comparison."""
    names = run_names(origins)
    tested = {each.row: each for each in found.differences}
    baselines = {each.baseline for each in found.differences}
    rows_of = Counter(row.images for row in found.rows)
    backbones = Counter((row.images, found.runs[row.runs[0]].backbone) for row in found.rows)
    order = sorted(range(len(found.rows)), key=lambda place: _rank(found, place, names))
    entries: dict[int, list[Entry]] = {}
    for number, place in enumerate(order):
        row = found.rows[place]
        is_best = place in baselines or (rows_of[row.images] == 1 and row.accuracy is not None)
        members = tuple(records[run] for run in row.runs)
        run, name = found.runs[row.runs[0]], _row_name([names[run] for run in row.runs])
        label = shown(
            run.backbone
            if backbones[row.images, run.backbone] == 1
            else name.partition("*,")[0] + "*" * (len(members) > 1),
            24,
        )
        entry = Entry(number, name, label, row, run, members, tested.get(place), is_best)
        entries.setdefault(row.images, []).append(entry)
    titles = _titles([found.images[number - 1] for number in entries])
    return tuple(
        Group(title, found.images[number - 1], tuple(rows))
        for title, (number, rows) in zip(titles, entries.items(), strict=True)
    )


def _titles(images: Sequence[ImageSet]) -> list[str]:
    titles = [f"{shown(each.dataset)}, {shown(each.split, 40)} split" for each in images]
    prints = [each.fingerprint[:8] for each in images]
    longer = [
        f"{title} (fingerprint {mark})" if titles.count(title) > 1 else title
        for title, mark in zip(titles, prints, strict=True)
    ]
    return _unlike(longer)


def _rank(found: Comparison, place: int, names: Sequence[str]) -> tuple[object, ...]:
    row, images = found.rows[place], found.images[found.rows[place].images - 1]
    about = images.dataset, images.split, images.fingerprint, row.images
    return *about, row.accuracy is None, -(row.accuracy or 0), names[row.runs[0]]


def run_names(origins: Sequence[Path | str]) -> list[str]:
    """Return unique names of runs: the paths of their folders, relative to the deepest folder that contains all runs.

    If an item of ``origins`` is text instead of a path, the text is the name.

    >>> run_names([Path("/a/runs/one"), Path("/a/other/one")])
    ['runs/one', 'other/one']
    """
    parents = [each.parent for each in origins if isinstance(each, Path)]
    above = os.path.commonpath(parents) if parents else ""
    return _unlike([shown(each.relative_to(above) if isinstance(each, Path) else each) for each in origins])


def _unlike(names: Sequence[str]) -> list[str]:
    """Return the names, and append a number to each name that occurred before."""
    found: list[str] = []
    used: set[str] = set()
    for name in names:
        numbered = (f"{name} ({number})" for number in count(2))
        found.append(name if name not in used else next(each for each in numbered if each not in used))
        used.add(found[-1])
    return found


def _row_name(names: Sequence[str]) -> str:
    same = "".join(characters[0] for characters in takewhile(lambda each: len({*each}) == 1, zip(*names, strict=False)))
    return names[0] if len(names) == 1 else f"{same}*, {len(names)} runs"


def shown(text: object, most: int = LONGEST) -> str:
    r"""Return text on one line, without marks of writing direction; the middle of a long text is cut out.

    >>> shown("a" * 50, 9), shown("a\nb")
    ('aaaa…aaaa', 'a b')
    """
    line = one_line(str(text)[:100_000])
    half = (most - 1) // 2
    return line if len(line) <= most else f"{line[:half]}…{line[-half:]}"
