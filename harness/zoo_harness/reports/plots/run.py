"""Pictures of a run directory: loss and accuracy of each epoch, the learning rate, and a labelled grid of the data.

Figures are drawn on canvases of their own, never through pyplot, which keeps every figure of a process alive.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike, NDArray

from zoo.backbone import Training
from zoo_harness.records.run import EpochRecord
from zoo_harness.training.optimizer import learning_rate
from zoo_harness.util.atomic_files import replacing
from zoo_harness.util.text import one_line

DOTS_PER_INCH = 150
INK, QUIET = "#222222", "#d9d9d9"

# Blue and vermilion of Okabe and Ito: told apart by every kind of colour vision, and in grey.
_TRAIN, _EVALUATION = "#0072B2", "#D55E00"
_MOST_STEPS = 4000
_MOST_CLASSES, _IMAGES_OF_A_CLASS = 10, 10
_TILE, _GAP = 1.0, 0.08  # of one image
_TILE_INCHES = 0.58
_LONGEST_NAME = 24
_NAME_FONT = FontProperties(size=9)


def plot_history(history: Sequence[EpochRecord], directory: Path) -> tuple[Path, ...]:
    """Write ``loss.png`` and ``accuracy.png``; without any epoch nothing, since there is nothing to show."""
    if not history:
        return ()
    epochs = [line.epoch for line in history]
    loss, accuracy = directory / "loss.png", directory / "accuracy.png"
    _plot_curves(
        loss,
        "Loss per image",
        epochs,
        [line.train_loss for line in history],
        [line.evaluation_loss for line in history],
        lambda value: f"{value:.4g}",
        best=min,
    )
    _plot_curves(
        accuracy,
        "Accuracy (%)",
        epochs,
        [100 * line.train_accuracy for line in history],
        [100 * line.evaluation_accuracy for line in history],
        lambda value: f"{value:.2f} %",
        best=max,
    )
    return loss, accuracy


def plot_learning_rate(training: Training, epochs: int, steps_per_epoch: int, directory: Path) -> tuple[Path, ...]:
    """Write ``learning_rate.png`` for the epochs that were run; nothing where the learning rate stayed as it was."""
    steps = epochs * steps_per_epoch
    if not steps or (training.schedule == "constant" and not training.warmup_epochs):
        return ()
    shown = np.unique(np.linspace(0, steps - 1, min(steps, _MOST_STEPS)).round()).astype(int).tolist()
    figure = Figure(figsize=(6.4, 2.2), dpi=DOTS_PER_INCH, layout="constrained")
    axes = figure.add_subplot()
    # Epoch n ends at n, as the other curves have it: their points are what was measured then.
    axes.plot(
        [(step + 1) / steps_per_epoch for step in shown],
        [learning_rate(training, step, steps_per_epoch) for step in shown],
        color=INK,
        linewidth=1.4,
    )
    if training.schedule == "multistep":
        axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:g}")
    _prepare_axes(axes, "Learning rate", list(range(1, epochs + 1)))
    axes.set_xlim(0, epochs)
    path = directory / "learning_rate.png"
    save_figure(figure, path)
    return (path,)


def plot_samples(images: NDArray[np.uint8], labels: ArrayLike, classes: Sequence[str], path: Path) -> None:
    """Write a grid of images as given: for each of the first classes that occur, a row of its first images.

    ``images`` are uint8, ``(N, H, W)`` grey or ``(N, H, W, 3)`` RGB.
    """
    chosen = _choose_samples(np.asarray(labels), len(classes))
    names = [shown_name(classes[label], f"class {label}") for label in chosen]
    figure, axes = _sample_canvas(names, max(map(len, chosen.values()), default=1))
    for row, (name, indices) in enumerate(zip(names, chosen.values(), strict=True)):
        # Not mathematics: a name may contain dollar signs.
        axes.text(-0.15, row + 0.5, name, ha="right", va="center", color=INK, font=_NAME_FONT, parse_math=False)
        for column, index in enumerate(indices):
            _draw_tile(axes, images[index], column, row)
    save_figure(figure, path)


def _plot_curves(
    path: Path,
    quantity: str,
    epochs: list[int],
    train: list[float],
    evaluation: list[float],
    write: Callable[[float], str],
    best: Callable[[list[float]], float],
) -> None:
    figure = Figure(figsize=(6.4, 3.8), dpi=DOTS_PER_INCH, layout="constrained")
    axes = figure.add_subplot()
    size = 4 if len(epochs) <= 60 else 0
    axes.plot(epochs, train, color=_TRAIN, marker="o", markersize=size, linestyle="--", label="training")
    axes.plot(epochs, evaluation, color=_EVALUATION, marker="s", markersize=size, label="evaluation")
    _prepare_axes(axes, quantity, epochs)
    _mark_best(axes, epochs, evaluation, write, best)
    figure.legend(loc="outside upper center", ncols=3, frameon=False)
    save_figure(figure, path)


def _mark_best(
    axes: Axes,
    epochs: list[int],
    values: list[float],
    write: Callable[[float], str],
    best: Callable[[list[float]], float],
) -> None:
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return
    value = best(finite)
    epoch = epochs[values.index(value)]
    axes.plot(
        [epoch],
        [value],
        linestyle="none",
        marker="o",
        markersize=11,
        markerfacecolor="none",
        markeredgecolor=INK,
        markeredgewidth=1.3,
        label=f"best evaluation: {write(value)}, epoch {epoch}",
    )


def _prepare_axes(axes: Axes, quantity: str, epochs: list[int]) -> None:
    axes.set_xlabel("Epoch", color=INK)
    axes.set_ylabel(quantity, color=INK)
    axes.xaxis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))
    axes.set_xlim(epochs[0] - 0.5, epochs[-1] + 0.5)
    axes.margins(y=0.12)
    _keep_scale(axes)
    axes.grid(axis="y", color=QUIET, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#888888")
    axes.tick_params(color="#888888", labelcolor=INK)


def _keep_scale(axes: Axes) -> None:
    """Widen an axis of nearly equal values, which would show a hair's breadth as a chasm."""
    low, high = axes.get_ylim()
    room = max(abs(low), abs(high)) / 50 - (high - low) / 2
    if room > 0:
        axes.set_ylim(low - room, high + room)


