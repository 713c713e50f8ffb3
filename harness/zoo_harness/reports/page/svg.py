"""Draw charts as inline SVG: scales with round ticks, axes and labels that do not overlap; CSS has the colours."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

WIDTH, HEIGHT = 400, 290
LEFT, RIGHT, TOP, BOTTOM = 40, 12, 26, 38  # margins around the plot, in the units of the picture
_CHARACTER = 5.9  # width of an average character of a label
_LINE = 12


@dataclass(frozen=True)
class Scale:
    """A function from values to coordinates on an axis; ``ticks`` has pairs of a value and its text."""

    low: float
    high: float
    start: float
    end: float
    ticks: tuple[tuple[float, str], ...]
    logarithmic: bool = False

    def __call__(self, value: float) -> float:
        """Return the coordinate of a value, rounded to a tenth."""
        low, high, value = (math.log10(each) if self.logarithmic else each for each in (self.low, self.high, value))
        return round(self.start + (value - low) / (high - low) * (self.end - self.start), 1)


def linear(values: Iterable[float], start: float, end: float, *, most: int = 6, unit: str = "") -> Scale:
    """Return a scale from a round number below the values to one above them.

    >>> [text for _value, text in linear([0.62, 0.97], 0, 100).ticks]
    ['0.6', '0.7', '0.8', '0.9', '1']
    """
    found = [*values]
    low, high = min(found), max(found)
    if high - low <= 1e-6 * abs(high):  # ticks that are so close would have equal texts
        low, high = low - (0.01 * abs(low) or 1), high + (0.01 * abs(high) or 1)
    step = round_step(low, high, most)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    ticks = tuple((place * step, f"{place * step:.10g}{unit}") for place in range(first, last + 1))
    return Scale(first * step, last * step, start, end, ticks)


def logarithmic(values: Iterable[float], start: float, end: float, *, unit: str = "") -> Scale:
    """Return a logarithmic scale of positive values with ticks at 1, 2 and 5, or at powers of ten.

    >>> [text for _value, text in logarithmic([12_810, 3_400_000], 0, 100).ticks]
    ['10k', '100k', '1M', '10M']
    """
    found = [*values]
    low, high = min(found), max(found)
    exponents = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 2)
    for factors in ((1,), (1, 2, 5), (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8, 9)):
        marks = [factor * 10.0**exponent for exponent in exponents for factor in factors]
        below = max(mark for mark in marks if mark <= low * 0.97)
        above = min(mark for mark in marks if mark >= high * 1.03)
        ticks = [mark for mark in marks if below <= mark <= above]
        if len(ticks) >= 4:
            break
    while len(ticks) > 6:
        ticks = ticks[::2]
    return Scale(below, above, start, end, tuple((mark, f"{compact(mark)}{unit}") for mark in ticks), True)


def round_step(low: float, high: float, most: int) -> float:
    """Return the smallest of 1, 2, 2.5 and 5 times a power of ten that needs at most ``most`` ticks.

    >>> round_step(0, 1, 6), round_step(81, 97, 6)
    (0.2, 5.0)
    """
    power = 10.0 ** math.floor(math.log10((high - low) / most))
    for factor in (1, 2, 2.5, 5, 10, 20):
        step = factor * power
        if math.ceil(high / step - 1e-9) - math.floor(low / step + 1e-9) < most:
            return step
    return 50 * power


def compact(value: float) -> str:
    """Format a number with three digits and a letter such as k for thousands.

    >>> compact(12_810), compact(3_400_000), compact(0.25)
    ('12.8k', '3.4M', '0.25')
    """
    for letter, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= size * 0.9995:
            return f"{value / size:.3g}{letter}" if value / size < 999.5 else f"{value / size:.0f}{letter}"
    return f"{value:.3g}"


def axes(x: Scale, y: Scale, x_label: str, y_label: str, bottom: float = HEIGHT - BOTTOM) -> Markup:
    """Return grid lines, ticks and the labels of both axes; the label of the y axis stands above the axis."""
    parts = [Markup('<g class="axes">')]
    row = Markup('<line x1="{0}" x2="{1}" y1="{2}" y2="{2}"/><text x="{3}" y="{4}" class="e">{5}</text>')
    parts += [row.format(x.start, x.end, y(value), x.start - 6, y(value) + 4, text) for value, text in y.ticks]
    mark = Markup('<line class="tick" x1="{0}" x2="{0}" y1="{1}" y2="{2}"/><text x="{0}" y="{3}" class="m">{4}</text>')
    parts += [mark.format(x(value), bottom, bottom + 4, bottom + 16, text) for value, text in x.ticks]
    parts.append(Markup('<text class="name" x="0" y="12">{}</text>').format(y_label))
    parts.append(Markup('<text class="name e" x="{}" y="{}">{}</text></g>').format(x.end, bottom + 33, x_label))
    return Markup("").join(parts)


def picture(body: Markup, label: str, width: int = WIDTH, height: int = HEIGHT) -> Markup:
    """Return the SVG element around ``body``; ``label`` is the text that screen readers read."""
    return Markup('<svg viewBox="0 0 {} {}" role="group" aria-label="{}">{}</svg>').format(width, height, label, body)


def labels(points: Sequence[tuple[float, float, str]], obstacles: Iterable[tuple[float, float]]) -> Markup:
    """Return a label beside each point; omit a label if there is no free space beside its point."""
    taken = [(x - 4, y - 4, x + 4, y + 4) for x, y in obstacles]
    parts = []
    for x, y, text in points:
        width = _CHARACTER * len(text)
        sides = ((-6, -7, "e"), (6, 15, "s"), (6, -7, "s"), (-6, 15, "e"), (0, -9, "m"), (8, 4, "s"), (-8, 4, "e"))
        for right, down, anchor in sides:
            begin = x + right - {"s": 0.0, "m": width / 2, "e": width}[anchor]
            box = (begin, y + down - _LINE + 3, begin + width, y + down + 2)
            inside = box[0] >= LEFT and box[2] <= WIDTH and box[1] >= TOP - 8 and box[3] <= HEIGHT - BOTTOM
            if inside and not any(_overlap(box, other) for other in taken):
                taken.append(box)
                label = Markup('<text class="label {}" x="{:.1f}" y="{:.1f}">{}</text>')
                parts.append(label.format(anchor, x + right, y + down, text))
                break
    return Markup("").join(parts)


def path(points: Iterable[tuple[float, float]]) -> str:
    """Return the attribute ``d`` of an SVG path through the points.

    >>> path([(0, 1.5), (2.0, 3)])
    'M0 1.5L2 3'
    """
    return "M" + "L".join(f"{x:g} {y:g}" for x, y in points)


def _overlap(one: tuple[float, float, float, float], other: tuple[float, float, float, float]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
