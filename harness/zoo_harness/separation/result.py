"""The table that a :class:`~zoo_harness.separation.Separation` prints."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from zoo_harness.separation.inputs import Metric
from zoo_harness.separation.score import Score, order_of_agreement


@dataclass(frozen=True, eq=False)
class Separation:
    """The Separation Index family of one set of features.

    ``n``: samples scored. ``classes``: how many samples each class has, by label. ``references``: how many reference
    samples there were; ``None`` if each sample was compared with the others. ``order``: the largest order. ``si``,
    ``centre``: scores; ``high``, ``soft``, ``anti``: scores by order, from 1. ``ties``: samples whose nearest
    distance is that of several neighbours. ``duplicates``: samples equal to another sample, or to a reference;
    ``duplicates_unlike``: those of them that equal one of another label. ``nearest``: (N, order) int64, the
    neighbours that counted. ``rows``: (N,) int64, the rows of the balanced subset, ``None`` if all; ``nearest``
    counts within it. ``metric``, ``normalize``, ``per_class``, ``seed``: as given.
    """

    n: int
    classes: dict[int, int]
    references: int | None
    order: int
    metric: Metric
    normalize: bool
    per_class: int | None
    seed: int
    si: Score
    high: dict[int, Score]
    soft: dict[int, Score]
    anti: dict[int, Score]
    centre: Score
    ties: int
    duplicates: int
    duplicates_unlike: int
    nearest: Tensor = field(repr=False)
    rows: Tensor | None = field(repr=False)

    @property
    def per_sample(self) -> Tensor:
        """(N,) int64: the largest order at which all neighbours agree, else minus the largest at which none does.

        It is limited by the order asked for, and never 0.

        >>> import numpy as np
        >>> separation(np.array([[0], [1], [3], [7]]), np.array([0, 0, 1, 1])).per_sample
        tensor([ 1,  1, -2,  1])
        """
        return order_of_agreement(self.high[self.order].alike)

    def to_dict(self) -> dict[str, Any]:
        """Everything but what there is of every sample, for JSON: orders and classes become strings."""
        families = {
            family: {str(order): score.to_dict() for order, score in getattr(self, family).items()}
            for family in ("high", "soft", "anti")
        }
        plain = ("n", "references", "order", "metric", "normalize", "per_class", "seed")
        counts = ("ties", "duplicates", "duplicates_unlike")
        return {
            **{name: getattr(self, name) for name in plain},
            "classes": {str(label): size for label, size in self.classes.items()},
            "si": self.si.to_dict(),
            **families,
            "centre": self.centre.to_dict(),
            **{name: getattr(self, name) for name in counts},
        }

    def __str__(self) -> str:

        return separation_table(self)


@dataclass(frozen=True, eq=False)
class SeparationIndex:
    """How well classes are separated at order one, and how far ties could change that.

    ``value``: in [0, 1]. ``standard_error``: binomial, sqrt(value (1 - value) / n). ``n``: samples. ``ties``:
    samples whose nearest distance is attained by more than one other sample. ``tied_disagreements``: those of
    them that would count differently if another of the tied samples won. ``nearest``: (N,) int64, the neighbour
    that counted.
    """

    value: float
    standard_error: float
    n: int
    ties: int
    tied_disagreements: int
    nearest: Tensor


_HEADINGS = ("order", "high-order SI", "soft SI", "anti SI", "decided by a tie")


def separation_table(result: Separation) -> str:
    """Return what was compared, one line per order, centre SI, and how much depends on chance; no line end."""
    lines = [_HEADINGS]
    for order in range(1, result.order + 1):
        high, soft, anti = result.high[order], result.soft[order], result.anti[order]
        lines.append((str(order), str(high), str(soft), str(anti), f"{soft.tied:,}"))
    lines.append(("centre", str(result.centre), "", "", f"{result.centre.tied:,}"))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    table = ["  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]
    return "\n".join([f"SI {result.si}  {_what(result)}", "", *table, "", _reading(result)])


def _what(result: Separation) -> str:
    against = "each other" if result.references is None else _count(result.references, "reference")
    samples, classes = _count(result.n, "sample"), _count(len(result.classes), "class", "classes")
    scaled = ", z-scored" if result.normalize else ""
    return f"({samples} of {classes} against {against}, {result.metric} distance{scaled})"


def _reading(result: Separation) -> str:
    where = "another sample" if result.references is None else "a reference"
    unlike = f", {result.duplicates_unlike:,} of them one of another class" if result.duplicates else ""
    equal = f"{_count(result.duplicates, 'sample')} equal {where}{unlike}" if result.duplicates else ""
    return "± is one bootstrap standard error. " + (f"{equal}." if equal else f"No sample equals {where}.")


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"
