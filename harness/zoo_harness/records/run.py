"""The record of one run: every setting, version and digest, and the results with their uncertainty.

zoo writes the record when the run starts, after every epoch and when the run ends; the record is therefore valid even
if the process is killed. Model cards are made from the record. The record contains no secrets: it holds the command,
but not the environment variables.
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
LARGEST_RECORD = 32 * 2**20  # bytes; the record of a run on 21,000 classes has about two million bytes
CALIBRATION_BINS = 15  # number of equally wide bins for the expected calibration error
IN_MEMORY = "memory"  # source of a zoo.in_memory dataset, optionally followed by a space and the torch dataset's class

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
    """Base class of all records: unknown keys are errors, and instances are immutable."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @field_validator("*", mode="after")
    @classmethod
    def _escape_bytes_of_paths(cls, value: object) -> object:
        """Escape path bytes that are not UTF-8, because a JSON file cannot hold them."""
        if isinstance(value, str):
            return value if value.isascii() else encodable(value)
        if isinstance(value, tuple) and value and isinstance(value[0], str):
            return tuple(map(encodable, value))
        return value


class WeightsRecord(Record):
    """The initial weights of a run; ``source`` is a Hub id, a Python package, a path or ``random``.

    ``declared`` is true if the run started from the weights that the backbone's plugin declares. The declared licence,
    pretraining data and accuracy apply only to declared weights.

    If the run started from a checkpoint that an earlier run saved beside its main checkpoint, ``epoch`` is the epoch of
    that checkpoint. ``main_sha256`` is then the digest of the earlier run's main checkpoint, which has the tensors that
    the earlier run did not train.
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
    """The backbone as its plugin declares it, and the entry point, distribution and version of the plugin.

    ``source_sha256`` is the digest of the Python files of the packages that define the network, except torch, timm and
    torchvision; ``None`` without other packages. ``derived_from`` is the library whose network the record was derived
    from, if zoo made the backbone's record automatically.
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
    """One split of a run's dataset: the number of images in total and per class, and a digest of pixels and labels.

    ``pixels`` is the shape of one decoded uint8 image: (height, width) or (height, width, 3). If ``resized`` is true,
    the shape is the network's input size, because image files are resized and cropped; otherwise it is the image's own.
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
                f"per_class has {sum(self.per_class):,} images in total; expected {self.images:,}, the value of images"
            )
        return self


def _check_rising(values: tuple[float, float]) -> tuple[float, float]:
    if not values[0] < values[1]:
        raise ValueError(f"{values} is not increasing; expected the smaller number first")
    return values


class DuplicatesRecord(Record):
    """Duplicate images: images of ``split`` whose pixels equal an image of split ``other``, or another of ``split``.

    ``images`` is the number of duplicates among the ``of`` images of ``split``. ``other_label`` is the number of
    duplicates whose equal image has a different label. The examples are the first pairs of equal images, as file
    names, or as indices in the split if the images have no file names.
    """

    split: str
    other: str
    images: Number
    of: Number
    other_label: Count
    example: tuple[str, str]
    example_other_label: tuple[str, str] | None = None

    def in_words(self) -> str:
        """Return the number of duplicates and the examples, on one line.

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
    """The dataset of a run, with digests of the images that the run read; ``subset`` describes the images it used.

    ``test`` is the test split for the final evaluation, if the evaluation split was held out of the training split.
    ``reading`` describes how the files were read, such as which folder is which split. ``skipped`` counts the skipped
    files by kind. ``value_range`` is the lowest and highest value of the range from which images of more than 8 bits
    per channel were scaled; ``None`` without such images. ``duplicates`` lists equal images within and between the
    splits; ``None`` in old records, for which duplicates were not counted.
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
        """The name of the evaluation split: ``held-out`` if the split was held out of the training split."""
        return "held-out" if self.val_fraction is not None else self.evaluation.split

    def name_of(self, split: SplitRecord) -> str:
        """Return the name that tables and cards show for the evaluation split or the test split."""
        return split.split if split is self.test else self.evaluation_name

    @property
    def read_range(self) -> ValueRange | None:
        """The value range from which images of more than 8 bits were scaled, or ``None`` without such images."""
        return ValueRange(*self.value_range) if self.value_range else None

    @property
    def argument_is_lost(self) -> bool:
        """Whether the argument was the path of a local repository copy; published records keep only the copy's name."""
        return self.name == "hf" and "/" not in (self.argument or "")

    @property
    def in_memory(self) -> bool:
        """Whether the dataset came from ``zoo.in_memory``, so that no command can load it again."""
        return self.source.partition(" ")[0] == IN_MEMORY


