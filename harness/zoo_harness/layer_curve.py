"""The Separation Index family layer by layer: which layers of a network separate the classes, and how far."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from zoo.backbone import FeatureLayer
from zoo_harness.data import ImageData
from zoo_harness.feature_input import Array, checked_features
from zoo_harness.layer_features import layer_features
from zoo_harness.separation import Separation, separation
from zoo_harness.train import Conditions, Progress

RAW_PIXELS = "raw pixels"


@dataclass(frozen=True)
class ScoredLayer:
    """One point of a curve: a layer's path, or ``"raw pixels"``, how wide its features are, and its scores.

    ``vector`` says how its output became one vector: as declared (``average``, ``cls``, ...) or ``flatten``.
    """

    path: str
    width: int
    vector: str
    kept_in: str
    separation: Separation

    def to_dict(self) -> dict[str, Any]:
        """Everything but what there is of every sample, for JSON."""
        plain = {"layer": self.path, "width": self.width, "vector": self.vector, "kept_in": self.kept_in}
        return {**plain, **self.separation.to_dict()}


@dataclass(frozen=True)
class Scoring:
    """How layers are scored: see :func:`zoo.separation` and :func:`~zoo_harness.layer_features.layer_features`."""

    order: int = 2
    pooled: bool = False
    normalize: bool = False
    metric: Literal["euclidean", "cosine"] = "euclidean"
    memory_budget: int = 2**30

    def in_words(self) -> str:
        """What changes the scores, for a reader.

        >>> Scoring(pooled=True, normalize=True).in_words()
        'layers pooled, euclidean distance, z-scored'
        """
        layers = "layers pooled" if self.pooled else "layers whole"
        return f"{layers}, {self.metric} distance{', z-scored' if self.normalize else ''}"


def score_layers(
    network: nn.Module,
    layers: Sequence[FeatureLayer],
    data: ImageData,
    conditions: Conditions,
    scoring: Scoring,
    progress: Progress,
    folder: Path | None = None,
) -> list[ScoredLayer]:
    """Scores of the raw pixels and of every layer, from one pass over the images.

    Features take up to half of the memory budget and then a file; the search takes the other half.
    """
    pixels = data.raw_pixels
    scores = score_features(pixels, data.labels, conditions, scoring)
    first = ScoredLayer(RAW_PIXELS, pixels.shape[1], "flatten", "memory", scores)
    return [first, *score_outputs(network, layers, data, conditions, scoring, progress, folder)]


def score_outputs(
    network: nn.Module,
    layers: Sequence[FeatureLayer],
    data: ImageData,
    conditions: Conditions,
    scoring: Scoring,
    progress: Progress,
    folder: Path | None = None,
    batch_size: int = 256,
) -> list[ScoredLayer]:
    """The same without the raw pixels; ``batch_size`` is the most images that run at a time."""
    half = scoring.memory_budget // 2
    curve = []
    with layer_features(
        network,
        layers,
        data,
        conditions,
        progress,
        pooled=scoring.pooled,
        memory_budget=half,
        folder=folder,
        batch_size=batch_size,
    ) as found:
        progress.stage("separation of the layers", 0)
        for kept in found:
            vector = kept.layer.pool if scoring.pooled else "flatten"
            scores = score_features(kept.features, data.labels, conditions, scoring)
            curve.append(ScoredLayer(kept.layer.path, kept.features.shape[1], vector, kept.kept_in, scores))
    return curve


def score_features(features: Array | Tensor, labels: Tensor, conditions: Conditions, scoring: Scoring) -> Separation:
    """The scores of features ``(N, D)``, on the run's device where they fit in half of the memory budget.

    >>> import torch
    >>> found = score_features(torch.eye(3), torch.tensor([0, 0, 1]), Conditions(torch.device("cpu")), Scoring())
    >>> found.order, found.n
    (2, 3)
    """
    half = scoring.memory_budget // 2
    if features.nbytes <= half:
        features, labels = checked_features(features).to(conditions.device), labels.to(conditions.device)
    return separation(
        features,
        labels,
        scoring.order,
        metric=scoring.metric,
        normalize=scoring.normalize,
        seed=conditions.seed,
        memory_budget=half,
    )
