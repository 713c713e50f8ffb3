"""Scores a checkpoint again, and says of each figure of its record whether it comes out here too.

The network, the head and the preprocessing are those of the record; so is the data, unless the user names another. A
figure can be compared only on the same images, which the fingerprint of their pixels and labels tells. Where they are
the same, a figure is a count of images over their number, and what another processor or library rounds otherwise may
turn one image in a thousand (in bf16 one in two hundred), or one of fewer: more than that is not rounding.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field

from zoo.backbone import FeatureLayer
from zoo.dataset import AS_FOUND, Dataset, ReadOptions
from zoo.errors import UsageError
from zoo_harness.checkpoints.loaded_model import LoadedModel
from zoo_harness.compute.context import ComputeContext
from zoo_harness.compute.precision import repeatable
from zoo_harness.data.batches import ImageSource
from zoo_harness.data.decoding import ImageData
from zoo_harness.data.loading import RunData, load_data
from zoo_harness.data.transform import BatchTransform
from zoo_harness.evaluation.split_evaluation import SplitEvaluation, evaluate_split
from zoo_harness.evaluation.split_scores import split_separation
from zoo_harness.models.feature_pooling import check_layer
from zoo_harness.models.trainable_model import TrainableModel
from zoo_harness.models.tuned_network import TunedNetwork
from zoo_harness.records.run import (
    DatasetRecord,
    HostRecord,
    Measurement,
    Record,
    RunRecord,
    ScoreMeasurement,
    SplitRecord,
    SplitSeparation,
    now,
)
from zoo_harness.records.subset import Subset
from zoo_harness.runs import provenance
from zoo_harness.separation.scores import SCORES
from zoo_harness.util.atomic_files import write_text
from zoo_harness.util.progress import Progress

RESCORE = "rescore.json"
IMAGES_PER_ROUNDED = {"fp32": 1000, "bf16": 200}
Verdict = Literal["reproduced", "not reproduced", "not comparable", "not recorded"]
SplitName = Literal["evaluation", "test"]


@dataclass(frozen=True)
class RescoreRequest:
    """What is scored, on what; ``layer`` is the one whose features the Separation Index looks at."""

    model: LoadedModel
    dataset: Dataset
    argument: str | None
    data_dir: Path | None
    subset: Subset
    layer: FeatureLayer
    compute: ComputeContext
    options: ReadOptions = AS_FOUND


class Figure(Record):
    """One figure as recorded and as found here, each with one standard error (for SI scores by bootstrap).

    ``images_apart``: their difference in images, if the images are the same; soft SI counts halves. ``errors_apart``:
    their difference in standard errors, as if the images were not the same.
    """

    name: str
    split: SplitName
    recorded: Measurement | ScoreMeasurement | None
    found: Measurement | ScoreMeasurement
    images_apart: Annotated[float, Field(ge=0)] | None
    errors_apart: float | None
    verdict: Verdict


class RescoreRecord(Record):
    """One re-scoring, whole; ``same_data`` says of each split whether its images are those of the record."""

    format: Literal["blockzoo rescore 1"] = "blockzoo rescore 1"
    time: str
    checkpoint: str
    commit: str | None
    checkpoint_sha256: str | None
    dataset: DatasetRecord
    layer: str
    device: str
    precision: Literal["fp32", "bf16"]
    recorded_device: str
    recorded_precision: Literal["fp32", "bf16"]
    versions: dict[str, str]
    host: HostRecord
    same_data: dict[SplitName, bool]
    figures: tuple[Figure, ...]

    @property
    def reproduced(self) -> bool:
        """Whether no figure that can be compared came out otherwise."""
        return all(figure.verdict != "not reproduced" for figure in self.figures)

    def to_json(self) -> str:
        """The record as indented JSON, ending in a newline."""
        return self.model_dump_json(indent=2) + "\n"

    def write(self, folder: Path) -> Path:
        """Write ``rescore.json``; give its path."""
        write_text(folder / RESCORE, self.to_json())
        return folder / RESCORE


def load_scored_data(request: RescoreRequest, progress: Progress) -> RunData:
    """The data to score on, whose classes are the checkpoint's.

    Raises :class:`~zoo.errors.UsageError` where they are others, or in another order.
    """
    record = request.model.record
    progress.stage(f"loading {request.dataset.title}", 0)
    data = load_data(
        request.dataset,
        request.argument,
        request.data_dir,
        request.subset,
        BatchTransform(record.settings.preprocessing),
        with_test=record.dataset.test is not None,
        options=request.options,
    )
    _check_classes(record.dataset.classes, data.record)
    return data


def rescore(
    request: RescoreRequest, data: RunData, named: str, commit: str | None, progress: Progress
) -> RescoreRecord:
    """Score the checkpoint on the data that :func:`load_scored_data` gave, and compare.

    ``named`` and ``commit`` say what was scored. Raises a :class:`~zoo.errors.ZooError` where the network does not run
    on these images, or its scored layer is not what the record declares.
    """
    record, compute = request.model.record, request.compute
    tuned = _ready(request, data)
    figures: list[Figure] = []
    same_data: dict[SplitName, bool] = {}
    with repeatable(compute.deterministic):
        for split, images, there, recorded in _splits(data, record):
            same_data[split] = there.fingerprint == recorded.fingerprint
            progress.stage(f"scoring the {split} split", len(images))
            source = ImageSource(images, compute.device)
            trainable = TrainableModel.whole(tuned, source, source, len(record.dataset.classes))
            found = evaluate_split(trainable, source, compute, request.layer, progress)
            progress.stage(f"separation of the {split} split, {len(images):,} images", 0)
            separation = split_separation(found.collected, images.labels, compute)
            figures += _figures(request, split, found, separation, same_data=same_data[split])
    return RescoreRecord(
        time=now(),
        checkpoint=named,
        commit=commit,
        checkpoint_sha256=record.checkpoint_sha256,
        dataset=data.record,
        layer=request.layer.path,
        device=str(compute.device),
        precision=compute.precision,
        recorded_device=record.settings.device,
        recorded_precision=record.settings.precision,
        versions=provenance.versions(),
        host=provenance.host(compute.device),
        same_data=same_data,
        figures=tuple(figures),
    )


def _check_classes(classes: tuple[str, ...], data: DatasetRecord) -> None:
    if data.classes == classes:
        return
    told = f"the checkpoint has {len(classes)} classes, {data.title} has {len(data.classes)}"
    for number, (one, other) in enumerate(zip(classes, data.classes, strict=False)):
        if one != other:
            told += f"; class {number} is {one!r:.80} in the checkpoint and {other!r:.80} in the data"
            break
    advice = "give the data set it was made for, or fine-tune a backbone on this one"
    raise UsageError(f"{told}: they must be the same, in the same order; {advice}")


def _ready(request: RescoreRequest, data: RunData) -> TunedNetwork:
    request.model.check_that_it_runs()
    heads = tuple(head.path for head in request.model.record.settings.head.parts)
    tuned = TunedNetwork(request.model.network, heads, heads)
    tuned.network.to(memory_format=torch.channels_last)  # as it was scored at first
    example, _labels = data.evaluation.batch(np.arange(1), request.compute.device)
    check_layer(tuned, request.layer, example)
    return tuned


def _splits(data: RunData, record: RunRecord) -> Iterator[tuple[SplitName, ImageData, SplitRecord, SplitRecord]]:
    yield "evaluation", data.evaluation, data.record.evaluation, record.dataset.evaluation
    if data.test is not None and data.record.test is not None and record.dataset.test is not None:
        yield "test", data.test, data.record.test, record.dataset.test


def _figures(
    request: RescoreRequest,
    split: SplitName,
    found: SplitEvaluation,
    separation: SplitSeparation | None,
    *,
    same_data: bool,
) -> Iterator[Figure]:
    record = request.model.record
    precisions = {record.settings.precision, request.compute.precision}
    per_rounded = min(IMAGES_PER_ROUNDED[precision] for precision in precisions)
    accuracy = record.results.accuracy if split == "evaluation" else record.results.test_accuracy
    yield compared("accuracy", split, accuracy, found.accuracy, same_data=same_data, per_rounded=per_rounded)
    if separation is None:
        return
    recorded, here = _recorded_scores(record, request.layer, split), separation.scores
    for each in SCORES:
        if each.key in here:
            before = recorded.get(each.key)
            yield compared(each.title, split, before, here[each.key], same_data=same_data, per_rounded=per_rounded)


def _recorded_scores(record: RunRecord, layer: FeatureLayer, split: SplitName) -> dict[str, ScoreMeasurement]:
    after = record.results.separation_after
    found: SplitSeparation | None = getattr(after, split) if after is not None and after.layer == layer.path else None
    return found.scores if found is not None else {}


def compared(
    name: str,
    split: SplitName,
    recorded: Measurement | None,
    found: Measurement,
    *,
    same_data: bool,
    per_rounded: int = IMAGES_PER_ROUNDED["fp32"],
) -> Figure:
    """Compare a figure with its record; one image in ``per_rounded``, and at least one, may differ by rounding.

    >>> recorded, found = (Measurement(value=v, standard_error=0.02, n=500) for v in (0.8, 0.798))
    >>> compared("accuracy", "evaluation", recorded, found, same_data=True).verdict
    'reproduced'
    >>> round(compared("accuracy", "evaluation", recorded, found, same_data=False).errors_apart, 2)
    -0.07
    """
    apart = None
    verdict: Verdict = "not recorded"
    if recorded is not None and (not same_data or recorded.n != found.n):
        verdict = "not comparable"
    elif recorded is not None:
        apart = round(abs(found.value - recorded.value) * found.n, 3)
        verdict = "reproduced" if apart <= max(1, found.n // per_rounded) else "not reproduced"
    return Figure(
        name=name,
        split=split,
        recorded=recorded,
        found=found,
        images_apart=apart,
        errors_apart=_errors_apart(recorded, found),
        verdict=verdict,
    )


def error_of(measurement: Measurement) -> float:
    """Return the standard error to show: for a score of the SI family that by bootstrap."""
    return measurement.bootstrap_error if isinstance(measurement, ScoreMeasurement) else measurement.standard_error


def _errors_apart(recorded: Measurement | None, found: Measurement) -> float | None:
    if recorded is None:
        return None
    error = math.hypot(error_of(recorded), error_of(found))
    return (found.value - recorded.value) / error if error else None