class ParametersRecord(Record):
    """Numbers of parameters of the network; ``trained_names`` are the tensors that received gradients.

    ``moving_layers`` is the number of frozen BatchNorm layers whose stored statistics change during training, and
    ``moving_buffers`` is the number of statistics tensors that change.
    """

    total: Count
    trained: Count
    trained_without_head: Count
    trained_names: tuple[str, ...]
    moving_layers: Count = 0
    moving_buffers: Count = 0


class SeparationSettings(Record):
    """The settings of the Separation Index: the order, the distance, and the scaling of the features.

    ``order`` is the number of neighbours for high-order, soft and anti SI; SI and centre SI do not depend on it.
    """

    order: Annotated[int, Field(gt=0)] = 2
    metric: Literal["euclidean", "cosine"] = "euclidean"
    normalize: Literal["none", "zscore"] = "none"

    def in_words(self) -> str:
        """Describe the settings that differ from the defaults, as a phrase; ``""`` if all settings are the defaults.

        >>> SeparationSettings(order=5, normalize="zscore").in_words(), SeparationSettings().in_words()
        ('z-scored features, order 5', '')
        """
        return ", ".join(self._scaled() + ([f"order {self.order}"] if self.order != SeparationSettings().order else []))

    def features_in_words(self) -> str:
        """Describe the distance, and the scaling of the features, as a phrase.

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
    """All settings of a run that can change a result.

    ``normalization`` is the source of mean and std in ``preprocessing``. ``default_input_size`` is the height and width
    that the input would have without ``--input-size``, if the option chose another size. ``frozen_batchnorm`` is
    ``eval`` if frozen BatchNorm layers use their stored statistics. ``train`` means that frozen BatchNorm layers use
    the statistics of each training batch, and update the stored statistics.
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
    """The properties of the machine that affect speed and rounding."""

    platform: str
    processor: str
    cores: Count
    memory_gib: NotNegative
    accelerator: str | None
    processes: Number = 1


class Measurement(Record):
    """A value in [0, 1] with its binomial standard error over the ``n`` images of the split (not over seeds)."""

    value: Proportion
    standard_error: StandardError
    n: Number


def measure(value: float, n: int) -> Measurement:
    """Return a proportion of ``n`` images with its binomial standard error.

    >>> measure(0.5, 100).standard_error
    0.05
    """
    return Measurement(value=value, standard_error=math.sqrt(value * (1 - value) / n), n=n)


class ScoreMeasurement(Measurement):
    """One score of the Separation Index family with its standard errors, as in :class:`zoo.Score`.

    ``standard_error`` assumes independent images. ``bootstrap_error``, which tables show, resamples mutual nearest
    neighbours together. ``tied`` is the number of images for which a different choice among equally distant neighbours
    would change the score. The values of future scores may lie outside [0, 1].
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
    """The Separation Index scores of one split; each image is compared with all other images of the split.

    ``order`` is the number of neighbours for high-order, soft and anti SI: the requested number, or 1 for a split of
    two images. At order 1, high-order, soft and anti SI are ``None``, because they would repeat SI. ``metric`` and
    ``normalize`` are as in :class:`SeparationSettings`. ``duplicates`` is the number of images whose features equal the
    features of another image; ``duplicates_unlike`` is the number of images whose features equal an image of another
    class. Any further field is a score that ``zoo_harness.separation.scores`` defines, or defined when the record was
    written.
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
        """The scores that were computed, by key."""
        return {key: value for key, value in self if isinstance(value, ScoreMeasurement)}


class SeparationRecord(Record):
    """The Separation Index scores of one layer's features, by split; ``None`` for a split of one image.

    ``layer="raw pixels"`` stands for the images themselves: the features are the decoded uint8 values of an image.
    ``test`` is ``None`` before training, and if the run has no separate test split.
    """

    layer: str
    train: SplitSeparation | None
    evaluation: SplitSeparation | None
    test: SplitSeparation | None = None


class AccuracyDetails(Record):
    """Class averages of the accuracy on a split, and the accuracy without duplicated images.

    ``per_class`` is the mean per-class recall (balanced accuracy) over the classes that have images in the split.
    ``per_class_of_all`` is the mean over all classes, where a class without images counts as 0. ``absent`` lists the
    classes without images. ``shared`` is the number of images that also occur in an earlier split. The splits are
    ordered: training split, evaluation split, test split. ``unshared`` is the accuracy without the shared images;
    ``None`` if no image remains.
    """

    per_class: Measurement
    per_class_of_all: Measurement
    absent: tuple[str, ...] = ()
    shared: Count = 0
    unshared: Measurement | None = None


