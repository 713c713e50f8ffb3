"""The results of scoring: a score, all scores of a set of features, and the table that they print."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from zoo_harness.separation.inputs import Metric
from zoo_harness.separation.scores import SCORES, ScoreDefinition


@dataclass(frozen=True, eq=False)
class Score:
    """One score: the mean over the samples of a number, in [0, 1] unless its definition says otherwise.

    ``name``: its title. ``order``: number of neighbours looked at; 1 for SI and centre SI. ``standard_error``: that of
    independent samples, sqrt(p (1 - p) / n), or for soft SI the standard deviation over the samples by sqrt(n).
    ``bootstrap_error``: over samples, mutual nearest neighbours drawn together (see
    :mod:`zoo_harness.separation.standard_errors`). ``tied``: number of samples for which another choice among equally
    distant neighbours would change the number; the value could move by at most ``tied / n``. ``per_class``: the mean
    over the samples of each class that occurs, by label. ``counts``: (N,), the number of each sample times
    ``max_count``.
    """

    name: str
    order: int
    value: float
    standard_error: float
    bootstrap_error: float
    tied: int
    per_class: dict[int, float]
    counts: Tensor = field(repr=False)
    max_count: int = field(default=1, repr=False)

    @property
    def per_sample(self) -> Tensor:
        """(N,) float64: the number of each sample; the value is their mean.

        >>> import numpy as np, zoo
        >>> zoo.separation(np.array([[0], [1], [3], [7]]), np.array([0, 0, 1, 1])).soft[2].per_sample.tolist()
        [0.5, 0.5, 0.0, 0.5]
        """
        return self.counts.to(torch.float64) / self.max_count

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the samples as plain values, for JSON; labels become strings.

        >>> Score("soft SI", 2, 0.5, 0.1, 0.1, 0, {3: 0.5}, torch.empty(0)).to_dict()["per_class"]
        {'3': 0.5}
        """
        return {
            **_named(self, "order", "value", "standard_error", "bootstrap_error", "tied"),
            "per_class": {str(label): value for label, value in self.per_class.items()},
        }

    def __str__(self) -> str:
        return f"{self.value:.4f} ± {self.bootstrap_error:.4f}"


