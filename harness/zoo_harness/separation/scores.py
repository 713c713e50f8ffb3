"""Define the scores of the Separation Index family in the list ``SCORES``.

Results, records, tables, the torchmetrics metric, commands and model cards list the scores in the order of ``SCORES``.
To add a score, write a pure function and append a :class:`ScoreDefinition` to ``SCORES``. This module does not import
torch, so that writing a model card does not have to wait for torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

DEFAULT_ORDER = 2  # default number of neighbours in commands, functions and training runs


class Neighbourhood(NamedTuple):
    """The input of a score function: how many of the ``order`` nearest neighbours of each sample have its label.

    ``same_label``: (N,) integers, the number of neighbours that have the sample's label. ``chance``: the probability
    that a random neighbour of a random sample has the sample's label.
    """

    same_label: Tensor
    order: int
    chance: float


def too_few_per_class(where: str, counts: Mapping[Any, int], order: int, sample: str = "image") -> Iterator[str]:
    """Yield a warning if a class has only one sample, and a warning if a class has at most ``order`` samples.

    A class needs two samples for SI and ``order + 1`` samples for high-order SI, because a sample is not its own
    neighbour. ``counts``: the number of samples of each class. ``where``: the name of the set of samples.
    ``sample``: the word for a sample in the warnings.

    >>> next(too_few_per_class("split 'test'", {"cat": 1, "dog": 5}, 2))
    "too few images per class in split 'test': 1 of 2 classes ('cat') has 1 image; expected 2 or more, ..."
    """
    present = {name: count for name, count in counts.items() if count}
    begins = f"too few {sample}s per class in {where}"
    single = [name for name, count in present.items() if count == 1]
    if single:
        yield (
            f"{begins}: {_listed(single, len(present))} 1 {sample}; expected 2 or more, because no {sample} is its "
            f"own neighbour; a class with 1 {sample} has SI 0 and centre SI 1"
        )
    few = [name for name, count in present.items() if 1 < count <= order]
    if few:
        yield (
            f"{begins} for order {order}: {_listed(few, len(present))} {order} {sample}s or fewer; expected "
            f"{order + 1} or more; a class with fewer {sample}s has high-order SI 0"
        )


def _listed(names: list[Any], classes: int) -> str:
    shown = ", ".join(map(repr, names[:3])) + (", ..." if len(names) > 3 else "")
    return f"{len(names):,} of {classes:,} classes ({shown}) {'has' if len(names) == 1 else 'have'}"


ScoreFunction = Callable[[Neighbourhood], "tuple[Tensor, int]"]
ErrorFunction = Callable[["Tensor", int, "Tensor | None", int], tuple[float, float]]


def share_of_same_label(neighbourhood: Neighbourhood) -> tuple[Tensor, int]:
    """Return the number of neighbours that have the sample's label, and ``order`` as the divisor."""
    return neighbourhood.same_label, neighbourhood.order


@dataclass(frozen=True)
class ScoreDefinition:
    """The names, the explanation and the formula of one separation score.

    ``key``: the score's key in ``to_dict()``, ``run.json`` and :attr:`Separation.scores`. ``title``: the score's name
    in text. ``explanation``: a phrase that defines the score; it may contain ``{sample}`` and ``{order}``.

    ``function``: returns a number for each sample, (N,) bool, integer or float64, and a common divisor. The score is
    the mean of these numbers, divided by the divisor. The number of a sample must be monotonic in ``same_label``,
    because the effect of ties is found from the smallest and the largest possible ``same_label``. ``has_orders``:
    whether the number of neighbours can be chosen; otherwise the score uses only the nearest neighbour. ``neighbours``:
    whether neighbours are samples or class means. ``errors``: the function that returns the standard error and the
    bootstrap error; by default :func:`~zoo_harness.separation.standard_errors.errors_of_mean`.
    """

    key: str
    title: str
    explanation: str
    function: ScoreFunction
    has_orders: bool = False
    higher_is_better: bool = True
    neighbours: Literal["samples", "centres"] = "samples"
    errors: ErrorFunction | None = None

    @property
    def name(self) -> str:
        """The name of the score's function, and its key in the torchmetrics metric, such as ``high_order_si``."""
        return self.title.lower().replace("-", "_").replace(" ", "_")

    @property
    def heading(self) -> str:
        """The score's name as a short column heading, such as ``high-order``."""
        return self.title.removesuffix(" SI")

    def orders(self, largest: int) -> range:
        """Return the numbers of neighbours to score with; a search found ``largest`` neighbours of each sample."""
        return range(1, largest + 1 if self.has_orders else 2)

    def explain(self, order: int, sample: str = "sample") -> str:
        """Return a phrase that defines the score for the given order. ``sample``: the word for a sample.

        >>> SCORES[3].explain(2, "image")
        'fraction of images whose 2 nearest neighbours all have other labels; lower is better'
        >>> SCORES[3].explain(1, "image")
        'fraction of images whose nearest neighbour has another label; lower is better'
        """
        label = "their" if self.higher_is_better else "another"
        nearest = f"fraction of {sample}s whose nearest neighbour has {label} label"
        repeats = order == 1 and self.has_orders
        phrase = nearest if repeats else self.explanation.format(sample=sample, order=order)
        return phrase if self.higher_is_better else f"{phrase}; lower is better"


SCORES: list[ScoreDefinition] = [
    ScoreDefinition("si", "SI", "fraction of {sample}s whose nearest neighbour has their label", share_of_same_label),
    ScoreDefinition(
        "high",
        "high-order SI",
        "fraction of {sample}s whose {order} nearest neighbours all have their label",
        lambda near: (near.same_label == near.order, 1),
        has_orders=True,
    ),
    ScoreDefinition(
        "soft",
        "soft SI",
        "mean fraction of each {sample}'s {order} nearest neighbours that have its label",
        share_of_same_label,
        has_orders=True,
    ),
    ScoreDefinition(
        "anti",
        "anti SI",
        "fraction of {sample}s whose {order} nearest neighbours all have other labels",
        lambda near: (near.same_label == 0, 1),
        has_orders=True,
        higher_is_better=False,
    ),
    ScoreDefinition(
        "centre",
        "centre SI",
        "fraction of {sample}s whose nearest class mean is the mean of their own class",
        share_of_same_label,
        neighbours="centres",
    ),
]
"""The first score is the headline of a printed :class:`~zoo_harness.separation.result.Separation`."""
