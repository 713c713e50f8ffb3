"""Define ``RANK_SCORES``, the list of scores by which backbones are ranked, in the order in which tables show them.

Tables, records and commands iterate over this list. To add a score, write a pure function and append a
:class:`RankDefinition`. For every score, higher is better.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from zoo.errors import UsageError, check_choice
from zoo_harness.ranking.gaussian_mixture import n_leep
from zoo_harness.ranking.gaussian_overlap import gbc
from zoo_harness.ranking.h_score import h_score, shrunk_h_score
from zoo_harness.ranking.log_me import log_me
from zoo_harness.ranking.moments import Array, Moments
from zoo_harness.ranking.neighbour_votes import Neighbours, k_nearest, nearest_labels, si
from zoo_harness.ranking.ridge_probe import ridge_probe
from zoo_harness.ranking.score import RankScore
from zoo_harness.ranking.source_classes import leep, nce


@dataclass(eq=False)
class Evidence:
    """The inputs of ranking scores; sums and neighbours are computed when a score first needs them.

    ``features``, (N, D) float32, are the inputs of the backbone's original classifier. ``labels``, (N,), are class
    indices. ``logits``, (N, S), are the original classifier's outputs, or ``None`` if the backbone has no classifier.
    """

    features: Array
    labels: Array
    logits: Array | None = None

    @cached_property
    def moments(self) -> Moments:
        """Sums over the features, from which several scores are computed."""
        return Moments.of(self.features, self.labels)

    @cached_property
    def neighbours(self) -> Neighbours:
        """The labels of the images nearest to each image."""
        return nearest_labels(self.features, self.labels)

    @property
    def source(self) -> tuple[Array, Array] | None:
        """The logits of the original classifier with the labels, or ``None`` if the backbone has no classifier."""
        return None if self.logits is None else (self.logits, self.labels)


@dataclass(frozen=True)
class RankDefinition:
    """One ranking score: its names, its definition and the function that computes it.

    ``key`` is the score's name in options and in ``rank.json``, ``heading`` its name in tables. ``explanation`` defines
    the score in a phrase. ``needs`` names the property of :class:`Evidence` that is passed to ``function``. ``share``
    says whether the score is a share of images in [0, 1] with per-image hits. ``default`` says whether the score is
    computed if the user selects no scores.
    """

    key: str
    heading: str
    explanation: str
    needs: Literal["neighbours", "moments", "source"]
    function: Callable[[Any], RankScore]
    share: bool = False
    default: bool = True

    def compute(self, evidence: Evidence) -> RankScore:
        """Return the score of a backbone, or a score without a value if the backbone lacks a needed input."""
        part = getattr(evidence, self.needs)
        return RankScore.blank("it has no source classifier") if part is None else self.function(part)


RANK_SCORES: list[RankDefinition] = [
    RankDefinition(
        "si", "SI", "fraction of images whose nearest other image has their label", "neighbours", si, share=True
    ),
    RankDefinition(
        "knn", "5-NN", "leave-one-out accuracy of the vote of the 5 nearest images", "neighbours", k_nearest, share=True
    ),
    RankDefinition(
        "ridge", "ridge", "leave-one-out accuracy of a linear (ridge) classifier", "moments", ridge_probe, share=True
    ),
    RankDefinition("logme", "LogME", "log evidence of a Bayesian linear model, nats per image", "moments", log_me),
    RankDefinition("hscore", "H", "shrunk H-score: between-class over total variance", "moments", shrunk_h_score),
    RankDefinition("gbc", "GBC", "how little classes overlap as normal distributions, nats", "moments", gbc),
    RankDefinition(
        "leep", "LEEP", "log-likelihood of the labels given the source classes, nats", "source", lambda s: leep(*s)
    ),
    RankDefinition(
        "nce", "NCE", "minus the entropy of the labels given the source class, nats", "source", lambda s: nce(*s)
    ),
    RankDefinition(
        "plainh", "plain H", "H-score without shrinkage; needs N > D + 1", "moments", h_score, default=False
    ),
    RankDefinition(
        "nleep", "N-LEEP", "LEEP with a Gaussian mixture for classes; slow", "moments", n_leep, default=False
    ),
]
"""All ranking scores. By default, the first score sorts the table, and its per-image hits determine the tiers."""


def choose_scores(given: str | Iterable[str] | None) -> tuple[RankDefinition, ...]:
    """Return the definitions of the given score keys, or of the default scores, in the order of ``RANK_SCORES``.

    ``given`` is a list of keys or a string of keys separated by commas. The key ``"all"`` selects every score.

    >>> [score.key for score in choose_scores("ridge,si")]
    ['si', 'ridge']
    """
    if given is None:
        return tuple(score for score in RANK_SCORES if score.default)
    keys = [key.strip() for key in given.split(",")] if isinstance(given, str) else list(given)
    known = [score.key for score in RANK_SCORES]
    for key in keys:
        if key != "all":
            check_choice("--scores", key, known)
    if not keys:
        raise UsageError("--scores is empty; expected " + ", ".join(known), code="option-empty", option="scores")
    return tuple(score for score in RANK_SCORES if "all" in keys or score.key in keys)


def with_hits(chosen: tuple[RankDefinition, ...], sort: str | None = None) -> tuple[RankDefinition, ...]:
    """Return the chosen scores and, if none of them has per-image hits, one that has, because tiers need hits.

    The added score is ``sort``, or SI if ``sort`` is not the key of a score with hits.

    >>> [score.key for score in with_hits(choose_scores("logme,gbc"))]
    ['si', 'logme', 'gbc']
    """
    if any(score.share for score in chosen):
        return chosen
    key = sort if any(score.key == sort and score.share for score in RANK_SCORES) else RANK_SCORES[0].key
    return tuple(score for score in RANK_SCORES if score.key == key or score in chosen)
