"""Measure how well a ranking score predicts the accuracies after fine-tuning: rank correlation, regret, p-value."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from zoo_harness.records.rank import Foresight

FEWEST, DRAWS = 5, 4000
_CHANCE_LEVEL = 0.05


def foresight(score: str, values: Sequence[float], accuracies: Sequence[float], seed: int = 0) -> Foresight:
    """Compare the values of a score with the accuracies of the same backbones; both sequences are in the same order.

<<<<<<< HEAD
    There must be at least one backbone, and all values must be finite. ``seed`` seeds the random permutations.
=======
    ``weighted_tau``, in [-1, 1], is Kendall's tau with hyperbolic weights, so that the top of the order counts most.
    ``kendall`` is tau-b. ``p`` is the share of random permutations whose weighted tau is at least as high as the
    score's. ``regret_1`` is the accuracy lost by choosing the backbone with the best score instead of the most accurate
    one. ``regret_3`` is the accuracy lost by choosing the most accurate of the three best-scored backbones.
    Correlations and ``p`` are ``None`` for fewer than 5 backbones or constant values; ``reason`` then gives the cause.
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
        """Whether more than 5 % of random orders agree with the accuracies at least as well as the score does."""
        return self.p is None or self.p > 0.05

    def to_dict(self) -> dict[str, Any]:
        """Return all fields and ``below_chance_level`` as a dictionary for JSON."""
        return self._asdict() | {"below_chance_level": self.below_chance_level}


def foresight(scores: Sequence[float], accuracies: Sequence[float], seed: int = 0) -> Foresight:
    """Compare the scores of backbones with their accuracies; both sequences are finite and in the same order.
>>>>>>> b2

    Weighted tau is computed by ``scipy.stats.weightedtau`` with its defaults, as in published tables.

    >>> round(foresight("si", [1, 2, 3, 4, 5], [2, 1, 3, 5, 4]).weighted_tau, 10)
    0.5729927007
    """
    from scipy.stats import kendalltau, weightedtau

    given, reached = np.asarray(values, np.float64), np.asarray(accuracies, np.float64)
    found: dict[str, Any] = {"score": score, "n": len(given), "reason": _why_none(given, reached)}
    found |= {f"regret_{most}": _regret(given, reached, most) for most in (1, 3)}
    if found["reason"]:
        return Foresight(**found, weighted_tau=None, kendall=None, p=None, below_chance_level=True)
    tau = float(weightedtau(given, reached).statistic)
    random = np.random.default_rng(seed)
    draws = [float(weightedtau(given, random.permutation(reached)).statistic) for _ in range(DRAWS)]
    # The order by the score counts as one more permutation, so p is never 0.
    p = (1 + sum(draw >= tau - 1e-12 for draw in draws)) / (1 + DRAWS)
    found |= {"weighted_tau": tau, "kendall": float(kendalltau(given, reached).statistic), "p": p}
    return Foresight(**found, below_chance_level=p > _CHANCE_LEVEL)


def _regret(scores: Any, accuracies: Any, most: int) -> float:
    """Return the accuracy lost if the best of the ``most`` best-scored backbones is chosen.

    Among equal scores, less accurate backbones come first, because the score cannot tell such backbones apart.
    """
    order = np.lexsort((accuracies, -scores))
    return float(accuracies.max() - accuracies[order[:most]].max())


def _why_none(scores: Any, accuracies: Any) -> str:
    if len(scores) < FEWEST:
        return f"{len(scores)} backbones are too few for a correlation; expected {FEWEST} or more"
    if math.isclose(scores.min(), scores.max()) or math.isclose(accuracies.min(), accuracies.max()):
        return "all values are equal"
    return ""
