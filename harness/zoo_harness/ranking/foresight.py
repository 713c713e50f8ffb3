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

    There must be at least one backbone, and all values must be finite. ``seed`` seeds the random permutations.

    Weighted tau is computed by ``scipy.stats.weightedtau`` with its defaults, as in published tables.

    >>> round(foresight("si", [1, 2, 3, 4, 5], [2, 1, 3, 5, 4]).weighted_tau, 10)
    0.5729927007
    """
    from scipy.stats import kendalltau, weightedtau

    given, reached = np.asarray(values, np.float64), np.asarray(accuracies, np.float64)
    found: dict[str, Any] = {"score": score, "n": len(given), "reason": _why_none(given, reached)}
    found |= {f"regret_{most}": _regret(given, reached, most) for most in (1, 3)}
    if found["reason"]:
        return Foresight(**found, weighted_tau=None, kendall=None, p=None, below_chance_level=None)
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
