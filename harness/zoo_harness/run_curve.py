"""The separation at every declared layer of a network that a run has trained, for the run's record and its card.

The layers are pooled as they are declared, so that the last one's scores are those of the run's features, and the
images run in the batches of every other evaluation.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import nn

from zoo.backbone import FeatureLayer
from zoo_harness.data import ImageData
from zoo_harness.layer_curve import RAW_PIXELS, Scoring, score_outputs
from zoo_harness.layer_plot import plot_layers
from zoo_harness.plots import shown_name
from zoo_harness.run_record import LayerCurveRecord, LayerScores, SplitSeparation
from zoo_harness.split_separation import ORDER, recorded
from zoo_harness.train import EVALUATION_BATCH_SIZE, Conditions, Progress


def run_curve(
    network: nn.Module,
    layers: Sequence[FeatureLayer],
    images: ImageData,
    split: str,
    conditions: Conditions,
    progress: Progress,
    *,
    raw_pixels: SplitSeparation | None,
) -> LayerCurveRecord:
    """The curve of at least two images of a split, from one pass over them; ``raw_pixels``: scores that are there.

    Raises :class:`~zoo.errors.ZooError` where a declared layer does not run or its features find no room.
    """
    scoring = Scoring(order=min(ORDER, len(images) - 1), pooled=True)
    found = score_outputs(network, layers, images, conditions, scoring, progress, batch_size=EVALUATION_BATCH_SIZE)
    scored = [
        LayerScores(path=layer.path, width=layer.width, vector=layer.vector, separation=recorded(layer.separation))
        for layer in found
    ]
    if raw_pixels is not None:
        width = images.raw_pixels.shape[1]
        scored.insert(0, LayerScores(path=RAW_PIXELS, width=width, vector="flatten", separation=raw_pixels))
    return LayerCurveRecord(split=split, layers=tuple(scored))


def plot_run_curve(curve: LayerCurveRecord, backbone: str, path: Path) -> None:
    """Write the curve as a PNG."""
    images = curve.layers[-1].separation.si.n
    about = f"{images:,} images, split {shown_name(curve.split, '?')}; layers pooled, euclidean distance"
    plot_layers([(f"{backbone}, after training", curve.layers)], about, path)
