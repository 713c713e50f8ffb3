"""How well a score foretold the accuracies after tuning: rank correlations, regret and chance level."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

FEWEST, DRAWS = 5, 4000


class Foresight(NamedTuple):
    """The agreement of a score with the accuracies of the same ``n`` backbones; higher is better for both.

    ``weighted_tau``: by hyperbolic weights, so that the top counts most, in [-1, 1]. ``kendall``: tau-b. ``p``: the
    share of permutations whose weighted tau is at least as high. ``regret_1`` and ``regret_3``: the accuracy lost by
    taking the score's best, or the best of its three best, in the unit of the accuracies. Correlations and ``p`` are
    ``None`` for fewer than 5 backbones or constant values; ``reason`` says so.
    """

    n: int
    weighted_tau: float | None
    kendall: float | None
    p: float | None
    regret_1: float
    regret_3: float
    reason: str = ""

    @property
    def below_chance_level(self) -> bool:
        """Whether one in twenty random orders does as well."""
        return self.p is None or self.p > 0.05

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data, for JSON."""
        return self._asdict() | {"below_chance_level": self.below_chance_level}


def foresight(scores: Sequence[float], accuracies: Sequence[float], seed: int = 0) -> Foresight:
    """Compare scores with accuracies of the same backbones, in the same order; at least one, all finite.

    Weighted tau is ``scipy.stats.weightedtau`` with its defaults, as in the published tables.

    >>> round(foresight([1, 2, 3, 4, 5], [2, 1, 3, 5, 4]).weighted_tau, 10)
    0.5729927007
    """
    from scipy.stats import kendalltau, weightedtau

    given, reached = np.asarray(scores, np.float64), np.asarray(accuracies, np.float64)
    first, third = (_regret(given, reached, most) for most in (1, 3))
    reason = _why_none(given, reached)
    if reason:
        return Foresight(len(given), None, None, None, first, third, reason)
    tau = float(weightedtau(given, reached).statistic)
    random = np.random.default_rng(seed)
    draws = [float(weightedtau(given, random.permutation(reached)).statistic) for _ in range(DRAWS)]
    # The observed order is one of the permutations, so that p is never 0.
    p = (1 + sum(draw >= tau - 1e-12 for draw in draws)) / (1 + DRAWS)
    return Foresight(len(given), tau, float(kendalltau(given, reached).statistic), p, first, third)


def _regret(scores: Any, accuracies: Any, most: int) -> float:
    """Return the accuracy lost; of equal scores the worst accuracy counts, because the score cannot tell them apart."""
    order = np.lexsort((accuracies, -scores))
    return float(accuracies.max() - accuracies[order[:most]].max())


def _why_none(scores: Any, accuracies: Any) -> str:
    if len(scores) < FEWEST:
        return f"{len(scores)} backbones are too few for a correlation; expected {FEWEST} or more"
    if math.isclose(scores.min(), scores.max()) or math.isclose(accuracies.min(), accuracies.max()):
        return "all values are equal"
    return ""
