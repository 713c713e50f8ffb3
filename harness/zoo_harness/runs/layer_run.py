"""Score every layer of backbones and runs for ``zoo.layers``, and write the scores down."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from zoo.backbone import Backbone, FeatureLayer, Preprocessing
from zoo.value_range import ValueRange
from zoo.weights import WeightSource
from zoo_harness.checkpoints.load import load_folder
from zoo_harness.checkpoints.opened import OpenedCheckpoint
from zoo_harness.compute.allocator import keep_freed_memory
from zoo_harness.compute.context import ComputeContext
from zoo_harness.compute.precision import isolated
from zoo_harness.data.loading import RunData
from zoo_harness.data.subset import smallest_class
from zoo_harness.evaluation.layer_scores import ScoredLayer, score_layers
from zoo_harness.evaluation.split_scores import Scoring
from zoo_harness.models.build import build_network
from zoo_harness.models.preprocessing import resolve_preprocessing
from zoo_harness.models.weights import load_weights
from zoo_harness.reports.plots.layers import plot_layers
from zoo_harness.runs import provenance
from zoo_harness.runs.directory import claim_folder
from zoo_harness.runs.opening import check_order
from zoo_harness.runs.plan import compute_context
from zoo_harness.runs.reporter import Reporter, report_reading
from zoo_harness.runs.request import LayerRequest
from zoo_harness.util.atomic_files import write_text
from zoo_harness.util.progress import Progress


@dataclass(frozen=True)
class Subject:
    """A network whose layers are scored: a backbone with its weights, or that of a run; ``weights`` is its record.

    ``value_range``: that of a run's images of more than 8 bits, ``None`` to choose it by the data.
    """

    name: str
    network: nn.Module
    layers: tuple[FeatureLayer, ...]
    preprocessing: Preprocessing
    weights: dict[str, Any]
    value_range: ValueRange | None = None


@dataclass(frozen=True)
class Curve:
    """The scored layers of one subject on one split, and the record of the data."""

    subject: Subject
    split: str
    data: dict[str, Any]
    layers: tuple[ScoredLayer, ...]

    @property
    def title(self) -> str:
        """The name of the curve in a legend."""
        return f"{self.subject.name}, {self.split}"

    def to_dict(self) -> dict[str, Any]:
        """Return the curve as plain data, for JSON."""
        return {
            "subject": self.subject.name,
            "weights": self.subject.weights,
            "preprocessing": vars(self.subject.preprocessing),
            "split": self.split,
            "data": self.data,
            "layers": [layer.to_dict() for layer in self.layers],
        }


@dataclass(frozen=True)
class LayerScoring:
    """The separation of every layer of the subjects, and the files it was written to.

    ``curves``: one for each subject and split. ``path``: ``layers.json``. ``plot``: ``layers.png``.
    """

    curves: tuple[Curve, ...]
    scoring: Scoring
    record: dict[str, Any]
    path: Path
    plot: Path

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain data, for JSON."""
        return self.record


def score_all_layers(request: LayerRequest, progress: Reporter) -> LayerScoring:
    """Score every layer of every subject, and write ``layers.json`` and ``layers.png``."""
    options = request.options
    keep_freed_memory()
    compute = compute_context(options)
    scoring = Scoring(
        options["order"], options["pool"], options["normalize"], options["metric"], options["memory"] * 2**20
    )
    with isolated():
        progress.stage("loading weights", 0)
        subjects = [_of_backbone(*pair, compute.seed) for pair in request.backbones]
        subjects += _of_runs(request.checkpoints)
        curves = tuple(_curves(subjects, request, compute, scoring, progress))
    return _written(curves, scoring, request)


def _of_backbone(backbone: Backbone, source: WeightSource, seed: int) -> Subject:
    torch.manual_seed(seed)
    network = build_network(backbone.name, backbone.network)
    record = load_weights(network, backbone, source)
    tuning = backbone.tuning("default")
    preprocessing = resolve_preprocessing(backbone, network, tuning)
    name = f"{backbone.name} (random)" if record.kind == "random" else backbone.name
    return Subject(name, network, tuning.features, preprocessing, record.model_dump())


def _of_runs(checkpoints: Sequence[OpenedCheckpoint]) -> Iterator[Subject]:
    """Yield the networks of finished runs, each named by its folder, or by its path if another has that name."""
    names = [opened.directory.resolve().name for opened in checkpoints]
    for opened, name in zip(checkpoints, names, strict=True):
        called = name if names.count(name) == 1 else str(opened.directory)
        model = load_folder(opened)
        record = model.record
        weights = {"kind": "run", "source": called, "sha256": record.checkpoint_sha256}
        layers, preprocessing = record.backbone.features, record.settings.preprocessing
        yield Subject(
            f"{record.backbone.name} ({called})",
            model.network,
            layers,
            preprocessing,
            weights,
            record.dataset.read_range,
        )


def _curves(
    subjects: Sequence[Subject], request: LayerRequest, compute: ComputeContext, scoring: Scoring, progress: Reporter
) -> Iterator[Curve]:
    splits = request.options["split"]
    for subject in subjects:
        data = request.load(
            subject.preprocessing,
            progress,
            request.balanced,
            train_only=splits == "train",
            value_range=subject.value_range,
        )
        if subject is subjects[0]:
            report_reading(data.record.reading, data.warnings, progress)
        subject.network.to(compute.device)
        subject.network.to(memory_format=torch.channels_last)
        for split in ("train", "test") if splits == "both" else (splits,):
            yield _curve(subject, data, split, request, compute, scoring, progress)
        subject.network.to("cpu")


def _curve(
    subject: Subject,
    data: RunData,
    split: str,
    request: LayerRequest,
    compute: ComputeContext,
    scoring: Scoring,
    progress: Progress,
) -> Curve:
    images, record = (data.train, data.record.train) if split == "train" else (data.evaluation, data.record.evaluation)
    check_order(scoring.order, split, len(images))
    progress.stage(f"{subject.name}: layers on the {split} split", len(images))
    layers = score_layers(subject.network, subject.layers, images, compute, scoring, progress)
    subset = request.subset.in_words((f"{split} split", smallest_class(record)))
    described = {"dataset": data.record.name, "subset": subset, **record.model_dump()}
    return Curve(subject, split, described, tuple(layers))


def _written(curves: tuple[Curve, ...], scoring: Scoring, request: LayerRequest) -> LayerScoring:
    record = {
        "format": "blockzoo layers 1",
        "command": list(request.command),
        "versions": provenance.versions(),
        "scoring": vars(scoring),
        "curves": [curve.to_dict() for curve in curves],
    }
    first, data = curves[0].subject.name.split()[0], curves[0].data
    folder = claim_folder(request.options["out"], f"layers-{first}-{request.dataset.name}")
    path, plot = folder / "layers.json", folder / "layers.png"
    about = f"{data['dataset']}, {data['images']:,} images a curve; {scoring.in_words()}"
    plot_layers([(curve.title, curve.layers) for curve in curves], about, plot)
    write_text(path, json.dumps(record, indent=2, ensure_ascii=False) + "\n")
    return LayerScoring(curves, scoring, record, path, plot)
