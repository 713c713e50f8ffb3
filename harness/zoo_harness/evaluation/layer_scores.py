"""Scores the Separation Index family layer by layer: how well each layer of a network separates the classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from zoo.backbone import FeatureLayer
from zoo_harness.compute.context import ComputeContext
from zoo_harness.data.decoding import ImageData
from zoo_harness.evaluation.layer_features import layer_features
from zoo_harness.evaluation.split_evaluation import EVALUATION_BATCH_SIZE
from zoo_harness.evaluation.split_scores import Scoring, recorded, score_features
from zoo_harness.records.run import LayerCurveRecord, LayerScores, SplitSeparation
from zoo_harness.separation.result import Separation
from zoo_harness.separation.scores import DEFAULT_ORDER
from zoo_harness.util.progress import Progress

RAW_PIXELS = "raw pixels"


@dataclass(frozen=True)
class ScoredLayer:
    """Hold one point of a curve: a layer's path, or ``"raw pixels"``, the width of its features, and its scores.

    ``vector`` names the reduction of its output to one vector: as declared (``average``, ``cls``, ...) or ``flatten``.
    ``kept_in`` is ``"memory"`` or ``"disk"``.
    """

    path: str
    width: int
    vector: str
    kept_in: str
    separation: Separation

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the values of single samples, for JSON."""
        plain = {"layer": self.path, "width": self.width, "vector": self.vector, "kept_in": self.kept_in}
        return {**plain, **self.separation.to_dict()}


def score_layers(
    network: nn.Module,
    layers: Sequence[FeatureLayer],
    data: ImageData,
    compute: ComputeContext,
    scoring: Scoring,
    progress: Progress,
) -> list[ScoredLayer]:
    """Score the raw pixels and every layer, from one pass over the images.

    Features take up to half of the memory budget, then go to a file; the search takes the other half.
    """
    pixels = data.raw_pixels
    scores = score_features(pixels, data.labels, compute, scoring)
    first = ScoredLayer(RAW_PIXELS, pixels.shape[1], "flatten", "memory", scores)
    return [first, *_score_outputs(network, layers, data, compute, scoring, progress)]


def _score_outputs(
    network: nn.Module,
    layers: Sequence[FeatureLayer],
    data: ImageData,
    compute: ComputeContext,
    scoring: Scoring,
    progress: Progress,
    batch_size: int = 256,
) -> list[ScoredLayer]:
    curve = []
    with layer_features(network, layers, data, compute, scoring, progress, batch_size) as found:
        progress.stage("separation of the layers", 0)
        for kept in found:
            vector = kept.layer.pool if scoring.pooled else "flatten"
            scores = score_features(kept.features, data.labels, compute, scoring)
            curve.append(ScoredLayer(kept.layer.path, kept.features.shape[1], vector, kept.kept_in, scores))
    return curve


def run_curve(
    network: nn.Module,
    layers: Sequence[FeatureLayer],
    images: ImageData,
    split: str,
    compute: ComputeContext,
    progress: Progress,
    *,
    raw_pixels: SplitSeparation | None,
) -> LayerCurveRecord:
    """Score every layer on a split of at least two images, from one pass; ``raw_pixels``: scores measured before.

    Raises :class:`~zoo.errors.ZooError` if a declared layer does not run or its features do not fit on the disk.
    """
    scoring = Scoring(order=min(DEFAULT_ORDER, len(images) - 1), pooled=True)
    found = _score_outputs(network, layers, images, compute, scoring, progress, EVALUATION_BATCH_SIZE)
    scored = [
        LayerScores(path=layer.path, width=layer.width, vector=layer.vector, separation=recorded(layer.separation))
        for layer in found
    ]
    if raw_pixels is not None:
        width = images.raw_pixels.shape[1]
        scored.insert(0, LayerScores(path=RAW_PIXELS, width=width, vector="flatten", separation=raw_pixels))
    return LayerCurveRecord(split=split, layers=tuple(scored))
