"""Score a checkpoint again for ``zoo.rescore``, and compare each metric with the recorded value.

The record determines the network, the head, the preprocessing and, unless the caller gives other data, the data. A
metric is compared only if a fingerprint of pixels and labels proves that the images are the same.

Accuracy and separation scores are fractions of images. Another processor or library may round differently, which may
change the result of single images. A difference of one image, or of up to one image in 1000 (in bf16, one in 200),
counts as rounding. A larger difference means that the metric was not reproduced.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field

from zoo.backbone import FeatureLayer
from zoo_harness.checkpoints.load import load_folder
from zoo_harness.checkpoints.loaded_model import LoadedModel
from zoo_harness.compute.allocator import keep_freed_memory
from zoo_harness.compute.context import ComputeContext
from zoo_harness.compute.device import choose_device
from zoo_harness.compute.precision import isolated, repeatable
from zoo_harness.data.batches import ImageSource
from zoo_harness.data.decoding import ImageData
from zoo_harness.data.loading import RunData
from zoo_harness.data.subset import smallest_class
from zoo_harness.evaluation.accuracy_details import accuracy_details
from zoo_harness.evaluation.predictions import Predictions, describe_predictions, write_predictions
from zoo_harness.evaluation.split_evaluation import collect_predictions, evaluate_split
from zoo_harness.evaluation.split_scores import check_settings, split_separation
from zoo_harness.models.feature_pooling import check_layer
from zoo_harness.models.trainable_model import TrainableModel
from zoo_harness.models.tuned_network import TunedNetwork
from zoo_harness.records.options import RescoreOptions
from zoo_harness.records.run import (
    DEFAULT_SEPARATION,
    AccuracyDetails,
    DatasetRecord,
    HostRecord,
    Measurement,
    PredictionsRecord,
    Record,
    RunRecord,
    ScoreMeasurement,
    SeparationSettings,
    SettingsRecord,
    SplitRecord,
    SplitSeparation,
    now,
)
from zoo_harness.runs import provenance
from zoo_harness.runs.directory import claim_folder
from zoo_harness.runs.opening import RescoreRequest
from zoo_harness.runs.plan import compute_context
from zoo_harness.runs.reporter import Reporter, report_reading
from zoo_harness.runs.request import Checkpoint
from zoo_harness.separation.scores import SCORES
from zoo_harness.util.atomic_files import write_text

RESCORE = "rescore.json"
IMAGES_PER_ROUNDED = {"fp32": 1000, "bf16": 200}
Verdict = Literal["reproduced", "not reproduced", "not comparable", "not recorded"]
SplitName = Literal["evaluation", "test"]


class Figure(Record):
    """A metric as the run recorded it and as the new scoring found it, each with a standard error.

    The standard error of a separation score comes from a bootstrap. ``images_apart`` is the difference as a number of
    images, if both scorings used the same images. Soft SI counts half images. ``errors_apart`` is the difference
    divided by the standard error that it would have for independent samples. ``split_name`` is the name of the split in
    tables, such as ``held-out``.
    """

    name: str
    split: SplitName
    split_name: str | None = None
    recorded: Measurement | ScoreMeasurement | None
    found: Measurement | ScoreMeasurement
    images_apart: Annotated[float, Field(ge=0)] | None
    errors_apart: float | None
    verdict: Verdict


class RescoreRecord(Record):
    """The record of scoring a checkpoint again, as ``rescore.json`` stores it.

    ``same_data`` says for each split whether the images equal the images that the record describes. ``epoch`` is the
    epoch of the weights, or ``None`` if an earlier version did not record it. ``predictions`` describes the file
    ``predictions.safetensors`` beside this record, which has the predictions for the last split of ``same_data``.
    """

    format: Literal["blockzoo rescore 1"] = "blockzoo rescore 1"
    time: str
    checkpoint: str
    commit: str | None
    checkpoint_sha256: str | None
    epoch: int | None = None
    dataset: DatasetRecord
    layer: str
    separation: SeparationSettings = DEFAULT_SEPARATION
    recorded_separation: SeparationSettings = DEFAULT_SEPARATION
    device: str
    precision: Literal["fp32", "bf16"]
    recorded_device: str
    recorded_precision: Literal["fp32", "bf16"]
    versions: dict[str, str]
    host: HostRecord
    same_data: dict[SplitName, bool]
    figures: tuple[Figure, ...]
    predictions: PredictionsRecord | None = None

    @property
    def reproduced(self) -> bool:
        """Whether every metric that could be compared was reproduced."""
        return all(figure.verdict != "not reproduced" for figure in self.figures)

    def to_json(self) -> str:
        """The record as indented JSON, ending in a newline."""
        return self.model_dump_json(indent=2) + "\n"


def rescore_checkpoint(request: RescoreRequest, reporter: Reporter) -> RescoreRecord:
    """Score a checkpoint, compare each metric with the recorded value, and write ``rescore.json`` if ``out`` is given.

    Raises a :class:`~zoo.errors.ZooError` if the network does not run on the images, or if its scored layer differs
    from the record's declaration.
    """
    keep_freed_memory()
    options, checkpoint = request.options, request.checkpoint
    with isolated(), repeatable(options["deterministic"]):
        reporter.stage("loading the checkpoint", 0)
        device = choose_device(options["device"])
        model = load_folder(request.opened, device, checkpoint=options["checkpoint"])
        record, settings = model.record, model.record.settings
        compute = _compute_context(settings, options, reporter)
        scoring = _scoring(settings, options)
        data = request.data.load(
            settings.preprocessing,
            reporter,
            with_test=record.dataset.test is not None,
            value_range=record.dataset.read_range,
        )
        warnings = (*data.warnings, *check_settings(scoring, data.record))
        report_reading(data.record.reading, warnings, reporter)
        evaluation = data.record.evaluation
        named = "" if options["checkpoint"] is None else f", epoch {model.epoch},"
        reporter.log(
            f"{checkpoint.called}{named} on {data.record.title}: {evaluation.images:,} {evaluation.split} images, "
            f"{data.record.subset}, {compute.device}"
        )
        found, predictions = _rescored(checkpoint, model, data, request.layer, scoring, compute, reporter)
    if options["out"] is not None:
        folder = claim_folder(options["out"], "rescore")
        write_predictions(predictions, folder)
        write_text(folder / RESCORE, found.to_json())
    return found


def _compute_context(settings: SettingsRecord, options: RescoreOptions, reporter: Reporter) -> ComputeContext:
    """Return the recorded device settings, precision and seed of the run, changed by the given options."""
    values = {**options, "predict": settings.predict}
    if options["seed"] is None:
        values["seed"] = settings.seed
    if options["precision"] is None:
        values["precision"] = settings.precision
        if settings.precision == "bf16" and choose_device(options["device"]).type != "cuda":
            reporter.warn("the run used bf16, which needs a CUDA device; zoo scores it in fp32 on this device")
            values["precision"] = "fp32"
    return compute_context(values)


def _scoring(settings: SettingsRecord, options: RescoreOptions) -> SeparationSettings:
    """Return the recorded settings of the separation scores, changed by the given options."""
    given = {name: options[name] for name in SeparationSettings.model_fields}  # type: ignore[literal-required]
    return settings.separation.model_copy(update={name: value for name, value in given.items() if value is not None})


def _rescored(
    checkpoint: Checkpoint,
    model: LoadedModel,
    data: RunData,
    layer: FeatureLayer,
    scoring: SeparationSettings,
    compute: ComputeContext,
    reporter: Reporter,
) -> tuple[RescoreRecord, Predictions]:
    record, tuned = model.record, _tuned(model, data, layer, compute)
    precisions = record.settings.precision, compute.precision
    per_rounded = min(IMAGES_PER_ROUNDED[precision] for precision in precisions)
    figures: list[Figure] = []
    same_data: dict[SplitName, bool] = {}
    predictions: Predictions | None = None
    for split, images, here, recorded in _splits(data, record):
        same_data[split] = same = here.fingerprint == recorded.fingerprint
        name = data.record.name_of(here)
        reporter.stage(f"scoring the {name} split", len(images))
        source = ImageSource(images, compute.device)
        trainable = TrainableModel.whole(tuned, source, source, len(record.dataset.classes))
        scored = evaluate_split(trainable, source, compute, layer, reporter)
        reporter.stage(f"separation of the {name} split, {len(images):,} images", 0)
        separation = split_separation(scored.collected, images.labels, compute, scoring)
        found = _figures(scored.accuracy, separation)
        before = _recorded_figures(record, layer, split, separation)
        measured = [
            compared(each, split, before.get(each), value, same_data=same, per_rounded=per_rounded)
            for each, value in found.items()
        ]
        predictions = collect_predictions(scored, images.labels, here, len(record.dataset.classes))
        details = accuracy_details(images.labels, scored.predictions, data.record.classes, data.shared[here.split])
        measured += _detail_figures(record, split, details, here, same_data=same, per_rounded=per_rounded)
        figures += [figure.model_copy(update={"split_name": name}) for figure in measured]
    assert predictions is not None  # noqa: S101 - _splits() always yields the evaluation split
    made = RescoreRecord(
        time=now(),
        checkpoint=checkpoint.called,
        commit=checkpoint.commit,
        checkpoint_sha256=record.checkpoint_sha256,
        epoch=model.epoch,
        dataset=data.record,
        layer=layer.path,
        separation=scoring,
        recorded_separation=record.settings.separation,
        device=str(compute.device),
        precision=compute.precision,
        recorded_device=record.settings.device,
        recorded_precision=record.settings.precision,
        versions=provenance.versions(),
        host=provenance.host(compute.device),
        same_data=same_data,
        figures=tuple(figures),
        predictions=describe_predictions(predictions),
    )
    return made, predictions


def _tuned(model: LoadedModel, data: RunData, layer: FeatureLayer, compute: ComputeContext) -> TunedNetwork:
    model.check_that_it_runs()
    heads = tuple(head.path for head in model.record.settings.head.parts)
    tuned = TunedNetwork(model.network, heads, heads)
    tuned.network.to(memory_format=torch.channels_last)  # training used the same memory format
    example, _labels = data.evaluation.batch(np.arange(1), compute.device)
    check_layer(tuned, layer, example)
    return tuned


def _splits(data: RunData, record: RunRecord) -> Iterator[tuple[SplitName, ImageData, SplitRecord, SplitRecord]]:
    yield "evaluation", data.evaluation, data.record.evaluation, record.dataset.evaluation
    if data.test is not None and data.record.test is not None and record.dataset.test is not None:
        yield "test", data.test, data.record.test, record.dataset.test


def _recorded_figures(
    record: RunRecord, layer: FeatureLayer, split: SplitName, found: SplitSeparation | None
) -> dict[str, Measurement]:
    """Return a split's recorded metrics by name; omit scores whose layer or settings differ from those in ``found``.

    ``found`` holds the separation scores of the new scoring.
    """
    results, after = record.results, record.results.separation_after
    accuracy = results.accuracy if split == "evaluation" else results.test_accuracy
    recorded = getattr(after, split) if after is not None and after.layer == layer.path else None
    if found is None or recorded is None or _scaled(found) != _scaled(recorded):
        return _figures(accuracy, None)
    figures = _figures(accuracy, recorded)
    other = {each.title for each in SCORES if each.has_orders and found.order != recorded.order}
    return {name: figure for name, figure in figures.items() if name not in other}


def _scaled(scores: SplitSeparation) -> tuple[str, str]:
    return scores.metric, scores.normalize


def _figures(accuracy: Measurement | None, separation: SplitSeparation | None) -> dict[str, Measurement]:
    """Return the accuracy and the separation scores of a split in one dictionary by name."""
    figures: dict[str, Measurement] = {} if accuracy is None else {"accuracy": accuracy}
    scores = {} if separation is None else separation.scores
    return figures | {each.title: scores[each.key] for each in SCORES if each.key in scores}


def _detail_figures(
    record: RunRecord,
    split: SplitName,
    found: AccuracyDetails,
    here: SplitRecord,
    *,
    same_data: bool,
    per_rounded: int,
) -> Iterator[Figure]:
    """Compare the accuracy on images that are not also training images, and compare the mean per-class accuracies.

    The mean per-class accuracies are compared only if the split lacks some classes.
    """
    results = record.results
    earlier = results.accuracy_details if split == "evaluation" else results.test_accuracy_details
    if found.unshared is not None and found.shared:
        recorded = earlier.unshared if earlier else None
        name = f"accuracy without {found.shared:,} images also in train"
        yield compared(name, split, recorded, found.unshared, same_data=same_data, per_rounded=per_rounded)
    if not found.absent:
        return
    classes, smallest = len(here.per_class), smallest_class(here)
    present = classes - len(found.absent)
    before = (earlier.per_class, earlier.per_class_of_all) if earlier else (None, None)
    for name, averaged, recorded, measured in (
        (f"{present:,} classes present", present, before[0], found.per_class),
        (f"all {classes:,} classes", classes, before[1], found.per_class_of_all),
    ):
        yield compared(
            f"mean per-class accuracy, {name}",
            split,
            recorded,
            measured,
            same_data=same_data,
            per_rounded=per_rounded,
            images=averaged * smallest,
        )


def compared(
    name: str,
    split: SplitName,
    recorded: Measurement | None,
    found: Measurement,
    *,
    same_data: bool,
    per_rounded: int = IMAGES_PER_ROUNDED["fp32"],
    images: int | None = None,
) -> Figure:
    """Compare a metric with its recorded value; a difference of one image in ``per_rounded`` counts as rounding.

    A difference of a single image always counts as rounding. ``images`` says that one image changes the metric by at
    most 1 / ``images``; the default is the number of scored images.

    >>> recorded, found = (Measurement(value=v, standard_error=0.02, n=500) for v in (0.8, 0.798))
    >>> compared("accuracy", "evaluation", recorded, found, same_data=True).verdict
    'reproduced'
    >>> round(compared("accuracy", "evaluation", recorded, found, same_data=False).errors_apart, 2)
    -0.07
    """
    images_apart, errors_apart = None, None
    verdict: Verdict = "not recorded"
    if recorded is not None:
        difference, error = found.value - recorded.value, math.hypot(error_of(recorded), error_of(found))
        errors_apart = difference / error if error else None
        if not same_data or recorded.n != found.n:
            verdict = "not comparable"
        else:
            images_apart = round(abs(difference) * (images or found.n), 3)
            verdict = "reproduced" if images_apart <= max(1, found.n // per_rounded) else "not reproduced"
    measured = {"recorded": recorded, "found": found, "images_apart": images_apart, "errors_apart": errors_apart}
    return Figure(name=name, split=split, verdict=verdict, **measured)


def error_of(measurement: Measurement) -> float:
    """Return the standard error that tables show: the bootstrap error for separation scores."""
    return measurement.bootstrap_error if isinstance(measurement, ScoreMeasurement) else measurement.standard_error
