"""One score: its value, how far that is uncertain, and what it is made of."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from zoo_harness.separation.label_agreement import Agreement, Family
from zoo_harness.separation.standard_errors import bootstrap_error, error_of_mean

Name = Literal["high-order SI", "soft SI", "anti SI", "centre SI"]


@dataclass(frozen=True, eq=False)
class Score:
    """The mean of a number in [0, 1] over the samples.

    ``order``: neighbours looked at; 1 for centre SI. ``standard_error``: as if samples were independent, which is
    the binomial one except for soft SI, where it is the standard deviation of the samples over sqrt(n).
    ``bootstrap_error``: over samples, mutual nearest neighbours drawn together (see :mod:`zoo_harness.sample_errors`).
    ``tied``: samples whose number another choice among equally distant neighbours would change; so the value could
    move by at most ``tied / n``. ``per_class``: the mean over the samples of each class, classes in order; a class
    without samples is not in it.
    """

    name: Name
    order: int
    value: float
    standard_error: float
    bootstrap_error: float
    tied: int
    per_class: dict[int, float]
    alike: Tensor = field(repr=False)

    @property
    def per_sample(self) -> Tensor:
        """(N,) float64: the number of each sample, of which the value is the mean; computed when asked for.

        >>> import numpy as np
        >>> from zoo_harness.separation import separation
        >>> separation(np.array([[0], [1], [3], [7]]), np.array([0, 0, 1, 1])).soft[2].per_sample.tolist()
        [0.5, 0.5, 0.0, 0.5]
        """
        points, most = _points(self.name, self.alike)
        return points.to(torch.float64) / most

    def to_dict(self) -> dict[str, Any]:
        """Everything but the samples, for JSON: classes become strings.

        >>> Score("soft SI", 2, 0.5, 0.1, 0.1, 0, {3: 0.5}, torch.empty(0)).to_dict()["per_class"]
        {'3': 0.5}
        """
        return {
            "order": self.order,
            "value": self.value,
            "standard_error": self.standard_error,
            "bootstrap_error": self.bootstrap_error,
            "tied": self.tied,
            "per_class": {str(label): value for label, value in self.per_class.items()},
        }

    def __str__(self) -> str:
        return f"{self.value:.4f} ± {self.bootstrap_error:.4f}"


@dataclass(frozen=True, eq=False)
class Classes:
    """The classes of the samples: their labels in order, (C,), the place of each sample's, (N,), and their sizes."""

    labels: list[int]
    of_sample: Tensor
    sizes: list[int]

    @classmethod
    def of(cls, labels: Tensor) -> Classes:
        """The classes that occur in (N,) labels.

        >>> Classes.of(torch.tensor([7, 0, 7])).labels
        [0, 7]
        """
        names, of_sample, sizes = labels.unique(return_inverse=True, return_counts=True)
        return cls(names.tolist(), of_sample, sizes.tolist())


def score(
    family: Family, order: int, agreement: Agreement, classes: Classes, *, seed: int, paired: bool, centre: bool = False
) -> Score:
    """Return one score of an agreement found to ``order`` neighbours or more.

    ``paired``: whether the neighbours are samples themselves, so that two can be each other's. ``centre``: whether
    they are class centres.
    """
    name: Name = "centre SI" if centre else _NAMES[family]
    alike = agreement.alike[:, :order]
    points, most = _points(name, alike)
    sums = torch.zeros(len(classes.labels), dtype=torch.int64, device=points.device)
    sums.index_add_(0, classes.of_sample, points)
    per_class = zip(classes.labels, sums.tolist(), classes.sizes, strict=True)
    return Score(
        name=name,
        order=order,
        value=int(points.sum()) / (most * len(points)),
        standard_error=error_of_mean(points, most),
        bootstrap_error=bootstrap_error(points, most, agreement.nearest[:, 0] if paired else None, seed),
        tied=getattr(agreement.tied[order - 1], family),
        per_class={label: total / (most * size) for label, total, size in per_class},
        alike=alike,
    )


def order_of_agreement(alike: Tensor) -> Tensor:
    """Return how many nearest neighbours agree before the first that does not, or minus how many disagree.

    ``alike``: (N, order) bool. The result, (N,) int64, lies in [-order, order] and is never 0.

    >>> order_of_agreement(torch.tensor([[True, True, False], [False, False, False]]))
    tensor([ 2, -3])
    """
    first = alike[:, :1]
    run = (alike == first).to(torch.int64).cumprod(1).sum(1)
    return torch.where(first[:, 0], run, -run)


_NAMES: dict[Family, Name] = {"high": "high-order SI", "soft": "soft SI", "anti": "anti SI"}


def _points(name: Name, alike: Tensor) -> tuple[Tensor, int]:
    """Return an integer for each sample, and the number by which to divide it."""
    if name == "soft SI":
        return alike.sum(1), alike.shape[1]
    if name == "anti SI":
        return (~alike.any(1)).to(torch.int64), 1
    return alike.all(1).to(torch.int64), 1
