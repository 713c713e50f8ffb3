"""Define the results of the separation functions: one score, or all scores of a set of features."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from zoo_harness.separation.inputs import Metric
from zoo_harness.separation.scores import SCORES, ScoreDefinition


@dataclass(frozen=True, eq=False)
class Score:
    """A separation score of a set of samples: the mean of one number per sample, which is usually from 0 to 1.

    ``name``: the score's title. ``order``: the number of neighbours examined; 1 for SI and centre SI. ``value``: the
    mean. ``standard_error``: the standard error as if samples were independent, which is the standard deviation over
    the samples divided by sqrt(n). ``bootstrap_error``: the standard error by a bootstrap over samples that draws
    mutual nearest neighbours together (see :mod:`zoo_harness.separation.standard_errors`). ``tied``: the number of
    samples for which another choice among equally distant neighbours would change the score of the sample. Other
    choices could change ``value`` by at most ``tied / n``. ``per_class``: a dictionary from labels to the mean over the
    samples of the class. ``counts``: (N,), the score of each sample times ``max_count``.
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
        """The score of each sample, (N,) float64. The mean of these scores is ``value``.

        >>> import numpy as np, zoo
        >>> zoo.separation(np.array([[0], [1], [3], [7]]), np.array([0, 0, 1, 1])).soft[2].per_sample.tolist()
        [0.5, 0.5, 0.0, 0.5]
        """
        return self.counts.to(torch.float64) / self.max_count

    def to_dict(self) -> dict[str, Any]:
        """Convert the score to a dictionary for JSON, without the scores of single samples. Labels become strings.

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
    """All scores of the Separation Index family for one set of features.

    ``n``: the number of samples scored. ``classes``: a dictionary from labels to numbers of samples. ``references``:
    the number of reference samples; ``None`` if the samples were compared with each other. ``order``: the largest
    order. ``scores``: nested dictionaries: ``scores[key][order]`` is a :class:`Score`, and
    :data:`~zoo_harness.separation.scores.SCORES` lists the keys. ``ties``: the number of samples with several
    neighbours at the smallest distance. ``duplicates``: the number of samples that equal another sample, or a reference
    if there are references. ``duplicates_unlike``: the number of samples that equal another sample or reference with a
    different label. ``nearest``: (N, order) int64, the indices of the neighbours that were counted. ``rows``: (N,)
    int64, the row numbers of the balanced subset; ``None`` if all rows were scored. If there are no references, the
    indices in ``nearest`` are positions in this subset. ``metric``, ``normalize``, ``per_class``, ``seed``: the
    arguments of :func:`zoo.separation`. ``class_names``: the class name of each label, indexed by label; empty without
    class names.
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
        """High-order SI as a dictionary from orders to scores."""
        return self.scores["high"]

    @property
    def soft(self) -> dict[int, Score]:
        """Soft SI as a dictionary from orders to scores."""
        return self.scores["soft"]

    @property
    def anti(self) -> dict[int, Score]:
        """Anti SI as a dictionary from orders to scores; lower is better."""
        return self.scores["anti"]

    @property
    def centre(self) -> Score:
        """Centre SI."""
        return self.scores["centre"][1]

    def score(self, definition: ScoreDefinition) -> Score:
        """Return the score with the given definition, for the largest order computed."""
        by_order = self.scores[definition.key]
        return by_order[max(by_order)]

    @property
    def per_sample(self) -> Tensor:
        """The number of nearest neighbours of each sample before the first neighbour with another label, (N,) int64.

        If the nearest neighbour has another label than the sample, the result is minus the number of nearest neighbours
        before the first neighbour with the sample's label. The numbers lie between ``-order`` and ``order``, and are
        never 0.

        >>> import numpy as np, zoo
        >>> zoo.separation(np.array([[0], [1], [3], [7]]), np.array([0, 0, 1, 1])).per_sample
        tensor([ 1,  1, -2,  1])
        """
        # high[r].counts is 1 for all r up to the number of agreeing neighbours, and then 0, so that the sum over r is
        # this number. In the same way, the sum of the counts of anti SI is the number of disagreeing neighbours.
        agree, differ = (torch.stack([score.counts for score in of.values()]).sum(0) for of in (self.high, self.anti))
        return agree - differ

    def to_dict(self) -> dict[str, Any]:
        """Convert the result to a dictionary for JSON, without values per sample. Orders and labels become strings."""
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
        """Return the class name of a label, or the label as text if the result has no class names."""
        return self.class_names[label] if self.class_names else str(label)

    def __str__(self) -> str:
        """Return a headline, a table of the scores by order, and a note on duplicates, without a final newline."""
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
            other = f"{self.duplicates_unlike:,} with a different label"
            note = f"{_count(self.duplicates, 'sample')} equal {candidate}, {other}."
        first = [f"{headline.title} {self.score(headline)}", f"{compared}, {scaled}"]
        return "\n".join([*first, "", *table, "", f"± is one bootstrap standard error. {note}"])


@dataclass(frozen=True, eq=False)
class SeparationIndex:
    """The Separation Index of a set of samples, and how far another choice among tied neighbours could change it.

    ``value``: in [0, 1]. ``standard_error``: the binomial standard error, sqrt(value (1 - value) / n). ``n``: the
    number of samples. ``ties``: the number of samples with several neighbours at the smallest distance.
    ``tied_disagreements``: the number of samples that would change from hit to miss, or from miss to hit, by another
    choice among equally near neighbours. ``nearest``: (N,) int64, the index of the neighbour that was counted.
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
