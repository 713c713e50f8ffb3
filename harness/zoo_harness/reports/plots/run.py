"""Plot the loss and accuracy of each epoch, the learning rate, and a grid of labelled images.

Each figure has its own canvas. pyplot is not used, because pyplot keeps every figure in memory until the process ends.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.ticker import MaxNLocator, NullLocator
from numpy.typing import ArrayLike, NDArray

from zoo.backbone import Training
from zoo_harness.records.run import EpochRecord, RunRecord
from zoo_harness.reports.plots.names import font_families, shown_classes, shown_name
from zoo_harness.training.optimizer import learning_rate
from zoo_harness.util.atomic_files import replacing

DOTS_PER_INCH = 150
INK, QUIET, PALE = "#222222", "#d9d9d9", "#666666"

# Okabe and Ito's blue and vermilion are distinct for every kind of colour vision, and in a grey print.
_TRAIN, _EVALUATION = "#0072B2", "#D55E00"
_MOST_STEPS = 4000
_MOST_CLASSES, _IMAGES_OF_A_CLASS = 10, 10
_TILE, _GAP = 1.0, 0.08  # the side of the square for one image, and the gap between image and square
_TILE_INCHES = 0.58
_HEADING, _FOOTER = 0.5, 0.3  # the heights of the title above and the small print below the images, in units of _TILE
_LONGEST_TITLE, _LONGEST_PART = 84, 30
_SMALL_PRINT = 6  # points


class Finish(NamedTuple):
    """The small print below a plot, and whether the plot is also written as SVG."""

    small_print: str = ""
    svg: bool = False


PLAIN = Finish()


def title(record: RunRecord, split: str) -> str:
    """Return the title of a run's plot, which names the backbone, the dataset and the split."""
    backbone = shown_name(record.backbone.name, "backbone", _LONGEST_PART)
    return f"{backbone} on {shown_name(record.dataset.title, 'dataset', _LONGEST_PART)}, {shown_name(split, '?')} split"


def small_print(record: RunRecord) -> str:
    """Return the small print of a run's plots: the recipe, the number of epochs, the seed and the start date."""
    settings = record.settings
    epochs = f"{settings.training.epochs:,} epoch{'' if settings.training.epochs == 1 else 's'}"
    return f"recipe {shown_name(settings.recipe, '?')}, {epochs}, seed {settings.seed}; {record.started[:10]}"


def plot_history(
    history: Sequence[EpochRecord], directory: Path, about: str = "", finish: Finish = PLAIN
) -> tuple[Path, ...]:
    """Write ``loss.png`` and ``accuracy.png``, titled by the text in ``about``; write nothing if no epoch has ended."""
    if not history:
        return ()
    epochs = [line.epoch for line in history]
    loss, accuracy = directory / "loss.png", directory / "accuracy.png"
    losses = [line.train_loss for line in history], [line.evaluation_loss for line in history]
    titles = about, shown_name(history[-1].evaluation_split or "evaluation", "evaluation")
    _plot_curves(loss, "Loss per image", epochs, *losses, "{:.4g}", min, *titles, finish)
    accuracies = [100 * line.train_accuracy for line in history], [100 * line.evaluation_accuracy for line in history]
    _plot_curves(accuracy, "Accuracy (%)", epochs, *accuracies, "{:.2f} %", max, *titles, finish)
    return loss, accuracy


def plot_learning_rate(
    training: Training, epochs: int, steps_per_epoch: int, directory: Path, about: str = "", finish: Finish = PLAIN
) -> tuple[Path, ...]:
    """Write ``learning_rate.png`` for the epochs that have ended; write nothing if the learning rate is constant."""
    steps = epochs * steps_per_epoch
    if not steps or (training.schedule == "constant" and not training.warmup_epochs):
        return ()
    shown = np.unique(np.linspace(0, steps - 1, min(steps, _MOST_STEPS)).round()).astype(int).tolist()
    figure = Figure(figsize=(6.4, 2.4), dpi=DOTS_PER_INCH, layout="constrained")
    axes = figure.add_subplot()
    # Epoch n ends at x = n, because the loss and accuracy of epoch n, measured at its end, are drawn at x = n, too.
    rates = [learning_rate(training, step, steps_per_epoch) for step in shown]
    axes.plot([(step + 1) / steps_per_epoch for step in shown], rates, color=INK, linewidth=1.4)
    axes.yaxis.set_major_formatter("{x:g}")
    if training.schedule == "multistep" and (levels := _levels(training, rates, epochs)):
        axes.set_yscale("log")
        # The ticks are set by hand, because matplotlib would format powers of ten and other ticks differently.
        axes.set_yticks(levels, [f"{level:g}" for level in levels])
        axes.yaxis.set_minor_locator(NullLocator())
    _prepare_axes(axes, "Learning rate", list(range(1, epochs + 1)))
    axes.set_xlim(0, epochs)
    _set_title(axes, about)
    path = directory / "learning_rate.png"
    save_figure(figure, path, finish)
    return (path,)


