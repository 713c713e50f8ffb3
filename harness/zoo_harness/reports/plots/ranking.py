"""Plot a ranking of backbones: the main score with its error, a second score, and the accuracies after training."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from zoo_harness.ranking.scores import RankDefinition
from zoo_harness.records.rank import RankedBackbone, RankRecord
from zoo_harness.reports.plots.names import font_families, shown_name
from zoo_harness.reports.plots.run import DOTS_PER_INCH, INK, PLAIN, QUIET, Finish, save_figure

_TIER_1, _OTHERS, _CONTROL = "#0072B2", "#8C8C8C", "#D55E00"  # two colours of Okabe and Ito, and grey
_MOST_ROWS, _MOST_LABELS, _LONGEST_LABEL = 40, 12, 34
Value = Callable[[RankedBackbone], float | None]


def plot_ranking(record: RankRecord, scores: Sequence[RankDefinition], path: Path, finish: Finish = PLAIN) -> None:
    """Draw a ranking as a PNG of up to three panels.

    The first panel shows the score of each backbone. The second panel compares this score with a second score, and the
    third panel compares the first score with accuracies. Backbones of tier 1 are blue, controls are vermilion, and all
    other backbones are grey. If there are more than 40 backbones, the first panel shows the 40 best.
    """
    rows = record.backbones[:_MOST_ROWS]
    accuracies = {each.name: each.accuracy for each in record.accuracies}
    first = next(score for score in scores if score.key == record.sort)
    second = next((score for score in scores if score.key != record.sort), None)
    panels = 1 + (second is not None) + bool(accuracies)
    height = max(3.4, 0.28 * len(rows) + 1.4)
    figure = Figure(figsize=(5.6 + 3.8 * (panels - 1), height), dpi=DOTS_PER_INCH, layout="constrained")
    axes = figure.subplots(1, panels, squeeze=False, width_ratios=[1.4, *[1] * (panels - 1)])[0]
    _dots(axes[0], rows, first)
    others = iter(axes[1:])
    if second is not None:
        _scatter(next(others), record.backbones, _value_of(first), first.heading, _value_of(second), second.heading)
    if accuracies:
        _scatter(
            next(others),
            [row for row in record.backbones if row.name in accuracies],
            _value_of(first),
            first.heading,
            lambda row: 100 * accuracies[row.name],
            "accuracy after training, %",
        )
    about = (
        f"{shown_name(record.title, 'dataset')}: {record.images_seen:,} training images, {len(record.classes)} classes"
    )
    left_out = len(record.backbones) - len(rows)
    more = f"; the best {len(rows)} of {len(record.backbones)}" if left_out else ""
    figure.suptitle(about + more, fontsize=9, color=INK, parse_math=False, family=font_families(about))
    save_figure(figure, path, finish)


def _dots(axes: Axes, rows: Sequence[RankedBackbone], score: RankDefinition) -> None:
    values = [row.scores[score.key].value or 0.0 for row in rows]
    errors = [
        math.sqrt(max(0.0, value * (1 - value)) / max(1, row.images)) for value, row in zip(values, rows, strict=True)
    ]
    for place, (row, value, error) in enumerate(zip(rows, values, errors, strict=True)):
        colour, hollow = _colour(row), row.dropped is not None
        axes.errorbar(
            value,
            place,
            xerr=error,
            color=colour,
            marker="o",
            markersize=5,
            linewidth=1,
            mfc="white" if hollow else colour,
        )
    axes.set_yticks(range(len(rows)), [_label(row) for row in rows], fontsize=8)
    for text, row in zip(axes.get_yticklabels(), rows, strict=True):
        text.set_color(_colour(row))
        text.set_parse_math(False)
    axes.invert_yaxis()
    axes.set_xlabel(f"{score.heading}, ± one standard error (blue: tier 1; hollow: dropped)", fontsize=8, color=INK)
    axes.grid(axis="x", color=QUIET, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def _scatter(axes: Axes, rows: Sequence[RankedBackbone], x: Value, x_name: str, y: Value, y_name: str) -> None:
    points = [(row, x(row), y(row)) for row in rows if row.dropped is None]
    shown = [(row, first, second) for row, first, second in points if first is not None and second is not None]
    for row, first, second in shown:
        axes.plot(first, second, "o", markersize=5, color=_colour(row))
    for row, first, second in shown[:_MOST_LABELS]:
        offset, side = ((4, 4), "left") if first <= sum(axes.get_xlim()) / 2 else ((-4, 4), "right")
        axes.annotate(
            _label(row),
            (first, second),
            offset,
            textcoords="offset points",
            fontsize=6,
            ha=side,
            color=INK,
            parse_math=False,
        )
    axes.set_xlabel(x_name, fontsize=8, color=INK)
    axes.set_ylabel(y_name, fontsize=8, color=INK)
    axes.grid(color=QUIET, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def _value_of(score: RankDefinition) -> Value:
    return lambda row: row.scores[score.key].value


def _colour(row: RankedBackbone) -> str:
    if row.control:
        return _CONTROL
    return _TIER_1 if row.tier == 1 else _OTHERS


def _label(row: RankedBackbone) -> str:
    name = row.name
    return name if len(name) <= _LONGEST_LABEL else name[: _LONGEST_LABEL - 1] + "\u2026"
