"""Plot the Separation Index of each layer, from the pixels to the input of the classifier."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from zoo_harness.evaluation.layer_scores import ScoredLayer
from zoo_harness.records.run import LayerCurveRecord, LayerScores
from zoo_harness.reports.plots.names import font_families, shown_name
from zoo_harness.reports.plots.run import DOTS_PER_INCH, INK, QUIET, save_figure


def plot_run_curve(curve: LayerCurveRecord, backbone: str, path: Path) -> None:
    """Write the layer curve of a run as a PNG."""
    found = curve.layers[-1].separation
    scaled = ", z-scored" if found.normalize == "zscore" else ""
    about = f"{found.si.n:,} images, split {shown_name(curve.split, '?')}; "
    about += f"layers pooled, {found.metric} distance{scaled}"
    plot_layers([(f"{backbone}, after training", curve.layers)], about, path)


Layers = Sequence[ScoredLayer] | Sequence[LayerScores]
Curve = tuple[str, Layers]

# Of Okabe and Ito: distinct for every kind of colour vision.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = "osD^vP"
_MOST_NAMES = 30


def plot_layers(curves: Sequence[Curve], about: str, path: Path) -> None:
    """Write one line per curve with its bootstrap errors; x is the layer, or its depth if the curves' layers differ.

    ``about`` is the title: the data and the method.
    """
    names = [layer.path for layer in curves[0][1]]
    same = all([layer.path for layer in layers] == names for _title, layers in curves)
    width = min(16.0, max(6.4, 0.26 * len(names))) if same else 7.2
    figure = Figure(figsize=(width, 4.6), dpi=DOTS_PER_INCH, layout="constrained")
    axes = figure.add_subplot()
    for place, (title, layers) in enumerate(curves):
        _draw(axes, place, title, layers, by_name=same)
    _prepare(axes, names, by_name=same)
    axes.set_title(about, fontsize=8, color=INK, parse_math=False, family=font_families(about))
    font = {"family": font_families(title for title, _layers in curves)}
    figure.legend(loc="outside upper center", ncols=min(2, len(curves)), frameon=False, prop=font)
    save_figure(figure, path)


def _draw(axes: Axes, place: int, title: str, layers: Layers, *, by_name: bool) -> None:
    last = max(1, len(layers) - 1)
    x = [float(step) if by_name else step / last for step in range(len(layers))]
    scores = [layer.separation.si for layer in layers]
    axes.errorbar(
        x,
        [score.value for score in scores],
        yerr=[score.bootstrap_error for score in scores],
        color=_COLOURS[place % len(_COLOURS)],
        marker=_MARKERS[place % len(_MARKERS)],
        markersize=4,
        linewidth=1.4,
        elinewidth=0.8,
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