@dataclass(frozen=True, eq=False)
class Separation:
    """The Separation Index family of one set of features.

    ``n``: number of samples scored. ``classes``: number of samples of each class, by label. ``references``: number of
    reference samples; ``None`` if each sample was compared with the others. ``order``: the largest order. ``scores``:
    by key (see :data:`~zoo_harness.separation.scores.SCORES`), then by order from 1. ``ties``: number of samples that
    have several neighbours at the smallest distance. ``duplicates``: number of samples equal to another sample, or to a
    reference; ``duplicates_unlike``: number of those that equal one of another label. ``nearest``: (N, order) int64,
    the neighbours that were counted. ``rows``: (N,) int64, the rows of the balanced subset, or ``None`` for all rows;
    ``nearest`` counts within the subset. ``metric``, ``normalize``, ``per_class``, ``seed``: as given.
    ``class_names``: the name of each label, by label, if a file has names.
    """

    n: int
    classes: dict[int, int]
    references: int | None
    order: int
    metric: Metric
    normalize: bool
    per_class: int | None
    seed: int
    scores: dict[str, dict[int, Score]]
    ties: int
    duplicates: int
    duplicates_unlike: int
    nearest: Tensor = field(repr=False)
    rows: Tensor | None = field(repr=False)
    class_names: tuple[str, ...] = ()

    @property
    def si(self) -> Score:
        """The Separation Index."""
        return self.scores["si"][1]

    @property
    def high(self) -> dict[int, Score]:
        """High-order SI by order."""
        return self.scores["high"]

    @property
    def soft(self) -> dict[int, Score]:
        """Soft SI by order."""
        return self.scores["soft"]

    @property
    def anti(self) -> dict[int, Score]:
        """Anti SI by order; lower is better."""
        return self.scores["anti"]

    @property
    def centre(self) -> Score:
        """Centre SI."""
        return self.scores["centre"][1]

    def score(self, definition: ScoreDefinition) -> Score:
        """Return this score, of the largest order that there is."""
        by_order = self.scores[definition.key]
        return by_order[max(by_order)]

    @property
    def per_sample(self) -> Tensor:
        """(N,) int64: the largest order at which all neighbours agree, else minus the largest at which none does.

        It is limited by the largest order, and never 0.

        >>> import numpy as np, zoo
        >>> zoo.separation(np.array([[0], [1], [3], [7]]), np.array([0, 0, 1, 1])).per_sample
        tensor([ 1,  1, -2,  1])
        """
        # All of the r nearest agree up to this order and not beyond; the same holds for none.
        agree, differ = (torch.stack([score.counts for score in of.values()]).sum(0) for of in (self.high, self.anti))
        return agree - differ

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the values of single samples, for JSON; orders and labels become strings."""
        scores: dict[str, Any] = {
            key: {str(r): score.to_dict() for r, score in by_order.items()} for key, by_order in self.scores.items()
        }
        return {
            **_named(self, "n", "references", "order", "metric", "normalize", "per_class", "seed"),
            "classes": {str(label): size for label, size in self.classes.items()},
            **{each.key: scores[each.key] if each.has_orders else scores[each.key]["1"] for each in SCORES},
            **_named(self, "ties", "duplicates", "duplicates_unlike"),
            **({"class_names": list(self.class_names)} if self.class_names else {}),
        }

    def class_name(self, label: int) -> str:
        """Return the name of a label, or the label itself if there are no names."""
        return self.class_names[label] if self.class_names else str(label)

    def __str__(self) -> str:
        """Return the samples compared, one line per order and per score without orders, and a note; no line end."""
        headline, *others = SCORES
        columns = [each for each in others if each.has_orders]
        lines = [["order", *(each.title for each in columns), "decided by a tie"]]
        for order in range(1, self.order + 1):
            scores = [self.scores[each.key][order] for each in columns]
            lines.append([str(order), *map(str, scores), f"{max(score.tied for score in scores):,}"])
        for each in others:
            if not each.has_orders:
                score = self.score(each)
                lines.append([each.heading, str(score), *[""] * (len(columns) - 1), f"{score.tied:,}"])
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        table = ["  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]
        against, candidate = "each other", "another sample"
        if self.references is not None:
            against, candidate = _count(self.references, "reference"), "a reference"
        compared = f"{_count(self.n, 'sample')} of {_count(len(self.classes), 'class', 'classes')} against {against}"
        scaled = f"{self.metric} distance{', z-scored' if self.normalize else ''}"
        note = f"No sample equals {candidate}."
        if self.duplicates:
            other = f"{self.duplicates_unlike:,} of them one of another class"
            note = f"{_count(self.duplicates, 'sample')} equal {candidate}, {other}."
        first = [f"{headline.title} {self.score(headline)}", f"{compared}, {scaled}"]
        return "\n".join([*first, "", *table, "", f"± is one bootstrap standard error. {note}"])


@dataclass(frozen=True, eq=False)
class SeparationIndex:
    """The Separation Index, and how far ties could change it.

    ``value``: in [0, 1]. ``standard_error``: binomial, sqrt(value (1 - value) / n). ``n``: number of samples. ``ties``:
    number of samples that have several neighbours at the smallest distance. ``tied_disagreements``: number of those
    that would count differently if another of the tied samples were taken. ``nearest``: (N,) int64, the neighbour
    counted.
    """

    value: float
    standard_error: float
    n: int
    ties: int
    tied_disagreements: int
    nearest: Tensor


def _named(result: object, *names: str) -> dict[str, Any]:
    return {name: getattr(result, name) for name in names}


def _count(number: int, singular: str, plural: str = "") -> str:
    return f"{number:,} {singular if number == 1 else plural or singular + 's'}"