class EpochRecord(Record):
    """One line of ``history.jsonl``: accuracies in [0, 1], losses as means per image, and wall-clock seconds.

    ``evaluation_split`` is the name of the evaluated split, such as ``held-out`` or ``test``; old records lack it.
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
    """Return the first epoch with the highest evaluation accuracy; ``None`` if ``history`` is empty."""
    return max(history, key=lambda line: line.evaluation_accuracy, default=None)


class FrozenPartRecord(Record):
    """How the frozen layers ran: once per image, with cached outputs, or in every epoch.

    ``reason`` explains why the frozen layers ran in every epoch; ``None`` if their outputs were cached. ``kept`` lists
    names and shapes of the cached outputs of one image, and ``place`` is the storage of the cache. The run computed
    the outputs of ``computed`` images in ``seconds``; the outputs of the remaining images came from an earlier run.
    ``replayed`` is true only in old records, in which the network's own forward code ran in every epoch.
    """

    reason: str | None
    kept: tuple[str, ...] = ()
    bytes_per_image: Count | None = None
    place: str | None = None
    replayed: bool = False
    computed: Count | None = None
    seconds: Seconds | None = None


class ConfusedPair(Record):
    """A frequent mistake: ``images`` of the ``of`` images of class ``true`` were classified as ``predicted``."""

    true: str
    predicted: str
    images: Count
    of: Count


class ClassAccuracy(Record):
    """The accuracy on the images of one class."""

    name: str
    accuracy: Measurement


class ConfusionSummary(Record):
    """The most frequent mistakes and the worst classes of a split; ``confusion.json`` holds the whole matrix."""

    split: str
    pairs: tuple[ConfusedPair, ...]
    worst: tuple[ClassAccuracy, ...]


class PredictionsRecord(Record):
    """The digest of ``predictions.safetensors``, and metrics of these predictions on the images of ``split``.

    ``macro_f1`` is the mean F1 over the classes that occur as a label or as a prediction. ``calibration_error`` is the
    expected calibration error. To compute the calibration error, images are sorted by the probability of their
    prediction into ``calibration_bins`` equally wide bins; the differences between accuracy and mean probability are
    averaged over the images. The standard errors of ``macro_f1`` and ``calibration_error`` come from 200 bootstrap
    samples.

    ``auroc`` is the area under the ROC curve with DeLong's standard error; it needs two classes with at least two
    images each. ``top5`` is the fraction of images whose label is among the five likeliest classes, with its binomial
    standard error; it needs more than five classes.
    """

    sha256: Digest
    split: str
    macro_f1: Measurement
    calibration_error: Measurement
    calibration_bins: Number = CALIBRATION_BINS
    auroc: Measurement | None = None
    top5: Measurement | None = None


class LayerScores(Record):
    """The scores of one layer's features or of ``"raw pixels"``; ``vector`` is how the output became a vector."""

    path: str
    width: Count
    vector: str
    separation: SplitSeparation


class LayerCurveRecord(Record):
    """The Separation Index at every declared layer of the trained network on one split, raw pixels first."""

    split: str
    layers: Annotated[tuple[LayerScores, ...], Field(min_length=1)]

    @property
    def best(self) -> LayerScores:
        """The layer of the network with the highest Separation Index; the earliest of several equal layers."""
        layers = [layer for layer in self.layers if layer.path != "raw pixels"]
        return max(layers or self.layers, key=lambda layer: layer.separation.si.value)


class Results(Record):
    """The results of a run; a value is ``None`` until it is measured.

    Values of the test split stay ``None`` if the run has no separate test split. ``evaluation_split`` is the name of
    the split on which ``accuracy`` and ``evaluation_loss`` were measured, such as ``held-out`` or ``test``.
    ``best_epoch`` is the first epoch with the highest evaluation accuracy. Old records lack ``evaluation_split``,
    ``best_epoch`` and ``predictions``. ``accuracy_by_other_rule`` belongs to a network with two heads: the accuracy
    with the prediction rule (``mean`` or ``cls``) that the run did not use. ``diverged`` describes a training whose
    last epoch was far worse than guessing.

    ``accuracy_details``, ``test_accuracy_details``, ``confusion``, ``predictions`` and ``layer_curve`` exist only for
    finished runs. ``confusion``, ``predictions``, ``layer_curve`` and ``accuracy_by_other_rule`` belong to the split of
    the main accuracy. ``confusion`` is missing for more than 1,000 classes, and ``layer_curve`` is missing with
    ``--no-layer-curve``.
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
    """The weights after one epoch that a run saved in addition to its main checkpoint, and their scores.

    The file contains only the tensors that training changes; all other tensors are in ``model.safetensors``. The
    scores have the same meaning as in :class:`Results`; they are ``None`` in an unfinished run.
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
        """The path of the checkpoint's file, relative to the run directory."""
        return f"{CHECKPOINTS}/epoch-{self.epoch:04}.safetensors"

    @property
    def scores(self) -> dict[str, object]:
        """The scores by their field names in :class:`Results`."""
        return {name: value for name, value in self if name not in ("epoch", "sha256", "bytes")}


