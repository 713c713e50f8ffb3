"""Draw the charts of a report: accuracy against cost, SI against accuracy, and published accuracy against ours."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup

from zoo_harness.records.comparison import OtherSetting, PublishedFigure
from zoo_harness.reports.page import svg
from zoo_harness.reports.page.entries import Entry, Group, shown
from zoo_harness.reports.page.svg import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Scale

_WIDE = 30  # an axis is logarithmic if the largest value is this many times the smallest
_MOST_ERRORS = 60  # with more points than this, a chart has no error bars
_FEWEST = 5  # a correlation needs at least this many points
_MOST_LABELS = 12  # with more points than this, only the Pareto front has labels
_LISTED = 20
_X, _Y = (LEFT, WIDTH - RIGHT), (HEIGHT - BOTTOM, TOP)
_UNITS = ((2 * 3600, 3600, "h"), (180, 60, "min"), (0, 1, "s"))


@dataclass(frozen=True)
class Figure:
    """A chart with its title and caption; if ``picture`` is ``None``, ``caption`` says why there is nothing to draw."""

    title: str
    picture: Markup | None
    caption: str
    notes: tuple[str, ...] = ()


Point = tuple[Entry, float, float]


def charts(group: Group) -> list[Figure]:
    """Return the charts of a group of rows with the same images; a chart shows only rows that have an accuracy."""
    entries = [entry for entry in group.entries if entry.row.accuracy is not None]
    parameters = [(entry, float(entry.run.trained_parameters), 100 * (entry.row.accuracy or 0)) for entry in entries]
    times = [(entry, entry.row.total_seconds or 0.0, 100 * (entry.row.accuracy or 0)) for entry in entries]
    divisor, unit = _unit([seconds for _entry, seconds, _accuracy in times])
    timed = [(entry, seconds / divisor, accuracy) for entry, seconds, accuracy in times]
    machines = len({(each.host.processor, each.host.accelerator) for entry in entries for each in entry.records})
    where = f" The runs used {machines} kinds of machines." if machines > 1 else ""
    if len(entries) < 2:
        return [Figure("Charts", None, "The charts of cost and SI need two rows."), _published_chart(entries)]
    return [
        _front_chart("Accuracy and trained parameters", parameters, "trained parameters", "fewer trained parameters"),
        _front_chart("Accuracy and time", timed, f"total time, {unit}", "less time", where, always_log=False),
        _separation_chart(entries),
        _published_chart(entries),
    ]


def front(points: Sequence[Point]) -> list[Point]:
    """Return the Pareto front: the points for which no other point has a smaller x and a larger y, sorted by x."""
    found: list[Point] = []
    for point in sorted(points, key=lambda each: (each[1], -each[2])):
        if not found or point[2] > found[-1][2]:
            found.append(point)
    return found


def _unit(seconds: Sequence[float]) -> tuple[float, str]:
    most = max(seconds, default=0)
    return next((divisor, unit) for least, divisor, unit in _UNITS if most >= least)


def _front_chart(
    title: str, points: Sequence[Point], x_label: str, less: str, where: str = "", *, always_log: bool = True
) -> Figure:
    points = [point for point in points if point[1] > 0]
    if len(points) < 2:
        return Figure(title, None, "This chart needs two rows with both values.")
    values = [x for _entry, x, _y in points]
    is_log = always_log or max(values) > _WIDE * min(values)
    x = svg.logarithmic(values, *_X) if is_log else svg.linear([0, *values], *_X)
    y = svg.linear(_with_errors(points), *_Y)
    best = front(points)
    labelled = [*reversed(best), *(point for point in points if point not in best and len(points) <= _MOST_LABELS)]
    line = [(x(value), y(accuracy)) for _entry, value, accuracy in best]
    steps = [line[0]]
    for before, after in pairwise(line):
        steps += [(after[0], before[1]), after]
    steps.append((_X[1], line[-1][1]))
    body = Markup("").join(
        [
            svg.axes(x, y, f"{x_label}{' (log)' if is_log else ''}", "accuracy, %"),
            Markup('<path class="front" d="{}"/>').format(svg.path(steps)),
            _marks(points, x, y, {entry.number for entry, _x, _y in best}),
            svg.labels(
                [(x(value), y(accuracy), entry.label) for entry, value, accuracy in labelled],
                [(x(value), y(accuracy)) for _entry, value, accuracy in points[:200]],
            ),
        ]
    )
    listed = _listed([f"{entry.label} {accuracy:.2f} %" for entry, _x, accuracy in best])
    caption = f"The line is the Pareto front: no row has {less} and a higher accuracy than {listed}.{where}"
    if sum(entry.is_alike for entry, _x, _y in best) > 1:
        caption += " Differences within tier 1 may be chance."
    return Figure(title, svg.picture(body, f"{title}: {len(points):,} rows"), caption)


def _with_errors(points: Iterable[Point]) -> list[float]:
    found = [*points]
    if len(found) > _MOST_ERRORS:
        return [y for _entry, _x, y in found]
    return [
        min(100.0, max(0.0, y + sign * 100 * (entry.row.accuracy_error or 0)))
        for entry, _x, y in found
        for sign in (-1, 1)
    ]


def _marks(points: Sequence[Point], x: Scale, y: Scale, emphasized: Iterable[int] = ()) -> Markup:
    """Return a circle for each point, filled if the row has tier 1; up to 60 points also have error bars."""
    parts, focusable = [], {*emphasized}
    for entry, value, accuracy in reversed(points):
        left, error = x(value), 100 * (entry.row.accuracy_error or 0)
        if len(points) <= _MOST_ERRORS and error:
            bar = Markup('<path class="bar" d="M{0} {1}V{2}"/>')
            parts.append(bar.format(left, y(max(0, accuracy - error)), y(min(100, accuracy + error))))
        kind = "a" if entry.is_alike else "b"
        about = Markup("")
        if entry.number in focusable:
            about = Markup(' tabindex="0" role="img" aria-label="{}"').format(f"{entry.title}: {accuracy:.2f} %")
        circle = Markup('<circle class="{}" data-r="{}" cx="{}" cy="{}" r="{}"{}/>')
        parts.append(
            circle.format(kind, entry.number, left, y(accuracy), 4 + 0.5 * entry.is_alike + bool(about), about)
        )
    return Markup("").join(parts)


def _separation_chart(entries: Sequence[Entry]) -> Figure:
    title = "SI before training and accuracy"
    scored = [entry for entry in entries if entry.row.si_before is not None]
    settings = Counter(_scored_as(entry) for entry in scored)
    if not settings or settings.most_common(1)[0][1] < 2:
        why = "zoo scores no test split before training" if not scored else "fewer than two rows have this SI"
        return Figure(title, None, f"There is no chart of SI before training: {why}.")
    chosen = max(settings, key=lambda each: (settings[each], each))
    points = [
        (each, each.row.si_before or 0, 100 * (each.row.accuracy or 0)) for each in scored if _scored_as(each) == chosen
    ]
    x = svg.linear([value for _entry, value, _y in points], *_X)
    y = svg.linear(_with_errors(points), *_Y)
    places = [(x(value), y(accuracy)) for _entry, value, accuracy in points]
    named = [(*place, entry.label) for place, (entry, _x, _y) in zip(places, points, strict=True)]
    names = svg.labels(named, places) if len(points) <= _MOST_LABELS else ""
    body = svg.axes(x, y, "SI before training", "accuracy, %") + _marks(points, x, y) + names
    caption = correlation([value for _entry, value, _y in points], [value for _entry, _x, value in points])
    if len({entry.run.backbone for entry, _x, _y in points}) < len(points):
        caption += " Rows of the same backbone are not independent."
    if len(points) < len(entries):
        caption += f" The chart omits {len(entries) - len(points)} rows whose SI is missing or has other settings."
    return Figure(title, svg.picture(body, f"{title}: {len(points):,} rows"), caption)


def _scored_as(entry: Entry) -> str:
    return f"{entry.run.separation.metric} {entry.run.separation.normalize}"


def correlation(first: Sequence[float], second: Sequence[float]) -> str:
    """Describe the rank correlation of two lists of values, or say why there is none.

    >>> correlation([1, 2, 3, 4, 5], [1, 2, 3, 5, 4])
    "Kendall's tau is 0.80 (n = 5, p = 0.083)."
    """
    if len(first) < _FEWEST:
        return f"{len(first)} rows are too few for a correlation; zoo needs {_FEWEST}."
    if len({*first}) == 1 or len({*second}) == 1:
        return "There is no correlation, because all values of one axis are equal."
    from scipy.stats import kendalltau  # the import takes a second

    found = kendalltau(first, second)
    p = "p < 0.001" if found.pvalue < 0.001 else f"p = {found.pvalue:.3f}"
    return f"Kendall's tau is {found.statistic:.2f} (n = {len(first)}, {p})."


def _published_chart(entries: Sequence[Entry]) -> Figure:
    title = "Published accuracy and ours"
    points = [
        (entry, figure.accuracy_percent, 100 * (entry.row.accuracy or 0), figure)
        for entry in entries
        for figure in entry.run.published
    ]
    notes = [*_differences(entries)]
    if len(notes) > _LISTED:
        notes = [*notes[:_LISTED], f"The settings of {len(notes) - _LISTED} more pairs differ too."]
    if not points:
        why = "No published accuracy has the backbone, dataset, recipe, split and epochs of a run."
        return Figure(title, None, why, tuple(notes))
    values = [value for _entry, *both, _figure in points for value in both]
    x, y = svg.linear(values, *_X), svg.linear(values, *_Y)
    diagonal = Markup('<path class="diagonal" d="{}"/>').format(
        svg.path([(x(x.low), y(y.low)), (x(x.high), y(y.high))])
    )
    marks = [
        Markup('<circle class="{}" data-r="{}" cx="{}" cy="{}" r="4"/>').format(
            "b" if figure.differences else "a", entry.number, x(published), y(ours)
        )
        for entry, published, ours, figure in points
    ]
    names = svg.labels(
        [(x(published), y(ours), entry.label) for entry, published, ours, _figure in points[:12]],
        [(x(published), y(ours)) for _entry, published, ours, _figure in points],
    )
    body = svg.axes(x, y, "published accuracy, %", "our accuracy, %") + diagonal + Markup("").join(marks) + names
    caption = (
        "On the diagonal, both accuracies are equal. A filled point has the settings of the publication. "
        "The settings of a hollow point differ from those of the publication, as listed."
    )
    return Figure(title, svg.picture(body, f"{title}: {len(points):,} pairs"), caption, tuple(notes))


def _differences(entries: Sequence[Entry]) -> Iterable[str]:
    """Yield a sentence for each published accuracy whose training setting differs from that of the run."""
    for entry in entries:
        figures: list[PublishedFigure | OtherSetting] = [*entry.run.published, *entry.run.published_otherwise]
        for figure in figures:
            if figure.differences:
                source, clauses = shown(figure.source, 120), shown("; ".join(figure.differences), 600)
                yield f"{entry.title}, published {figure.accuracy_percent:.2f} % ({source}): {clauses}."


def _listed(names: Sequence[str]) -> str:
    most = 6
    texts = [*names[:most], f"{len(names) - most} more"] if len(names) > most else [*names]
    return " and ".join([", ".join(texts[:-1]), texts[-1]] if len(texts) > 1 else texts)
