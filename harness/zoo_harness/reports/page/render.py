"""Render the HTML of ``zoo report``: equal records give equal bytes, and no text of a record becomes markup."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup

from zoo_harness.records.comparison import LeftOutRun
from zoo_harness.reports.page import columns, curves
from zoo_harness.reports.page.charts import charts
from zoo_harness.reports.page.entries import Entry, Group, shown
from zoo_harness.reports.page.rankings import RankTable

GENERATOR = "blockzoo report 1"
"""The content of the page's ``generator``, by which ``zoo report`` recognises a page that it may overwrite."""
MOST_GROUPS = 12  # with charts
_MOST_LEFT_OUT = 200
_ESCAPED = {ord(character): f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"}


def render_page(
    groups: Sequence[Group],
    rankings: Sequence[RankTable],
    left_out: Sequence[LeftOutRun],
    confusions: Mapping[int, dict[str, Any]],
) -> str:
    """Return the HTML of a report; ``confusions`` maps a row's number to its confusion matrix."""
    entries = [entry for group in groups for entry in group.entries]
    letters = columns.software(entries)
    kept, empty = columns.filled(columns.all_columns(letters), entries)
    script = Markup(_file("report.js"))  # noqa: S704 - our own file
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    sections = [_section(group, confusions) for group in groups[:MOST_GROUPS]]
    content = {
        "generator": GENERATOR,
        "policy": f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'sha256-{digest}'; "
        "base-uri 'none'; form-action 'none'",
        "style": Markup(_file("report.css")),  # noqa: S704 - our own file
        "script": script,
        "data": _data(groups, kept, rankings, confusions),
        "title": _title(groups, rankings),
        "groups": groups,
        "entries": entries,
        "runs": sum(len(entry.records) for entry in entries),
        "columns": kept,
        "empty": empty,
        "missing": _reasons(entries, kept),
        "column_groups": _column_groups(kept),
        "hidden": columns.HIDDEN,
        "filters": _filters(entries, kept),
        "spans": [_span(group) for group in groups],
        "interval": _interval,
        "sections": sections,
        "software": letters,
        "unpaired": [entry.title for entry in entries if entry.difference and entry.difference.test == "z"],
        "scorings": sorted({entry.run.separation.features_in_words() for entry in entries}),
        "rankings": rankings,
        "left_out": [(shown(each.run, 200), shown(each.message, 600)) for each in left_out[:_MOST_LEFT_OUT]],
        "more_left_out": max(0, len(left_out) - _MOST_LEFT_OUT),
        "limits": {"groups": MOST_GROUPS, "curves": curves.MOST_CURVES, "matrices": curves.MOST_MATRICES}
        | {"classes": curves.MOST_CLASSES},
    }
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(_file("report.html.j2")).render(content)


def _file(name: str) -> str:
    return resources.files("zoo_cards").joinpath("templates", name).read_text(encoding="utf-8")


def _title(groups: Sequence[Group], rankings: Sequence[RankTable]) -> str:
    datasets = list(dict.fromkeys(shown(group.images.dataset) for group in groups))
    if not datasets:
        return f"Rankings of backbones on {rankings[0].title}"
    return f"Backbones on {datasets[0]}" if len(datasets) == 1 else f"Backbones on {len(datasets)} datasets"


def _reasons(entries: Sequence[Entry], kept: Sequence[columns.Column]) -> dict[str, list[str]]:
    """Return each reason for missing values with the headings of the columns that it applies to."""
    found: dict[str, list[str]] = {}
    for column in kept:
        if column.missing and any(column.value(entry) is None for entry in entries):
            found.setdefault(column.missing, []).append(column.label)
    return found


def _column_groups(kept: Sequence[columns.Column]) -> list[tuple[str, str, int, int]]:
    """Return each column group's key, heading, first column number and last column number; numbers count from 1."""
    places: dict[str, list[int]] = {}
    for place, column in enumerate(kept, 1):
        places.setdefault(column.group, []).append(place)
    return [(key, columns.GROUPS[key], found[0], found[-1]) for key, found in places.items()]


def _filters(entries: Sequence[Entry], kept: Sequence[columns.Column]) -> list[tuple[str, str, list[str]]]:
    """Return key, heading and values of each filter that has at least two values."""
    found = []
    for column in kept:
        if column.key in ("family", "license", "recipe"):
            values = sorted({str(value) for entry in entries if (value := column.value(entry)) is not None})
            found.append((column.key, column.label, values))
    seeds = sorted({seed for entry in entries for seed in entry.row.seeds})
    found.append(("seed", "Seed", [str(seed) for seed in seeds]))
    return [(key, label, values) for key, label, values in found if 1 < len(values) <= 200]


def _span(group: Group) -> tuple[float, float]:
    """Return the ends of the axis for a group's accuracies, with room for two standard errors on both sides."""
    ends = [
        (entry.row.accuracy or 0) + sign * 2 * (entry.row.accuracy_error or 0)
        for entry in group.entries
        if entry.row.accuracy is not None
        for sign in (-1, 1)
    ]
    low, high = max(0.0, min(ends, default=0.0)), min(1.0, max(ends, default=1.0))
    return (low, high) if high > low else (low - 0.01, high + 0.01)


def _interval(entry: Entry, span: tuple[float, float]) -> tuple[str, str]:
    """Return the gaps to the left and right of a row's accuracy ± two standard errors, as fractions of the axis."""
    accuracy, twice = entry.row.accuracy or 0, 2 * (entry.row.accuracy_error or 0)
    low, high = max(0.0, accuracy - twice), min(1.0, accuracy + twice)
    return f"{(low - span[0]) / (span[1] - span[0]):.3f}", f"{(span[1] - high) / (span[1] - span[0]):.3f}"


def _section(group: Group, confusions: Mapping[int, dict[str, Any]]) -> dict[str, Any]:
    known = [entry for entry in group.entries if entry.number in confusions]
    return {
        "group": group,
        "charts": charts(group),
        "curves": curves.layer_curves(group),
        "with_curves": sum(entry.record.results.layer_curve is not None for entry in group.entries),
        "confused": known,
        "confusion": confusions[known[0].number] if known else None,
        "classes": _classes(group),
    }


def _classes(group: Group) -> list[str]:
    return [shown(name, 40) for name in group.entries[0].record.dataset.classes[: curves.MOST_CLASSES]]


def _data(
    groups: Sequence[Group],
    kept: Sequence[columns.Column],
    rankings: Sequence[RankTable],
    confusions: Mapping[int, dict[str, Any]],
) -> Markup:
    """Return the JSON that the script of the page reads, without characters that mean something in HTML."""
    content = {
        "columns": [[each.key, each.label, each.numeric, each.missing] for each in kept],
        "rows": [[_rounded(each.value(entry)) for each in kept] for group in groups for entry in group.entries],
        "seeds": [entry.row.seeds for group in groups for entry in group.entries],
        "rankings": [table.values for table in rankings],
        "classes": [_classes(group) for group in groups[:MOST_GROUPS]],
        "confusions": list(confusions.values()),
    }
    text = json.dumps(content, ensure_ascii=True, separators=(",", ":")).translate(_ESCAPED)
    return Markup(text)  # noqa: S704 - its characters that mean something in HTML are escaped


def _rounded(value: columns.Value) -> columns.Value:
    return float(f"{value:.6g}") if isinstance(value, float) else value