class RunRecord(Record):
    """The complete record of a run, as ``run.json`` stores it.

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
        """Whether timm's loader can rebuild the network: a timm architecture with linear heads and nothing bypassed."""
        linear = all(head.hidden is None and not head.bypass for head in self.settings.head.parts)
        return self.backbone.network_kind == "timm" and linear

    @property
    def keeps_best(self) -> bool:
        """Whether the main checkpoint holds the weights of the best epoch, which is known only for a finished run."""
        return self.settings.training.keep != "last" and self.status == "finished" and self.results.epochs_done > 0

    @property
    def main_epoch(self) -> int | None:
        """The epoch of the weights in ``model.safetensors``; ``None`` if an old version of zoo did not record it."""
        return self.results.best_epoch if self.keeps_best else self.results.epochs_done

    def of_checkpoint(self, kept: KeptCheckpoint) -> RunRecord:
        """Return this record with the scores and the digest of another checkpoint instead of the main checkpoint."""
        others = (
            "accuracy_by_other_rule", "accuracy_details", "test_accuracy_details", "confusion", "predictions",
            "layer_curve",
        )  # fmt: skip
        results = self.results.model_copy(update=dict.fromkeys(others) | kept.scores)
        return self.model_copy(update={"results": results, "checkpoint_sha256": kept.sha256})

    @property
    def headline(self) -> tuple[Measurement | None, SplitRecord]:
        """The main accuracy of the run and its split: the test split if it was measured, else the evaluation split."""
        test = self.dataset.test
        if self.results.test_accuracy is None or test is None:
            return self.results.accuracy, self.dataset.evaluation
        return self.results.test_accuracy, test

    def to_json(self) -> str:
        """Return the record as indented JSON with a final newline."""
        return self.model_dump_json(indent=2) + "\n"


def now() -> str:
    """Return the current UTC time as ISO 8601 text with seconds, the format that records use."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def read_run(directory: Path) -> RunRecord:
    """Read the record of a run directory (``run.json``) or of a published checkpoint (``zoo.json``).

    Raises :class:`~zoo.errors.UsageError` if neither file exists, and :class:`~zoo.errors.DataError` if the file is not
    a record of this version.
    """
    path = record_file(directory)
    try:
        content = _content(path, "run record")
    except OSError as error:
        message = f"{directory} is not a run directory: {path.name}: {error.strerror or error}"
        raise UsageError(message, code="not-a-run", path=path) from error
    return parse_run(content, path)


def parse_run(content: bytes, path: Path) -> RunRecord:
    """Parse the JSON text of a record; ``path`` names the file in a :class:`~zoo.errors.DataError`."""
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
    """Read the finished epochs of a run directory or published checkpoint; ``()`` if there is no history file.

    A last line without a line break is ignored, because the run is writing the line or was killed. Raises
    :class:`~zoo.errors.DataError` for an invalid history, such as one whose epochs are not 1, 2, 3, ...
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
    """Parse the content of ``history.jsonl``, as :func:`read_history` does; ``path`` names the file in errors."""

    def fault(epoch: EpochRecord, before: EpochRecord | None) -> str | None:
        expected = 1 if before is None else before.epoch + 1
        return None if epoch.epoch == expected else f"epoch {epoch.epoch:,}; expected {expected:,}"

    try:
        return parse_lines(content, EpochRecord, fault)
    except InvalidLineError as error:
        message = f"{path} is not a history: {error}"
        raise DataError(message, code="history-invalid", path=path, line=error.line) from error


def record_file(directory: Path) -> Path:
    """Return the path of ``run.json`` in a folder, or the path of ``zoo.json`` if only ``zoo.json`` exists."""
    published, own = directory / RECORD, directory / RUN
    there = os.path.exists  # unlike Path.exists, it does not raise for an impossible file name
    return published if there(published) and not there(own) else own


def _content(path: Path, kind: str) -> bytes:
    """Read a regular file of at most ``LARGEST_RECORD`` bytes; follow links, as in the cache of the Hub."""
    try:
        return read_regular(path, LARGEST_RECORD, follow_links=True)
    except ZooError as error:
        if error.code == "file-too-large":
            message = f"{path} is too large for a {kind}; a {kind.split()[-1]} has at most {LARGEST_RECORD:,} bytes"
            raise DataError(message, code="too-large", path=path) from error
        raise DataError(f"{path} is not a {kind}: {error}", code="not-a-file", path=path) from error
