"""Compute separation scores of every layer of backbones and runs for ``zoo.layers``, and write them to a folder."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from zoo.backbone import Backbone, FeatureLayer, Preprocessing
from zoo.errors import UsageError
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
from zoo_harness.evaluation.split_scores import Scoring, class_warnings, recorded
from zoo_harness.models.build import build_network
from zoo_harness.models.input_size import load_network
from zoo_harness.records.comparison import PublishedScores
from zoo_harness.records.normalization import OF_WEIGHTS, Normalization
from zoo_harness.records.option_checks import check_order
from zoo_harness.records.run import RunRecord
from zoo_harness.reports.plots.layers import plot_layers
from zoo_harness.reports.plots.run import Finish
from zoo_harness.reports.published_separation import Network, scores_of_layers
from zoo_harness.reports.wording import normalization_in_words
from zoo_harness.runs import provenance
from zoo_harness.runs.directory import claim_folder
from zoo_harness.runs.plan import compute_context
from zoo_harness.runs.reporter import Reporter, report_reading
from zoo_harness.runs.request import LayerRequest
from zoo_harness.separation.result import Separation
from zoo_harness.util.atomic_files import write_text
from zoo_harness.util.progress import Progress


@dataclass(frozen=True)
class Subject:
    """A network whose layers are scored: a backbone with its weights, or the network of a run.

    ``weights`` records where the weights come from. ``normalization`` says what replaces the mean and standard
    deviation of ``preprocessing``. A run always keeps its own mean and standard deviation. ``value_range`` is the range
    of pixel values that a run on images of more than 8 bits was trained with, or ``None`` to derive the range from the
    data. ``record`` is the record of the run, or ``None`` for a backbone.
    """

    name: str
    network: nn.Module
    layers: tuple[FeatureLayer, ...]
    preprocessing: Preprocessing
    weights: dict[str, Any]
    normalization: Normalization
    value_range: ValueRange | None = None
    record: RunRecord | None = None


@dataclass(frozen=True)
class Curve:
    """The separation scores of one network's layers on one split, a description of the data, and published scores."""

    subject: Subject
    split: str
    data: dict[str, Any]
    layers: tuple[ScoredLayer, ...]
    published: tuple[PublishedScores, ...] = ()

    @property
    def title(self) -> str:
        """The name of this curve in the plot's legend."""
        return f"{self.subject.name}, {self.split}"

    def to_dict(self) -> dict[str, Any]:
        """Return the curve as a dictionary that can be written as JSON."""
        return {
            "subject": self.subject.name,
            "weights": self.subject.weights,
            "preprocessing": vars(self.subject.preprocessing),
            "normalization": self.subject.normalization.source,
            "split": self.split,
            "data": self.data,
            "layers": [layer.to_dict() for layer in self.layers],
            "published": [each.model_dump() for each in self.published],
        }


@dataclass(frozen=True)
class LayerScoring:
    """The result of ``zoo.layers``: separation scores of every layer, and the files that contain them.

    ``curves`` has one curve for each network and split. ``path`` is the file ``layers.json``, and ``plot`` is the file
    ``layers.png``. ``plot`` is ``None`` if only the last layer was scored, because a curve needs several layers.
    """

    curves: tuple[Curve, ...]
    scoring: Scoring
    record: dict[str, Any]
    path: Path
    plot: Path | None

    def to_dict(self) -> dict[str, Any]:
        """Return the content of ``layers.json`` as a dictionary."""
        return self.record


def score_all_layers(request: LayerRequest, progress: Reporter) -> LayerScoring:
    """Score every layer of every requested backbone and run, and write ``layers.json`` and ``layers.png``."""
    options = request.options
    keep_freed_memory()
    compute = compute_context(options)
    scoring = Scoring(
        options["order"],
        options["pool"] or options["last"],
        options["normalize"] == "zscore",
        options["metric"],
        options["memory"] * 2**20,
    )
    with isolated():
        progress.stage("loading weights", 0)
        subjects = [
            backbone_subject(*pair, compute.seed, request.normalization, request.input_size)
            for pair in request.backbones
        ]
        subjects += run_subjects(request.checkpoints, options["checkpoint"], options["epoch"])
        curves = tuple(_curves(subjects, request, compute, scoring, progress))
    return _written(curves, scoring, request)


def backbone_subject(
    backbone: Backbone,
    source: WeightSource,
    seed: int,
    normalization: Normalization,
    input_size: tuple[int, int] | None,
) -> Subject:
    """Build the network of a backbone, and load its weights."""
    torch.manual_seed(seed)
    tuning = backbone.tuning("default")
    own = build_network(backbone.name, backbone.network)
    network, record, preprocessing, default = load_network(own, backbone, source, tuning, input_size)
    remarks = ["random"] if record.kind == "random" else []
    remarks += ["{} x {}".format(*preprocessing.input_size)] if default else []
    name = f"{backbone.name} ({', '.join(remarks)})" if remarks else backbone.name
    return Subject(name, network, tuning.features, preprocessing, record.model_dump(), normalization)