def _levels(training: Training, rates: list[float], epochs: int) -> list[float]:
    """Return the distinct learning rates of a multistep schedule, without those too close together to be labelled.

    The list is empty if the learning rate never changes.

    >>> _levels(Training(schedule="multistep", milestones=(1, 2), decay=0.5, learning_rate=0.5), [0.5, 0.25], 2)
    [0.5, 0.25]
    """
    least, levels = math.log(max(rates) / min(rates)) / 8, [training.learning_rate]
    for jumps in range(1, 1 + sum(milestone < epochs for milestone in training.milestones)):
        level = training.learning_rate * training.decay**jumps
        if abs(math.log(levels[-1] / level)) > least:
            levels.append(level)
    return levels if len(levels) > 1 else []


def plot_samples(
    images: NDArray[np.uint8],
    labels: ArrayLike,
    classes: Sequence[str],
    path: Path,
    *,
    about: str = "",
    finish: Finish = PLAIN,
) -> None:
    """Draw a grid of labelled images: one row of images for each of the first 10 classes that occur.

    ``images`` are uint8 with shape ``(N, H, W)`` (grey) or ``(N, H, W, 3)`` (RGB). The title contains the text in
    ``about`` and the number of classes shown.
    """
    labels = np.asarray(labels)
    present = np.unique(labels)[:_MOST_CLASSES].tolist()
    chosen = {label: np.flatnonzero(labels == label)[:_IMAGES_OF_A_CLASS].tolist() for label in present}
    names = shown_classes((label, classes[label]) for label in chosen)
    shown = f"{len(present):,} of {len(classes):,} classes" if len(present) < len(classes) else ""
    heading = ": ".join(filter(None, (_writable(about), shown)))
    font = FontProperties(family=font_families([*names, heading]), size=9)
    columns = max(map(len, chosen.values()), default=1)
    figure, axes = _sample_canvas(names, font, columns, heading, finish.small_print)
    for row, (name, indices) in enumerate(zip(names, chosen.values(), strict=True)):
        # A name may contain dollar signs, which matplotlib would read as a formula.
        axes.text(-0.15, row + 0.5, name, ha="right", va="center", color=INK, font=font, parse_math=False)
        for column, index in enumerate(indices):
            _draw_tile(axes, images[index], column, row)
    save_figure(figure, path, finish)


def _plot_curves(
    path: Path,
    quantity: str,
    epochs: list[int],
    train: list[float],
    evaluation: list[float],
    label: str,
    best: Callable[[list[float]], float],
    about: str,
    split: str,
    finish: Finish,
) -> None:
    figure = Figure(figsize=(6.4, 3.8), dpi=DOTS_PER_INCH, layout="constrained")
    axes = figure.add_subplot()
    size = 4 if len(epochs) <= 60 else 0
    axes.plot(epochs, train, color=_TRAIN, marker="o", markersize=size, linestyle="--", label="training")
    axes.plot(epochs, evaluation, color=_EVALUATION, marker="s", markersize=size, label=split)
    _prepare_axes(axes, quantity, epochs)
    if evaluation:
        value = best(evaluation)
        epoch = epochs[evaluation.index(value)]
        name = f"best {split}: {label.format(value)}, epoch {epoch}"
        ring: dict[str, Any] = {
            "markersize": 11,
            "markerfacecolor": "none",
            "markeredgecolor": INK,
            "markeredgewidth": 1.3,
        }
        axes.plot([epoch], [value], linestyle="none", marker="o", label=name, **ring)
    _set_title(axes, about)
    figure.legend(loc="outside upper center", ncols=3, frameon=False, prop={"family": font_families([split])})
    save_figure(figure, path, finish)


def _set_title(axes: Axes, about: str) -> None:
    about = _writable(about)
    # A name may contain dollar signs, which matplotlib would read as a formula.
    axes.set_title(about, fontsize=9, color=INK, parse_math=False, family=font_families([about]))


def _writable(about: str) -> str:
    """Put a title on one line and shorten it; return an empty title if no installed font has all its characters."""
    return shown_name(about, "", _LONGEST_TITLE)


