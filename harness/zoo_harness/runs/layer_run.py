"""``zoo layers``, start to finish: resolve backbones and runs, load the data, score every layer, write it down."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from zoo.backbone import Backbone, FeatureLayer, Preprocessing
from zoo.dataset import ReadOptions
from zoo.errors import UsageError
from zoo.weights import WeightSource
from zoo_harness.checkpoints.load import load_folder
from zoo_harness.compute.allocator import keep_freed_memory
from zoo_harness.compute.context import ComputeContext
from zoo_harness.compute.device import choose_device
from zoo_harness.compute.isolation import isolated
from zoo_harness.compute.precision import check_precision
from zoo_harness.data.loading import RunData, load_data
from zoo_harness.data.subset import smallest_class
from zoo_harness.data.transform import BatchTransform
from zoo_harness.evaluation.layer_scores import ScoredLayer, score_layers
from zoo_harness.evaluation.split_scores import Scoring
from zoo_harness.models.build import build_network
from zoo_harness.models.preprocessing import resolve_preprocessing
from zoo_harness.models.weights import load_weights
from zoo_harness.records.subset import Subset
from zoo_harness.runs import provenance
from zoo_harness.runs.directory import claim_folder
from zoo_harness.runs.layer_request import LayerRequest
from zoo_harness.runs.reporter import Reporter
from zoo_harness.util.atomic_files import write_text
from zoo_harness.util.progress import Progress


@dataclass(frozen=True)
class Subject:
    """A network whose layers are scored: a backbone with its weights, or what a run made of one.

    ``weights`` says which they are, for the reader of the record.
    """

    name: str
    network: nn.Module
    layers: tuple[FeatureLayer, ...]
    preprocessing: Preprocessing
    weights: dict[str, Any]


@dataclass(frozen=True)
class Curve:
    """The scored layers of one subject on one split, and the data they were scored on."""

    subject: Subject
    split: str
    data: dict[str, Any]
    layers: tuple[ScoredLayer, ...]

    @property
    def title(self) -> str:
        """What a legend calls it."""
        return f"{self.subject.name}, {self.split}"

    def to_dict(self) -> dict[str, Any]:
        """The curve for JSON."""
        return {
            "subject": self.subject.name,
            "weights": self.subject.weights,
            "preprocessing": vars(self.subject.preprocessing),
            "split": self.split,
            "data": self.data,
            "layers": [layer.to_dict() for layer in self.layers],
        }


def of_backbone(backbone: Backbone, source: WeightSource, seed: int) -> Subject:
    """A backbone with the weights of a source."""
    torch.manual_seed(seed)
    network = build_network(backbone.name, backbone.network)
    record = load_weights(network, backbone, source)
    tuning = backbone.tuning("default")
    preprocessing = resolve_preprocessing(backbone, network, tuning)
    name = f"{backbone.name} (random)" if record.kind == "random" else backbone.name
    return Subject(name, network, tuning.features, preprocessing, record.model_dump())


def of_runs(directories: Sequence[Path]) -> list[Subject]:
    """What finished runs made of their backbones; each is called by its folder, or by its path where two agree."""
    names = [directory.resolve().name for directory in directories]
    return [
        _of_run(directory, name if names.count(name) == 1 else str(directory))
        for directory, name in zip(directories, names, strict=True)
    ]


def _of_run(directory: Path, called: str) -> Subject:
    model = load_folder(directory)
    record = model.record
    weights = {"kind": "run", "source": called, "sha256": record.checkpoint_sha256}
    name = f"{record.backbone.name} ({called})"
    return Subject(name, model.network, record.backbone.features, record.settings.preprocessing, weights)


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
    device = choose_device(options["device"])
    compute = ComputeContext(device, precision=check_precision(options["precision"], device), seed=options["seed"])
    scoring = Scoring(
        options["order"], options["pool"], options["normalize"], options["metric"], options["memory"] * 2**20
    )
    with isolated():
        progress.stage("loading weights", 0)
        subjects = [of_backbone(*pair, options["seed"]) for pair in request.backbones]
        subjects += of_runs(request.runs)
        scored = tuple(_curves(subjects, request, compute, scoring, progress))
    record = as_record(scored, scoring, request.command)
    first = request.backbones[0][0].name if request.backbones else subjects[0].name.split()[0]
    out = options["out"]
    folder = claim_folder(out and out.expanduser(), f"layers-{first}-{request.dataset.name}")
    return LayerScoring(scored, scoring, record, *write_curves(scored, record, folder))


def _curves(
    subjects: Sequence[Subject], request: LayerRequest, compute: ComputeContext, scoring: Scoring, progress: Reporter
) -> Iterator[Curve]:
    """The curve of every subject on every split that is wanted, one after the other."""
    splits, subset = request.options["split"], request.subset
    for subject in subjects:
        progress.stage(f"loading {request.dataset.title}", 0)
        balanced: Literal["train", "evaluation"] = "evaluation" if splits == "test" else "train"
        transform = BatchTransform(subject.preprocessing)
        data = load_data(
            request.dataset,
            request.argument,
            request.data_dir,
            subset,
            transform,
            balanced,
            options=ReadOptions.of(request.options),
        )
        if subject is subjects[0]:
            for line in data.record.reading:
                progress.log(line)
            for line in data.warnings:
                progress.warn(line)
        subject.network.to(compute.device)
        subject.network.to(memory_format=torch.channels_last)
        for split in ("train", "test") if splits == "both" else (splits,):
            yield _curve(subject, data, split, subset, compute, scoring, progress)
        subject.network.to("cpu")


def _curve(
    subject: Subject,
    data: RunData,
    split: str,
    subset: Subset,
    compute: ComputeContext,
    scoring: Scoring,
    progress: Progress,
) -> Curve:
    images, record = (data.train, data.record.train) if split == "train" else (data.evaluation, data.record.evaluation)
    if len(images) <= scoring.order:
        raise UsageError(
            f"order {scoring.order} needs more than {scoring.order} images, the {split} split has {len(images)}"
        )
    progress.stage(f"{subject.name}: layers on the {split} split", len(images))
    layers = score_layers(subject.network, subject.layers, images, compute, scoring, progress)
    in_words = subset.in_words((f"{split} split", smallest_class(record)))
    described = {"dataset": data.record.name, "subset": in_words, **record.model_dump()}
    return Curve(subject, split, described, tuple(layers))


def as_record(found: Sequence[Curve], scoring: Scoring, command: tuple[str, ...]) -> dict[str, Any]:
    """Everything that was found and how, for ``layers.json``."""
    return {
        "format": "blockzoo layers 1",
        "command": list(command),
        "versions": provenance.versions(),
        "scoring": vars(scoring),
        "curves": [curve.to_dict() for curve in found],
    }


def write_curves(found: Sequence[Curve], record: dict[str, Any], folder: Path) -> tuple[Path, Path]:
    """Write ``layers.json`` and ``layers.png`` into a folder."""
    from zoo_harness.reports.plots.layers import plot_layers

    folder.mkdir(parents=True, exist_ok=True)
    picture, written = folder / "layers.png", folder / "layers.json"
    first, scoring = found[0].data, record["scoring"]
    about = f"{first['dataset']}, {first['images']:,} images a curve; {Scoring(**scoring).in_words()}"
    plot_layers([(curve.title, curve.layers) for curve in found], about, picture)
    write_text(written, json.dumps(record, indent=2, ensure_ascii=False) + "\n")
    return written, picture