def run_subjects(
    checkpoints: Sequence[OpenedCheckpoint], checkpoint: str | int | None, epoch: int | None
) -> Iterator[Subject]:
    """Yield the networks of runs; each is named by its folder, or by its path if two folders share a name."""
    names = [opened.directory.resolve().name for opened in checkpoints]
    for opened, folder in zip(checkpoints, names, strict=True):
        called = folder if names.count(folder) == 1 else str(opened.directory)
        model = load_folder(opened, checkpoint=checkpoint, epoch=epoch)
        record = model.record
        weights = {"kind": "run", "source": called, "epoch": model.epoch, "sha256": record.checkpoint_sha256}
        if (checkpoint, epoch) != (None, None):
            called = f"{called}, epoch {model.epoch}"
        layers, preprocessing = record.backbone.features, record.settings.preprocessing
        name = f"{record.backbone.name} ({called})"
        value_range = record.dataset.read_range
        yield Subject(name, model.network, layers, preprocessing, weights, OF_WEIGHTS, value_range, record)


def _curves(
    subjects: Sequence[Subject], request: LayerRequest, compute: ComputeContext, scoring: Scoring, progress: Reporter
) -> Iterator[Curve]:
    splits = request.options["split"]
    wanted = ("train", "test") if splits == "both" else (splits,)
    pixels: dict[str, Separation] = {}
    for each in subjects:
        data = replace(request, normalization=each.normalization).load(
            each.preprocessing,
            progress,
            request.balanced,
            train_only=splits == "train",
            value_range=each.value_range,
        )
        subject = replace(each, preprocessing=data.preprocessing)
        if each is subjects[0]:
            few = _class_warnings(data, wanted, scoring.order)
            report_reading(data.record.reading, (*data.warnings, *few), progress)
        if each.normalization.source != "weights":
            progress.log(f"{each.name}: {normalization_in_words(data.preprocessing, each.normalization.source)}")
        subject.network.to(compute.device)
        subject.network.to(memory_format=torch.channels_last)
        for split in wanted:
            yield _curve(subject, data, split, request, compute, scoring, progress, pixels)
        subject.network.to("cpu")


def _curve(
    subject: Subject,
    data: RunData,
    split: str,
    request: LayerRequest,
    compute: ComputeContext,
    scoring: Scoring,
    progress: Progress,
    pixels: dict[str, Separation],
) -> Curve:
    """Score the layers of one network on one split.

    ``pixels`` maps the fingerprint of a split to its raw-pixel scores, so that networks on the same images share these
    scores.
    """
    images, record = (data.train, data.record.train) if split == "train" else (data.evaluation, data.record.evaluation)
    check_order(scoring.order, split, len(images))
    progress.stage(f"{subject.name}: layers on the {split} split", len(images))
    chosen = subject.layers[-1:] if request.options["last"] else subject.layers
    known = pixels.get(record.fingerprint)
    layers = score_layers(subject.network, chosen, images, compute, scoring, progress, known)
    pixels[record.fingerprint] = layers[0].separation
    used = request.subset if split == "train" else request.subset.for_evaluation()
    subset = replace(used, eval_limit=None, eval_fraction=None).in_words((f"{split} split", smallest_class(record)))
    described = {"dataset": data.record.name, "subset": subset, **record.model_dump()}
    published: Iterable[PublishedScores] = ()
    if request.options["published"] and request.dataset.name == "cifar100":
        published = _published(subject, layers, split, subset, scoring)
    return Curve(subject, split, described, tuple(layers), tuple(published))


def _published(
    subject: Subject, layers: Sequence[ScoredLayer], split: str, subset: str, scoring: Scoring
) -> Iterator[PublishedScores]:
    """Yield the published scores of a network's layers, each beside the score that zoo measured."""
    backbone = subject.record.backbone.name if subject.record else subject.name.partition(" (")[0]
    pretrained = subject.weights.get("declared") is True and subject.weights["kind"] != "random"
    size = subject.preprocessing.input_size
    network = Network(backbone, pretrained, str(subject.weights["source"]), size, subject.record)
    scored = {layer.path: recorded(layer.separation) for layer in layers}
    part = None if subset == "all images" else subset
    yield from scores_of_layers(scored, split, part, pooled=scoring.pooled, network=network)


def _class_warnings(data: RunData, splits: Sequence[str], order: int) -> list[str]:
    """Return warnings about classes with too few images; raise an error if every class has a single image."""
    records = [data.record.train if split == "train" else data.record.evaluation for split in splits]
    if all(max(record.per_class) == 1 for record in records):
        raise UsageError(
            "nothing to score: every class has one image; expected two or more, because each image is compared with "
            "other images of its class; try --per-class 10",
            code="too-few-images",
            given=1,
        )
    return [line for record in records for line in class_warnings(record, data.record.classes, order)]


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
    path, plot = folder / "layers.json", None
    if not request.options["last"]:
        plot = folder / "layers.png"
        about = f"{data['dataset']}, {data['images']:,} images per curve; {scoring.in_words()}"
        # If no class has two images, every SI is 0 and the curve would show nothing.
        shown = [curve for curve in curves if max(curve.data["per_class"]) > 1]
        finish = Finish(svg=request.options["svg"])
        plot_layers([(curve.title, curve.layers) for curve in shown], about, plot, finish)
    write_text(path, json.dumps(record, indent=2, ensure_ascii=False) + "\n")
    return LayerScoring(curves, scoring, record, path, plot)