def _prepare_axes(axes: Axes, quantity: str, epochs: list[int]) -> None:
    axes.set_xlabel("Epoch", color=INK)
    axes.set_ylabel(quantity, color=INK)
    axes.xaxis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))
    axes.set_xlim(epochs[0] - 0.5, epochs[-1] + 0.5)
    axes.margins(y=0.12)
    # If all values are nearly equal, the axis is widened, so that the plot does not magnify tiny differences.
    low, high = axes.get_ylim()
    room = max(abs(low), abs(high)) / 50 - (high - low) / 2
    if room > 0:
        axes.set_ylim(low - room, high + room)
    axes.grid(axis="y", color=QUIET, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#888888")
    axes.tick_params(color="#888888", labelcolor=INK)


def _sample_canvas(
    names: list[str], font: FontProperties, columns: int, heading: str, below: str
) -> tuple[Figure, Axes]:
    """Return a figure and its axes: a unit square per image, names on the left, a title, and small print below."""
    rows, top = max(len(names), 1), 0.05 + (_HEADING if heading else 0)
    bottom = 0.05 + (_FOOTER if below else 0)
    margin = 0.3 + max((_width_in_inches(name, font) for name in names), default=0.0) / _TILE_INCHES
    small = FontProperties(size=_SMALL_PRINT)
    widths = _width_in_inches(heading, font), _width_in_inches(below, small)
    needed = 0.4 + max(widths) / _TILE_INCHES if heading or below else 0.0
    right = max(columns + 0.1, needed - margin)
    figure = Figure(
        figsize=((margin + right) * _TILE_INCHES, (rows + bottom + top) * _TILE_INCHES),
        dpi=DOTS_PER_INCH,
        facecolor="white",
    )
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set_xlim(-margin, right)
    axes.set_ylim(rows + bottom, -top)  # y grows downwards, as in images
    if heading:
        axes.text(0.2 - margin, -top / 2, heading, va="center", color=INK, font=font, parse_math=False)
    return figure, axes


def _width_in_inches(name: str, font: FontProperties) -> float:
    figure = Figure(dpi=DOTS_PER_INCH)
    FigureCanvasAgg(figure)
    text = figure.text(0, 0, name, font=font, parse_math=False)
    return text.get_window_extent().width / DOTS_PER_INCH


def _draw_tile(axes: Axes, pixels: NDArray[Any], column: int, row: int) -> None:
    height, width = pixels.shape[:2]
    shown = (_TILE - _GAP) / max(height, width)
    x, y = column + 0.5, row + 0.5
    across, down = width * shown / 2, height * shown / 2
    axes.imshow(
        pixels,
        extent=(x - across, x + across, y + down, y - down),
        # Without these limits, matplotlib would stretch the contrast of each grey image.
        cmap="gray",
        vmin=0,
        vmax=255,
        interpolation="nearest" if max(height, width) <= _TILE_INCHES * DOTS_PER_INCH else "antialiased",
        aspect="auto",
    )


def save_figure(figure: Figure, path: Path, finish: Finish = PLAIN, *, tight: bool = False) -> None:
    """Write a figure as a PNG file, and as an SVG file beside it if ``finish.svg`` is true.

    Each file is first written under a temporary name and then renamed. ``tight`` crops the figure to its content. Equal
    data give equal bytes.
    """
    _add_small_print(figure, finish.small_print)
    FigureCanvasAgg(figure)
    # The files omit matplotlib's version, the date and random element names, so that equal data give equal bytes.
    kinds = {"png": {"Software": None}} | ({"svg": {"Date": None, "Creator": None}} if finish.svg else {})
    for kind, metadata in kinds.items():
        with (
            replacing(path.with_suffix(f".{kind}")) as temporary,
            warnings.catch_warnings(),
            matplotlib.rc_context({"svg.hashsalt": "blockzoo"}),
        ):
            warnings.simplefilter("ignore", UserWarning)  # missing characters appear as boxes, so no warning is needed
            figure.savefig(temporary, format=kind, metadata=metadata, bbox_inches="tight" if tight else None)


def _add_small_print(figure: Figure, text: str) -> None:
    """Write small print at the lower right of a figure; a layout engine makes room for the text."""
    if not text:
        return
    style: dict[str, Any] = {"fontsize": _SMALL_PRINT, "color": PALE, "family": font_families([text])}
    style |= {"parse_math": False, "ha": "right"}
    if figure.get_layout_engine() is not None:
        figure.supxlabel(text, x=0.99, **style)
    else:
        figure.text(0.99, 0.01, text, va="bottom", **style)
