"""Plot the Separation Index of each layer of a network, from the pixels to the input of the classifier."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from zoo_harness.evaluation.layer_scores import ScoredLayer
from zoo_harness.records.run import LayerCurveRecord, LayerScores
from zoo_harness.reports.plots.names import font_families
from zoo_harness.reports.plots.run import DOTS_PER_INCH, INK, PLAIN, QUIET, Finish, save_figure


def plot_run_curve(curve: LayerCurveRecord, title: str, path: Path, finish: Finish = PLAIN) -> None:
    """Draw the layer curve of a run as a PNG; ``title`` names the backbone, the dataset and the split."""
    found = curve.layers[-1].separation
    scaled = ", z-scored" if found.normalize == "zscore" else ""
    about = f"{title}\n{found.si.n:,} images; layers pooled, {found.metric} distance{scaled}"
    plot_layers([("after training", curve.layers)], about, path, finish)


Layers = Sequence[ScoredLayer] | Sequence[LayerScores]
Curve = tuple[str, Layers]

# The colours of Okabe and Ito are distinct for every kind of colour vision.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = "osD^vP"
_DASHES = ("-", (0, (5, 2.5)), (0, (1.2, 1.6)), (0, (6, 2, 1.2, 2)))
_WIDEST, _EQUAL = 5, 0.005  # the number of line widths; the largest SI difference that a line's width hides
_MOST_NAMES = 30


def plot_layers(curves: Sequence[Curve], about: str, path: Path, finish: Finish = PLAIN) -> None:
    """Draw one line per curve with bootstrap error bars, and write the plot as a PNG.

    The x axis shows the layer names, or the relative depth if the curves have different layers. The title is the text
    in ``about``, which states the data and the method. Each curve has its own dash and marker. If two curves have equal
    values, the curve underneath is drawn wider, so that both are visible.
    """
    names = [layer.path for layer in curves[0][1]]
    same = all([layer.path for layer in layers] == names for _title, layers in curves)
    width = min(16.0, max(6.4, 0.26 * len(names))) if same else 7.2
    figure = Figure(figsize=(width, 4.6), dpi=DOTS_PER_INCH, layout="constrained")
    axes = figure.add_subplot()
    for place, (title, layers) in enumerate(curves):
        _draw(axes, place, _covering(curves[place:]), title, layers, by_name=same)
    _prepare(axes, names, by_name=same)
    axes.set_title(about, fontsize=8, color=INK, parse_math=False, family=font_families(about))
    font = {"family": font_families(title for title, _layers in curves)}
    figure.legend(loc="outside upper center", ncols=min(2, len(curves)), frameon=False, prop=font)
    save_figure(figure, path, finish)


def _covering(curves: Sequence[Curve]) -> int:
    """Return how many later curves hide part of the first curve, because they equal it in two neighbouring layers."""
    first, *later = [[layer.separation.si.value for layer in layers] for _title, layers in curves]
    count = 0
    for other in later:
        equal = [abs(one - two) < _EQUAL for one, two in zip(first, other, strict=False)]
        count += len(first) == len(other) and (any(one and two for one, two in pairwise(equal)) or equal == [True])
    return count


def _draw(axes: Axes, place: int, covering: int, title: str, layers: Layers, *, by_name: bool) -> None:
    last = max(1, len(layers) - 1)
    x = [float(step) if by_name else step / last for step in range(len(layers))]
    scores = [layer.separation.si for layer in layers]
    axes.errorbar(
        x,
        [score.value for score in scores],
        yerr=[score.bootstrap_error for score in scores],
        color=_COLOURS[place % len(_COLOURS)],
        marker=_MARKERS[place % len(_MARKERS)],
        markersize=4 + 2.2 * min(covering, _WIDEST),
        linewidth=1.4 + 1.6 * min(covering, _WIDEST),
        linestyle=_DASHES[place % len(_DASHES)],
        elinewidth=0.8,
        zorder=2 + place,
        label=title,
    )


def _prepare(axes: Axes, names: Sequence[str], *, by_name: bool) -> None:
    axes.set_ylim(-0.02, 1.02)
    axes.set_ylabel("Separation Index, ± one standard error", color=INK)
    axes.grid(axis="y", color=QUIET, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    if not by_name:
        axes.set_xlabel("depth: 0 the pixels, 1 the input of the classifier", color=INK)
        return
    every = -(-len(names) // _MOST_NAMES)
    axes.set_xticks(range(0, len(names), every), names[::every], rotation=60, ha="right", fontsize=8)