def _choose_samples(labels: NDArray[Any], classes: int) -> dict[int, list[int]]:
    """Indices of the first images of each of the first classes that have any."""
    found: dict[int, list[int]] = {}
    for label in range(classes):
        indices = np.flatnonzero(labels == label)[:_IMAGES_OF_A_CLASS]
        if len(indices):
            found[label] = indices.tolist()
        if len(found) == _MOST_CLASSES:
            break
    return found


def _sample_canvas(names: list[str], columns: int) -> tuple[Figure, Axes]:
    """A figure whose one axes has a square of side 1 for each image, and room for the names on the left."""
    rows = max(len(names), 1)
    margin = 0.3 + max(map(_width_of, names), default=0.0) / _TILE_INCHES
    inches = ((margin + columns + 0.1) * _TILE_INCHES, (rows + 0.1) * _TILE_INCHES)
    figure = Figure(figsize=inches, dpi=DOTS_PER_INCH, facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set_xlim(-margin, columns + 0.1)
    axes.set_ylim(rows + 0.05, -0.05)  # downwards, as images are stored
    return figure, axes


def _width_of(name: str) -> float:
    """Inches that a name takes."""
    figure = Figure(dpi=DOTS_PER_INCH)
    FigureCanvasAgg(figure)
    text = figure.text(0, 0, name, font=_NAME_FONT, parse_math=False)
    return text.get_window_extent().width / DOTS_PER_INCH


def _draw_tile(axes: Axes, pixels: NDArray[Any], column: int, row: int) -> None:
    height, width = pixels.shape[:2]
    shown = (_TILE - _GAP) / max(height, width)
    x, y = column + 0.5, row + 0.5
    across, down = width * shown / 2, height * shown / 2
    axes.imshow(
        pixels,
        extent=(x - across, x + across, y + down, y - down),
        # Without these limits a grey image would be stretched to its own darkest and brightest pixel.
        cmap="gray",
        vmin=0,
        vmax=255,
        interpolation="nearest" if max(height, width) <= _TILE_INCHES * DOTS_PER_INCH else "antialiased",
        aspect="auto",
    )


def shown_name(name: str, otherwise: str) -> str:
    """The name on one line and not too long; ``otherwise`` where the font cannot write it."""
    line = one_line(name)
    if not line or any(ord(char) not in _writable() for char in line):
        return otherwise
    return line if len(line) <= _LONGEST_NAME else line[: _LONGEST_NAME - 1].rstrip() + "\u2026"


@cache
def _writable() -> frozenset[int]:
    """The characters of the default font."""
    return frozenset(get_font(findfont(_NAME_FONT)).get_charmap())


def save_figure(figure: Figure, path: Path, *, tight: bool = False) -> None:
    """Write a figure as a PNG, whole or not at all; ``tight`` gives it the size of what is drawn."""
    FigureCanvasAgg(figure)
    with replacing(path) as temporary:
        # Without a version in it, the same data gives the same bytes.
        inches = "tight" if tight else None
        figure.savefig(temporary, format="png", metadata={"Software": None}, bbox_inches=inches)
