"""``SCORES``: the scores of the Separation Index family, in the order of every table.

Results, records, the torchmetrics metric, commands, cards and rescoring iterate over this list. To add a score, write
its pure function and append a :class:`ScoreDefinition`. Nothing here imports torch, so that cards need not wait for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

DEFAULT_ORDER = 2  # of runs, and of commands and functions unless another is given


class Neighbourhood(NamedTuple):
    """The labels among the ``order`` nearest neighbours of each sample; the input of every score function.

    ``same_label``: (N,) integers, the number of these neighbours that have the sample's label. ``chance``: the
    probability that a neighbour drawn at random has the label of a sample drawn at random.
    """

    same_label: Tensor
    order: int
    chance: float


def too_few_per_class(where: str, counts: Mapping[Any, int], order: int, sample: str = "image") -> Iterator[str]:
    """Yield a warning if classes have one sample, and one if they have too few for the order.

    ``counts``: the number of samples of each class. Each sample is compared with the others, so that a class needs two
    samples for SI, and ``order + 1`` for high-order SI.

    >>> next(too_few_per_class("split 'test'", {"cat": 1, "dog": 5}, 2))
    "too few images per class in split 'test': 1 of 2 classes ('cat') has 1 image; expected 2 or more, ..."
    """
    present = {name: count for name, count in counts.items() if count}
    begins = f"too few {sample}s per class in {where}"
    single = [name for name, count in present.items() if count == 1]
    if single:
        yield (
            f"{begins}: {_listed(single, len(present))} 1 {sample}; expected 2 or more, because each {sample} is "
            f"compared with the others of its class; the SI of these classes is 0 and their centre SI 1"
        )
    few = [name for name, count in present.items() if 1 < count <= order]
    if few:
        yield (
            f"{begins} for order {order}: {_listed(few, len(present))} {order} {sample}s or fewer; expected "
            f"{order + 1} or more; the high-order SI of these classes is 0"
        )


def _listed(names: list[Any], classes: int) -> str:
    shown = ", ".join(map(repr, names[:3])) + (", ..." if len(names) > 3 else "")
    return f"{len(names):,} of {classes:,} classes ({shown}) {'has' if len(names) == 1 else 'have'}"


ScoreFunction = Callable[[Neighbourhood], "tuple[Tensor, int]"]
ErrorFunction = Callable[["Tensor", int, "Tensor | None", int], tuple[float, float]]


def share_of_same_label(neighbourhood: Neighbourhood) -> tuple[Tensor, int]:
    """Count the neighbours that have the sample's label, of ``order``."""
    return neighbourhood.same_label, neighbourhood.order


@dataclass(frozen=True)
class ScoreDefinition:
    """One score: its names, definition and computation.

    ``key``: its key in ``to_dict()``, ``run.json`` and :attr:`Separation.scores`. ``title``: its name in text.
    ``explanation``: its definition as a phrase, with ``{sample}`` and ``{order}`` to fill in.

    ``function``: returns a number for each sample, (N,) bool, integer or float64, and the number by which to divide it.
    The score is the mean. The number must be monotonic in ``same_label``, because ties are judged by both ends of its
    range. ``has_orders``: whether the number of neighbours can be chosen; if not, the score uses the nearest one.
    ``neighbours``: whether neighbours are samples or class means. ``errors``: the function that returns the standard
    error and the bootstrap error; by default :func:`~zoo_harness.separation.standard_errors.errors_of_mean`.
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
        """Its function in :mod:`zoo` and its key in the torchmetrics metric, such as ``high_order_si``."""
        return self.title.lower().replace("-", "_").replace(" ", "_")

    @property
    def heading(self) -> str:
        """Its name above a narrow column, such as ``high-order``."""
        return self.title.removesuffix(" SI")

    def orders(self, largest: int) -> range:
        """Return the orders that the score has in a search for ``largest`` neighbours."""
        return range(1, largest + 1 if self.has_orders else 2)

    def explain(self, order: int, sample: str = "sample") -> str:
        """Return the definition of the score of this order as a phrase; ``sample``: what a sample is.

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
        "fraction of {sample}s whose nearest class mean is that of their own class",
        share_of_same_label,
        neighbours="centres",
    ),
]
"""The first entry is the headline: tables show its standard error."""
