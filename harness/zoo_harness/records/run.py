"""The record of one run: every setting, version and digest, and the results with their uncertainty.

It is written when the run starts, after every epoch and when it ends, so that it is also right after a kill. The card
is made from it. It holds no secret: the command is recorded, the environment is not.
"""

from __future__ import annotations

import datetime
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)

from zoo.backbone import DualHead, FeatureLayers, Head, Preprocessing, Training
from zoo.errors import DataError, UsageError, ZooError
from zoo.fields import LARGEST_COUNT, MOST_EPOCHS, Digest
from zoo.text import encodable, one_line
from zoo.value_range import ValueRange
from zoo_harness.records.file_names import CHECKPOINTS, HISTORY, RECORD
from zoo_harness.records.json_lines import InvalidLineError, parse_lines
from zoo_harness.records.normalization import NormalizationSource
from zoo_harness.util.safe_files import read_regular

RUN = "run.json"
LARGEST_RECORD = 32 * 2**20  # bytes; that of a run on 21,000 classes has about two million
CALIBRATION_BINS = 15  # of the calibration error, equally wide
IN_MEMORY = "memory"  # source of a dataset of zoo.in_memory; a space and the class of a torch dataset may follow

PlotName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,99}\.png$")]
Proportion = Annotated[float, Field(ge=0, le=1)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
StandardError = NotNegative
Seconds = NotNegative
Loss = NotNegative
Count = Annotated[int, Field(ge=0, le=LARGEST_COUNT)]
Number = Annotated[int, Field(gt=0, le=LARGEST_COUNT)]
Epochs = Annotated[int, Field(ge=0, le=MOST_EPOCHS)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]


class Record(BaseModel):
    """Base of all parts: unknown keys are errors, values do not change once made."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @field_validator("*", mode="after")
    @classmethod
    def _escape_bytes_of_paths(cls, value: object) -> object:
        """Escape what no file can hold as UTF-8, such as paths with other bytes."""
        if isinstance(value, str):
            return value if value.isascii() else encodable(value)
        if isinstance(value, tuple) and value and isinstance(value[0], str):
            return tuple(map(encodable, value))
        return value


class WeightsRecord(Record):
    """The initial weights; ``source`` is a Hub id, a distribution, a path or ``random``.

    ``declared``: whether they are those of the plugin, to which alone its licence, data and accuracy apply. ``epoch``:
    that of another run, which kept them beside its main checkpoint; ``main_sha256``: the digest of that main
    checkpoint, which has the tensors that the other run did not train.
    """

    kind: str
    declared: bool
    source: str
    filename: str | None
    revision: str | None
    sha256: Digest | None
    bytes: Count | None
    license: str | None
    epoch: Count | None = None
    main_sha256: Digest | None = None


class BackboneRecord(Record):
    """The backbone as its plugin declared it, and the plugin.

    ``source_sha256`` is the digest of the Python files of the network's packages other than torch, timm and
    torchvision; ``None`` if there are none. ``derived_from``: the library whose network the record was derived from, if
    nobody declared it by hand.
    """

    name: str
    title: str
    network: str
    network_kind: Literal["timm", "torchvision", "factory"]
    plugin: str
    distribution: str
    version: str
    paper: str | None
    pretrained_on: str | None
    imagenet_top1: Annotated[float, Field(ge=0, le=100)] | None
    features: FeatureLayers
    source_sha256: Digest | None = None
    derived_from: str | None = None


class SplitRecord(Record):
    """One split as it was used: number of images, in all and of each class, and a digest of pixels and labels.

    ``pixels`` is the shape of one decoded uint8 image, (height, width) or (height, width, 3): its own size, or if
    ``resized``, the network's input size, to which image files are resized and cropped.
    """

    split: str
    images: Count
    per_class: tuple[Count, ...]
    pixels: tuple[Number, ...]
    resized: bool
    fingerprint: str

    @model_validator(mode="after")
    def _classes_make_the_split(self) -> SplitRecord:
        if sum(self.per_class) != self.images:
            raise ValueError(
                f"per_class counts {sum(self.per_class):,} images; expected {self.images:,}, as images says"
            )
        return self


def _check_rising(values: tuple[float, float]) -> tuple[float, float]:
    if not values[0] < values[1]:
        raise ValueError(f"{values} does not rise")
    return values


class DuplicatesRecord(Record):
    """The images of ``split`` that equal one of ``other``, pixel by pixel; within one split, another image of it.

    ``images`` counts these images of ``split``, which has ``of``; ``other_label``: those for which such an image has
    another label. The examples are the first pairs, by file name, or else by place in the split as it was read.
    """

    split: str
    other: str
    images: Number
    of: Number
    other_label: Count
    example: tuple[str, str]
    example_other_label: tuple[str, str] | None = None

    def in_words(self) -> str:
        """Return the counts and the examples, on one line.

        >>> counts = {"images": 2, "of": 9, "other_label": 0}
        >>> DuplicatesRecord(split="test", other="train", example=("b/1", "a/1"), **counts).in_words()
        "2 of 9 images of split 'test' are also in split 'train', such as b/1 = a/1"
        """
        where = f"are also in split {self.other!r}" if self.split != self.other else "occur in it more than once"
        line = f"{self.images:,} of {self.of:,} images of split {self.split!r} {where}"
        line += f", such as {' = '.join(self.example)}"
        if self.example_other_label is not None:
            line += f"; {self.other_label:,} with another label, such as {' = '.join(self.example_other_label)}"
        return line


class DatasetRecord(Record):
    """The data, down to the digest of the images that were read; ``subset`` describes the part that was used.

    ``test`` is the test split that was kept for the end, if the evaluation split was held out of the training split.
    ``reading`` says how the files were read, such as which folder is which split; ``skipped`` counts the files that
    were left out, by kind. ``value_range``: the lowest and highest value that images of more than 8 bits per channel
    were scaled by; ``None`` if there were none.
    ``duplicates``: equal images within and between the splits; ``None`` in records from before they were counted.
    """

    name: str
    title: str
    argument: str | None
    hub_id: str | None
    source: str
    revision: str | None
    license: str | None
    citation: str | None
    classes: tuple[str, ...]
    train: SplitRecord
    evaluation: SplitRecord
    test: SplitRecord | None = None
    reading: tuple[str, ...] = ()
    skipped: dict[str, Count] = {}
    value_range: Annotated[tuple[FiniteFloat, FiniteFloat], AfterValidator(_check_rising)] | None = None
    duplicates: tuple[DuplicatesRecord, ...] | None = None
    per_class: Number | None
    limit: Number | None
    val_fraction: Proportion | None
    fraction: Proportion | None = None
    eval_limit: Number | None = None
    eval_fraction: Proportion | None = None
    subset: str

    @property
    def evaluation_name(self) -> str:
        """The name of the evaluation split: ``held-out`` if it was held out of the training split."""
        return "held-out" if self.val_fraction is not None else self.evaluation.split

    def name_of(self, split: SplitRecord) -> str:
        """Return the name under which figures of the evaluation or the test split are shown."""
        return split.split if split is self.test else self.evaluation_name

    @property
    def read_range(self) -> ValueRange | None:
        """The range that images of more than 8 bits were scaled by."""
        return ValueRange(*self.value_range) if self.value_range else None

    @property
    def argument_is_lost(self) -> bool:
        """Whether the argument was the path of a local copy of a repository; a published record has only its name."""
        return self.name == "hf" and "/" not in (self.argument or "")

    @property
    def in_memory(self) -> bool:
        """Whether the images came from ``zoo.in_memory``; no command can load them again."""
        return self.source.partition(" ")[0] == IN_MEMORY


class ParametersRecord(Record):
    """Numbers of parameters; ``trained_names`` are the tensors that received gradients.

    ``moving_layers``: number of frozen BatchNorm layers whose stored statistics training updates, and
    ``moving_buffers`` the number of these buffers.
    """

    total: Count
    trained: Count
    trained_without_head: Count
    trained_names: tuple[str, ...]
    moving_layers: Count = 0
    moving_buffers: Count = 0


class SeparationSettings(Record):
    """How the Separation Index is scored: order, distance, and the scaling of each feature before.

    ``order``: the number of neighbours of high-order, soft and anti SI. SI and centre SI do not depend on it.
    """

    order: Annotated[int, Field(gt=0)] = 2
    metric: Literal["euclidean", "cosine"] = "euclidean"
    normalize: Literal["none", "zscore"] = "none"

    def in_words(self) -> str:
        """Return the settings that are not the defaults, as a phrase; empty if all are.

        >>> SeparationSettings(order=5, normalize="zscore").in_words(), SeparationSettings().in_words()
        ('z-scored features, order 5', '')
        """
        return ", ".join(self._scaled() + ([f"order {self.order}"] if self.order != SeparationSettings().order else []))

    def features_in_words(self) -> str:
        """Return what is compared and how, as a phrase.

        >>> SeparationSettings(normalize="zscore").features_in_words()
        'Euclidean distance of z-scored features'
        """
        distance = "cosine" if self.metric == "cosine" else "Euclidean"
        return f"{distance} distance{' of z-scored features' if self.normalize == 'zscore' else ''}"

    def _scaled(self) -> list[str]:
        scaled = ["z-scored features"] if self.normalize == "zscore" else []
        return scaled + (["cosine distance"] if self.metric == "cosine" else [])


DEFAULT_SEPARATION = SeparationSettings()


class SettingsRecord(Record):
    """Every choice that can change a result.

    ``normalization``: the source of mean and std in ``preprocessing``.
    ``default_input_size``: height and width of the input without ``--input-size``, if that chose another size.
    ``frozen_batchnorm``: whether frozen BatchNorm layers normalise by their stored statistics (``eval``) or by those of
    each training batch, which then also update the stored ones (``train``).
    """

    recipe: str
    recipe_source: str | None
    unfreeze: tuple[str, ...]
    head: Head | DualHead
    training: Training
    preprocessing: Preprocessing
    normalization: NormalizationSource = "weights"
    predict: Literal["cls", "mean"]
    seed: Seed
    device: str
    precision: Literal["fp32", "bf16"]
    deterministic: bool
    compiled: bool = False
    kept_as: Literal["exact", "fp16", "bf16"] = "exact"
    separation: SeparationSettings = DEFAULT_SEPARATION
    default_input_size: tuple[Number, Number] | None = None
    frozen_batchnorm: Literal["eval", "train"] = "eval"
    evaluation_batch_size: Number


class HostRecord(Record):
    """The machine, as far as it affects speed and rounding."""

    platform: str
    processor: str
    cores: Count
    memory_gib: NotNegative
    accelerator: str | None
    processes: Number = 1


class Measurement(Record):
    """A value in [0, 1] and its binomial standard error over the ``n`` samples of the split, not over seeds."""

    value: Proportion
    standard_error: StandardError
    n: Number


def measure(value: float, n: int) -> Measurement:
    """Return a proportion of ``n`` samples with its binomial standard error.

    >>> measure(0.5, 100).standard_error
    0.05
    """
    return Measurement(value=value, standard_error=math.sqrt(value * (1 - value) / n), n=n)


class ScoreMeasurement(Measurement):
    """One score of the Separation Index family and its errors, as in :class:`zoo.Score`.

    ``standard_error`` assumes independent images. ``bootstrap_error``, which tables show, draws images that are each
    other's nearest neighbour together. ``tied``: number of images for which another choice among equally distant
    neighbours would change the score. Scores that are added later may leave [0, 1].
    """

    value: Annotated[float, Field(allow_inf_nan=False)]
    bootstrap_error: StandardError
    tied: Count


def _check_fraction(score: ScoreMeasurement) -> ScoreMeasurement:
    if not 0 <= score.value <= 1:
        raise ValueError(f"value {score.value:g} is not in [0, 1]")
    return score


Fraction = Annotated[ScoreMeasurement, AfterValidator(_check_fraction)]


class SplitSeparation(Record):
    """The scores of one split, each image compared with all others of that split.

    ``order``: that of high-order, soft and anti SI: the one asked for, or 1 for two images. At order 1 these three
    scores are ``None``, because they repeat SI. ``metric`` and ``normalize``: as in :class:`SeparationSettings`.
    ``duplicates``: number of images whose features equal those of another image;
    ``duplicates_unlike``: number of those that equal one of another class. Any further key is a score that
    ``zoo_harness.separation.scores`` lists, or listed when the record was written.
    """

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, ScoreMeasurement | None]

    order: Number
    metric: Literal["euclidean", "cosine"] = "euclidean"
    normalize: Literal["none", "zscore"] = "none"
    si: Fraction
    high: Fraction | None
    soft: Fraction | None
    anti: Fraction | None
    centre: Fraction
    duplicates: Count
    duplicates_unlike: Count

    @property
    def scores(self) -> dict[str, ScoreMeasurement]:
        """The measured scores by key."""
        return {key: value for key, value in self if isinstance(value, ScoreMeasurement)}


class SeparationRecord(Record):
    """The scores of one layer's features on each split; ``None`` for a split of one image.

    ``layer`` is ``"raw pixels"`` for the images themselves: the decoded uint8 values of each as one row. ``test`` is
    ``None`` before training, and if no test split was kept for the end.
    """

    layer: str
    train: SplitSeparation | None
    evaluation: SplitSeparation | None
    test: SplitSeparation | None = None


class AccuracyDetails(Record):
    """Other averages of the predictions on a split, beside its accuracy.

    ``per_class``: mean of the accuracies of the classes (mean per-class recall, balanced accuracy), over the classes
    that have images in the split; ``per_class_of_all``: over all classes, where a class without images counts as 0.
    They differ if some classes are ``absent``. ``shared``: number of images that are also in an earlier split (the
    evaluation split: in the training split; the test split: in either); ``unshared``: the accuracy without them,
    ``None`` if no image is left.
    """

    per_class: Measurement
    per_class_of_all: Measurement
    absent: tuple[str, ...] = ()
    shared: Count = 0
    unshared: Measurement | None = None


class EpochRecord(Record):
    """One line of ``history.jsonl``; accuracies in [0, 1], losses as means per image, wall-clock seconds.

    ``evaluation_split`` names the evaluated split, such as ``held-out`` or ``test``; ``None`` in earlier records.
    """

    epoch: Annotated[int, Field(gt=0, le=MOST_EPOCHS)]
    train_loss: Loss
    train_accuracy: Proportion
    evaluation_loss: Loss
    evaluation_accuracy: Proportion
    train_seconds: Seconds
    evaluation_seconds: Seconds
    evaluation_split: Annotated[str, StringConstraints(min_length=1, max_length=100)] | None = None


def best_epoch(history: Iterable[EpochRecord]) -> EpochRecord | None:
    """Return the first epoch of the highest accuracy on the evaluation split; ``None`` without epochs."""
    return max(history, key=lambda line: line.evaluation_accuracy, default=None)


class FrozenPartRecord(Record):
    """How the frozen part ran: once, with cached outputs, or in every epoch.

    ``reason`` says why it ran in every epoch, and is ``None`` otherwise. ``kept``: names and shapes of the outputs
    cached of an image; ``place``: their storage. ``replayed`` is true only in older records: there the network's own
    forward code ran in every epoch. The outputs of ``computed`` images were computed, in ``seconds``; those of the
    others came from an earlier run.
    """

    reason: str | None
    kept: tuple[str, ...] = ()
    bytes_per_image: Count | None = None
    place: str | None = None
    replayed: bool = False
    computed: Count | None = None
    seconds: Seconds | None = None


class ConfusedPair(Record):
    """A mistake: ``images`` of the ``of`` images of class ``true`` were classified as ``predicted``."""

    true: str
    predicted: str
    images: Count
    of: Count


class ClassAccuracy(Record):
    """The accuracy on the images of one class."""

    name: str
    accuracy: Measurement


class ConfusionSummary(Record):
    """The most frequent mistakes on a split and its worst classes; ``confusion.json`` has the whole matrix."""

    split: str
    pairs: tuple[ConfusedPair, ...]
    worst: tuple[ClassAccuracy, ...]


class PredictionsRecord(Record):
    """The digest of ``predictions.safetensors``, and measures made from these predictions for the images of ``split``.

    ``macro_f1``: mean of F1 over the classes that occur as label or prediction. ``calibration_error``: expected
    calibration error: the images are sorted into ``calibration_bins`` equally wide bins by the probability of their
    prediction, and the gaps between accuracy and mean probability of the bins are averaged over the images. The
    standard errors of these two come from 200 bootstrap draws of the images. ``auroc``: area under the ROC curve, with
    DeLong's standard error; for two classes of at least two images. ``top5``: share of images whose label is among the
    five likeliest classes, with its binomial standard error; for more than five classes.
    """

    sha256: Digest
    split: str
    macro_f1: Measurement
    calibration_error: Measurement
    calibration_bins: Number = CALIBRATION_BINS
    auroc: Measurement | None = None
    top5: Measurement | None = None


class LayerScores(Record):
    """Scores of one layer's features, or of ``"raw pixels"``; ``vector``: how its output became ``width`` numbers."""

    path: str
    width: Count
    vector: str
    separation: SplitSeparation


class LayerCurveRecord(Record):
    """The separation at every declared layer of the trained network on one split, raw pixels first."""

    split: str
    layers: Annotated[tuple[LayerScores, ...], Field(min_length=1)]

    @property
    def best(self) -> LayerScores:
        """The layer of the network with the highest Separation Index, the earliest if equal."""
        layers = [layer for layer in self.layers if layer.path != "raw pixels"]
        return max(layers or self.layers, key=lambda layer: layer.separation.si.value)


class Results(Record):
    """The measurements; ``None`` before they are made, and without a test split kept for the end.

    ``confusion`` and ``layer_curve`` describe the headline's split of a finished run; runs of more than 1,000 classes
    or with ``--no-layer-curve`` lack them. ``accuracy_by_other_rule``, on that split, is the accuracy of the prediction
    rule that was not chosen, ``mean`` or ``cls``, of a network with two heads. ``diverged`` describes a training whose
    last epoch was far worse than guessing. ``accuracy_details`` and ``test_accuracy_details`` belong to ``accuracy``
    and ``test_accuracy`` of a finished run. ``best_epoch``: the first one of the highest evaluation accuracy; earlier
    records lack it. ``evaluation_split`` names the split of ``accuracy`` and ``evaluation_loss``, such as ``held-out``
    or ``test``; ``None`` in earlier records. ``predictions`` describes those for the headline's split of a finished
    run; earlier records lack it.
    """

    epochs_done: Epochs
    evaluation_split: str | None = None
    best_epoch: Epochs | None = None
    evaluation_loss: Loss | None
    accuracy: Measurement | None
    train_accuracy: Measurement | None
    test_loss: Loss | None = None
    test_accuracy: Measurement | None = None
    accuracy_by_other_rule: Measurement | None = None
    accuracy_details: AccuracyDetails | None = None
    test_accuracy_details: AccuracyDetails | None = None
    separation_raw_pixels: SeparationRecord | None
    separation_before: SeparationRecord | None
    separation_after: SeparationRecord | None
    confusion: ConfusionSummary | None = None
    predictions: PredictionsRecord | None = None
    layer_curve: LayerCurveRecord | None = None
    frozen_part: FrozenPartRecord | None
    diverged: str | None = None
    mean_train_seconds: Seconds | None
    mean_evaluation_seconds: Seconds | None
    total_seconds: Seconds | None
    peak_memory_gib: NotNegative | None


class KeptCheckpoint(Record):
    """The weights after an epoch that a run kept beside its main checkpoint, and their scores.

    The file holds the tensors that training changes; all others are those of ``model.safetensors``. The scores are as
    in :class:`Results`; an unfinished run has none yet.
    """

    epoch: Annotated[int, Field(gt=0, le=MOST_EPOCHS)]
    sha256: Digest
    bytes: Count
    evaluation_loss: Loss | None = None
    accuracy: Measurement | None = None
    train_accuracy: Measurement | None = None
    test_loss: Loss | None = None
    test_accuracy: Measurement | None = None
    separation_after: SeparationRecord | None = None

    @property
    def file(self) -> str:
        """The path of the file in the run directory."""
        return f"{CHECKPOINTS}/epoch-{self.epoch:04}.safetensors"

    @property
    def scores(self) -> dict[str, object]:
        """The scores by their names in :class:`Results`."""
        return {name: value for name, value in self if name not in ("epoch", "sha256", "bytes")}


class RunRecord(Record):
    """The whole record of a run.

    >>> RunRecord.model_fields["status"].annotation
    typing.Literal['running', 'finished', 'interrupted', 'failed']
    """

    format: Literal["blockzoo run 1"] = "blockzoo run 1"
    status: Literal["running", "finished", "interrupted", "failed"]
    command: tuple[str, ...]
    started: str
    ended: str | None
    backbone: BackboneRecord
    weights: WeightsRecord
    dataset: DatasetRecord
    settings: SettingsRecord
    parameters: ParametersRecord
    versions: dict[str, str]
    host: HostRecord
    results: Results
    checkpoint_sha256: Digest | None
    checkpoints: tuple[KeptCheckpoint, ...] = ()
    plots: tuple[PlotName, ...] = ()

    @model_validator(mode="after")
    def _check_epochs(self) -> RunRecord:
        done, epochs = self.results.epochs_done, self.settings.training.epochs
        if done > epochs:
            raise ValueError(f"results.epochs_done is {done:,}; settings.training.epochs is {epochs:,}")
        return self

    @property
    def loads_in_timm(self) -> bool:
        """Whether timm's loader rebuilds this network: timm's architecture, linear heads, nothing bypassed."""
        linear = all(head.hidden is None and not head.bypass for head in self.settings.head.parts)
        return self.backbone.network_kind == "timm" and linear

    @property
    def keeps_best(self) -> bool:
        """Whether the checkpoint has the weights of the best epoch, which only a finished run has."""
        return self.settings.training.keep != "last" and self.status == "finished" and self.results.epochs_done > 0

    @property
    def main_epoch(self) -> int | None:
        """The epoch of the weights in ``model.safetensors``; ``None`` if an earlier version did not record it."""
        return self.results.best_epoch if self.keeps_best else self.results.epochs_done

    def of_checkpoint(self, kept: KeptCheckpoint) -> RunRecord:
        """Return the record with the scores and the digest of another checkpoint than the main one."""
        others = (
            "accuracy_by_other_rule", "accuracy_details", "test_accuracy_details", "confusion", "predictions",
            "layer_curve",
        )  # fmt: skip
        results = self.results.model_copy(update=dict.fromkeys(others) | kept.scores)
        return self.model_copy(update={"results": results, "checkpoint_sha256": kept.sha256})

    @property
    def headline(self) -> tuple[Measurement | None, SplitRecord]:
        """The main accuracy of the run and its split: the test split kept for the end, once measured."""
        test = self.dataset.test
        if self.results.test_accuracy is None or test is None:
            return self.results.accuracy, self.dataset.evaluation
        return self.results.test_accuracy, test

    def to_json(self) -> str:
        """Return the record as indented JSON, ending in a newline."""
        return self.model_dump_json(indent=2) + "\n"


def now() -> str:
    """Return the time in UTC, as records have it."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def read_run(directory: Path) -> RunRecord:
    """Read the record of a run directory, or of a published checkpoint: ``run.json``, else ``zoo.json``.

    Raises :class:`~zoo.errors.UsageError` if there is none, and :class:`~zoo.errors.DataError` if it is not a record of
    this version.
    """
    path = record_file(directory)
    try:
        content = _content(path, "run record")
    except OSError as error:
        message = f"{directory} is not a run directory: {path.name}: {error.strerror or error}"
        raise UsageError(message, code="not-a-run", path=path) from error
    return parse_run(content, path)


def parse_run(content: bytes, path: Path) -> RunRecord:
    """Return the record that the bytes hold; ``path`` is their file, for :class:`~zoo.errors.DataError`."""
    try:
        return RunRecord.model_validate_json(content)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        where = one_line(".".join(map(str, fault["loc"]))) or "the file"
        if where == "format" and str(fault["input"]).startswith("blockzoo run "):
            message = f"{path} is a run record of another version: format {fault['input']!r:.60}; try a newer zoo"
            raise DataError(message, code="record-of-another-version", path=path, field=where) from error
        message = f"{path} is not a run record of this version: {where:.200}: {fault['msg']:.200}"
        raise DataError(message, code="record-invalid", path=path, field=where) from error


def read_history(directory: Path) -> tuple[EpochRecord, ...]:
    """Read the epochs of a run directory or of a published checkpoint; none if no epoch was run.

    A last line without an end is ignored: the run is writing it, or was killed. Raises
    :class:`~zoo.errors.DataError` for a file that is not a history, such as one whose epochs are not 1, 2, 3, ...
    """
    path = directory / HISTORY
    try:
        content = _content(path, "history")
    except FileNotFoundError:
        return ()
    except OSError as error:
        message = f"{path} cannot be read: {error.strerror or error}"
        raise DataError(message, code="history-unreadable", path=path) from error
    return parse_history(content, path)


def parse_history(content: bytes, path: Path) -> tuple[EpochRecord, ...]:
    """Return the epochs that the bytes hold, as :func:`read_history` does; ``path`` is their file, for errors."""

    def fault(epoch: EpochRecord, before: EpochRecord | None) -> str | None:
        expected = 1 if before is None else before.epoch + 1
        return None if epoch.epoch == expected else f"epoch {epoch.epoch:,}; expected {expected:,}"

    try:
        return parse_lines(content, EpochRecord, fault)
    except InvalidLineError as error:
        message = f"{path} is not a history: {error}"
        raise DataError(message, code="history-invalid", path=path, line=error.line) from error


def record_file(directory: Path) -> Path:
    """Return the path of the record of a run or of a published checkpoint: ``zoo.json`` if only that exists."""
    published, own = directory / RECORD, directory / RUN
    there = os.path.exists  # Path's own raises for a name that no file can have
    return published if there(published) and not there(own) else own


def _content(path: Path, kind: str) -> bytes:
    """Read a file, but no device, nor more bytes than a record can have; links are followed, as in the Hub's cache."""
    try:
        return read_regular(path, LARGEST_RECORD, follow_links=True)
    except ZooError as error:
        if error.code == "file-too-large":
            message = f"{path} is not a {kind}: it has more bytes than a {kind.split()[-1]}: {LARGEST_RECORD:,}"
            raise DataError(message, code="too-large", path=path) from error
        raise DataError(f"{path} is not a {kind}: {error}", code="not-a-file", path=path) from error
