"""Plot a confusion matrix: each row is a true class, and each column is a predicted class.

The darkness of a cell is the square root of its share of the row, because rare mistakes would be invisible otherwise.
If there is room, the plot has class names and counts; otherwise it has class numbers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from zoo_harness.evaluation.confusion import Confusion
from zoo_harness.reports.plots.names import columns, font_families, shown_classes, shown_name
from zoo_harness.reports.plots.run import DOTS_PER_INCH, INK, PLAIN, Finish, save_figure

_MOST_NUMBERS, _MOST_NAMES = 25, 60
_WIDEST = 9.0  # the largest width of the matrix in inches


def plot_confusion(confusion: Confusion, path: Path, about: str = "", finish: Finish = PLAIN) -> None:
    """Draw a confusion matrix as a PNG. The title contains the text in ``about`` and the number of images."""
    counts = np.array(confusion.counts)
    classes = len(counts)
    side = min(_WIDEST, max(2.4, classes * (0.42 if classes <= _MOST_NUMBERS else 0.17)))
    figure = Figure(figsize=(side + 2.2, side + 1.6), dpi=DOTS_PER_INCH, layout="constrained")
    axes = figure.add_subplot()
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    colours = matplotlib.colormaps["Blues"]
    norm = PowerNorm(0.5, 0, 1)
    picture = axes.imshow(shares, cmap=colours, norm=norm, interpolation="nearest")
    bar = figure.colorbar(picture, ax=axes, fraction=0.04, pad=0.02, ticks=[0, 0.01, 0.1, 0.25, 0.5, 1])
    bar.ax.set_yticklabels(["0", "1 %", "10 %", "25 %", "50 %", "100 %"], fontsize=7)
    bar.set_label("share of the true class", fontsize=8, color=INK)
    bar.outline.set_visible(False)
    _name_classes(axes, confusion.classes, side / classes)
    if classes <= _MOST_NUMBERS:
        _write_counts(axes, counts, shares, colours, norm)
    title = about or f"{shown_name(confusion.split, '?')} split"
    about = f"{title}\n{counts.sum():,} images"
    axes.set_title(about, fontsize=9, color=INK, parse_math=False, family=font_families(about))
    save_figure(figure, path, finish, tight=True)


def _name_classes(axes: Axes, classes: tuple[str, ...], room: float) -> None:
    """Label both axes with class names, or with class numbers if the names do not fit; ``room`` is inches per cell."""
    numbers = "" if len(classes) <= _MOST_NAMES else ", by its number from 0"
    axes.set_xlabel(f"predicted class{numbers}", color=INK, fontsize=9)
    axes.set_ylabel(f"true class{numbers}", color=INK, fontsize=9)
    axes.tick_params(color="#888888", labelcolor=INK, labelsize=8)
    axes.spines[:].set_color("#888888")
    if numbers:
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(10, steps=[1, 2, 5, 10], integer=True))
        return
    names = shown_classes(enumerate(classes))
    upright = max(map(columns, names)) * 0.08 > room
    # A name may contain dollar signs, which matplotlib would read as a formula.
    style: dict[str, Any] = {"family": font_families(names), "parse_math": False}
    style["fontsize"] = 8 if len(classes) <= _MOST_NUMBERS else 6
    axes.set_xticks(range(len(names)), names, rotation=90 if upright else 0, **style)
    axes.set_yticks(range(len(names)), names, **style)


def _write_counts(
    axes: Axes, counts: NDArray[np.int64], shares: NDArray[np.float64], colours: Colormap, norm: PowerNorm
) -> None:
    """Write the number of images into each cell that is not empty, in white on dark cells."""
    size = 8 if counts.max() < 10_000 else 6
    for row, column in np.argwhere(counts).tolist():
        red, green, blue, _opaque = colours(norm(shares[row, column]))
        dark = 0.2126 * red + 0.7152 * green + 0.0722 * blue < 0.5
        style: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": size, "color": "white" if dark else INK}
        axes.text(column, row, str(counts[row, column]), **style)
