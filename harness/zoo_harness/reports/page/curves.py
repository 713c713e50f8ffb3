"""Draw the SI of every layer as small charts with one scale, and count the confusion matrices of a report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from zoo_harness.reports.page import svg
from zoo_harness.reports.page.entries import Entry, Group, shown

if TYPE_CHECKING:
    from zoo_harness.evaluation.predictions import Predictions

MOST_CURVES = 24  # the most layer charts in a group
MOST_MATRICES = 40  # the most confusion matrices in a group
MOST_CLASSES = 30  # the most classes in a matrix
_PAIRS = 15  # a run with more classes has a list of this many mistakes instead
_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM = 190, 128, 28, 12, 22


@dataclass(frozen=True)
class Curve:
    """The layer chart of one run, with a caption that names the best layer."""

    entry: Entry
    backbone: str
    picture: Markup
    caption: str


def layer_curves(group: Group) -> list[Curve]:
    """Return the layer charts of the 24 rows with the highest accuracy; all charts have the same scale of SI."""
    found = [entry for entry in group.entries if entry.record.results.layer_curve is not None][:MOST_CURVES]
    values = [value for entry in found for _layer, value in _values(entry)]
    if not values:
        return []
    y = svg.linear(values, _HEIGHT - _BOTTOM, _TOP, most=5)
    return [_curve(entry, y) for entry in found]


def _values(entry: Entry) -> list[tuple[str, float]]:
    curve = entry.record.results.layer_curve
    return [(shown(layer.path, 40), layer.separation.si.value) for layer in curve.layers] if curve else []


def _curve(entry: Entry, y: svg.Scale) -> Curve:
    values, best = _values(entry), entry.record.results.layer_curve
    assert best is not None  # noqa: S101 - layer_curves chose it
    step = (_WIDTH - _LEFT - 8) / max(1, len(values) - 1)
    places = [(round(_LEFT + number * step, 1), y(value)) for number, (_layer, value) in enumerate(values)]
    layer, score = shown(best.best.path, 40), best.best.separation.si.value
    top = next(place for place, each in zip(places, values, strict=True) if each == (layer, score))
    grid = svg.axes(svg.Scale(0, 1, _LEFT, _WIDTH - 8, ()), y, "", "", bottom=_HEIGHT - _BOTTOM)
    line = Markup('<path class="curve" d="{}"/><circle class="a" cx="{}" cy="{}" r="3"/>').format(
        svg.path(places), *top
    )
    ends = Markup(
        '<g class="axes"><text x="{}" y="{}">pixels</text><text class="e" x="{}" y="{}">{}</text></g>'
    ).format(_LEFT, _HEIGHT - 6, _WIDTH - 8, _HEIGHT - 6, f"{len(values):,} layers" if len(values) > 1 else "")
    listed = ", ".join(f"{name} {value:.3f}" for name, value in values)
    about = f"SI of the layers of {shown(entry.run.backbone, 40)}: {listed}"
    return Curve(
        entry,
        shown(entry.run.backbone, 40),
        svg.picture(grid + line + ends, about, _WIDTH, _HEIGHT),
        f"best {score:.3f} at {layer}",
    )


def confusion_of(entry: Entry, predictions: Predictions | None) -> dict[str, Any] | None:
    """Return the confusion matrix of a row's first run, or its most frequent mistakes; ``None`` if both are unknown.

    The key ``m`` has the counts, with one row per label. The key ``p`` has one list per mistake: label, prediction,
    number of images with this mistake, and number of images with this label.
    """
    classes = entry.record.dataset.classes
    names = [shown(name, 40) for name in classes]
    if predictions is None or predictions.classes != len(classes):
        summary = entry.record.results.confusion
        pairs = summary and [[shown(p.true, 40), shown(p.predicted, 40), p.images, p.of] for p in summary.pairs]
        return {"r": entry.number, "p": pairs} if pairs else None
    import numpy as np

    size = len(classes)
    coded = predictions.label.astype(np.int64) * size + predictions.predicted
    if size <= MOST_CLASSES:
        return {"r": entry.number, "m": np.bincount(coded, minlength=size * size).tolist()}
    cells, counts = np.unique(coded[~predictions.hits], return_counts=True)
    order = np.argsort(-counts, kind="stable")[:_PAIRS]
    of = np.bincount(predictions.label, minlength=size)
    found = [(*divmod(int(cells[place]), size), int(counts[place])) for place in order]
    return {"r": entry.number, "p": [[names[true], names[other], count, int(of[true])] for true, other, count in found]}
