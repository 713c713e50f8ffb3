"""Format the settings and results of a run record as text, for model cards and summaries."""

from __future__ import annotations

import re
from collections.abc import Iterable

from zoo.backbone import DualHead, Head, Preprocessing, Training
from zoo_harness.records.normalization import NormalizationSource
from zoo_harness.records.run import (
    DatasetRecord,
    FrozenPartRecord,
    Measurement,
    ParametersRecord,
    RunRecord,
    SettingsRecord,
    SplitRecord,
)

NOT_MEASURED = "not measured"
OTHER_WEIGHTS = "weights kept beside it"
NORMALIZATIONS: dict[NormalizationSource, str] = {
    "weights": "from the weights",
    "dataset": "computed from the training images",
    "given": "as given by --mean and --std",
}
"""Phrases that say where the mean and standard deviation of the images come from."""

# Matches an absolute path up to its last slash, even if folder names contain spaces, so that no folder name remains.
_FOLDERS = re.compile(r"""(?<![^\s'"(=])(?:~[^\s/]*|\.\.)?/(?=\S)(?:.*/)?""", re.DOTALL)
_OPTION_AND_NAME = re.compile(r"(?:--?[\w-]+=)?(?:\w+:(?!//))?")


def without_folders(text: str) -> str:
    """Shorten paths that start with ``/``, ``~`` or ``../`` to their last part; leave other paths unchanged.

    >>> without_folders("folder /srv/me/my photos (split test is its folder val)")
    'folder my photos (split test is its folder val)'
    >>> without_folders("https://example.org/a/b"), without_folders("runs/a")
    ('https://example.org/a/b', 'runs/a')
    """
    return _FOLDERS.sub("", text.rstrip("/") or text)


def command_without_folders(command: Iterable[str]) -> tuple[str, ...]:
    """Shorten the paths of a command line as :func:`without_folders` does.

    >>> command_without_folders(["zoo", "eval", "--dataset", "imagefolder:/srv/me/photos", "--out=~/runs/a"])
    ('zoo', 'eval', '--dataset', 'imagefolder:photos', '--out=a')
    """

    def shortened(word: str) -> str:
        start = _OPTION_AND_NAME.match(word)
        begins = start.end() if start else 0
        return word[:begins] + without_folders(word[begins:])

    return tuple(map(shortened, command))


def percent(measurement: Measurement | None) -> str:
    """Format a proportion as a percentage with its standard error.

    >>> percent(Measurement(value=0.9712, standard_error=0.00167, n=10000))
    '97.12 % ± 0.17'
    """
    if measurement is None:
        return NOT_MEASURED
    return f"{measurement.value:.2%} ± {measurement.standard_error * 100:.2f}".replace("%", " %")


def number(value: float | None, unit: str = "", digits: int = 1, missing: str = NOT_MEASURED) -> str:
    """Format a number with its unit and thousands separators; only floats get decimals.

    >>> number(1234567), number(12.345, "s"), number(None)
    ('1,234,567', '12.3 s', 'not measured')
    """
    if value is None:
        return missing
    figure = f"{value:,}" if isinstance(value, int) else f"{value:,.{digits}f}"
    return f"{figure} {unit}".rstrip()


def per_class(split: SplitRecord) -> str:
    """Describe how many images each class has in a split.

    >>> shape = {"pixels": (8, 8), "resized": False}
    >>> per_class(SplitRecord(split="train", images=30, per_class=(20, 10), fingerprint="", **shape))
    '10 to 20 of a class'
    """
    fewest, most = min(split.per_class), max(split.per_class)
    return f"{most:,} of each class" if fewest == most else f"{fewest:,} to {most:,} of a class"


def left_out(dataset: DatasetRecord) -> str:
    """List the kinds of files that were skipped when a dataset was read, with their numbers.

    >>> left_out(DatasetRecord.model_construct(skipped={"files of systems": 1200, "unreadable images": 3}))
    '1,200 files of systems, 3 unreadable images'
    """
    return ", ".join(f"{count:,} {kind}" for kind, count in dataset.skipped.items())


def head_in_words(head: Head | DualHead, width: int, classes: int) -> str:
    """Describe the new classifier of a run, given the width of its input and the number of classes.

    >>> head_in_words(Head("head", hidden=256), 384, 10)
    'an MLP at head (384 to 256 to 10, ReLU between)'
    """
    if isinstance(head, DualHead):
        return " and ".join(head_in_words(part, width, classes) for part in head.parts)
    without = f", without {' and '.join(head.bypass)} before it" if head.bypass else ""
    if head.hidden is None:
        return f"a linear layer at {head.path} ({width} to {classes}){without}"
    return f"an MLP at {head.path} ({width} to {head.hidden} to {classes}, ReLU between){without}"


def preprocessing_in_words(preprocessing: Preprocessing) -> str:
    """Describe how images are resized and cropped before they enter the network.

    >>> preprocessing_in_words(Preprocessing(input_size=(32, 32), interpolation="bilinear"))
    'shorter side resized to 32 pixels, centre crop of 32 x 32, bilinear'
    >>> preprocessing_in_words(Preprocessing(input_size=(448, 448), crop_fraction=0.956, crop_mode="squash"))
    'resized to 448 x 448 pixels / 0.956 whatever the aspect, centre crop of 448 x 448, bicubic'
    """
    height, width = preprocessing.input_size
    part = f" / {preprocessing.crop_fraction:g}" if preprocessing.crop_fraction < 1 else ""
    crop = f"centre crop of {height} x {width}"
    if preprocessing.crop_mode == "squash":
        squashed = f"resized to {height} x {width} pixels{part} whatever the aspect"
        return f"{squashed}, {crop + ', ' if part else ''}{preprocessing.interpolation}"
    side = f"{min(height, width)}{part}"
    return f"shorter side resized to {side} pixels, {crop}, {preprocessing.interpolation}"


def normalization_in_words(preprocessing: Preprocessing, source: NormalizationSource) -> str:
    """Describe the mean and standard deviation that normalise the images, and where these two come from.

    >>> normalization_in_words(Preprocessing((32, 32), mean=(0.5071, 0.4865, 0.4409)), "dataset")
    'mean 0.5071 0.4865 0.4409, std 0.2290 0.2240 0.2250, computed from the training images'
    """
    mean, std = (" ".join(f"{value:.4f}" for value in each) for each in (preprocessing.mean, preprocessing.std))
    return f"mean {mean}, std {std}, {NORMALIZATIONS[source]}"


def pretrained_on(record: RunRecord) -> str | None:
    """Return the data that a run's initial weights were pretrained on, or ``None`` if unknown."""
    if record.weights.kind == "random":
        return "nothing (random weights)"
    return record.backbone.pretrained_on if record.weights.declared else None


_CHANGES = {
    "crop": "crops of the image padded by an eighth of its side",
    "flip": "horizontal flips",
    "rotate": "rotations by up to 15 degrees",
}


def optimizer_in_words(training: Training) -> str:
    """Describe the optimizer of a run with its momentum and weight decay.

    >>> optimizer_in_words(Training(optimizer="sgd", momentum=0.9, weight_decay=5e-4))
    'sgd, momentum 0.9, weight decay 0.0005'
    """
    parts: list[str] = [training.optimizer]
    if training.momentum:
        parts.append(f"{'Nesterov ' if training.nesterov else ''}momentum {training.momentum:g}")
    if training.weight_decay:
        parts.append(f"weight decay {training.weight_decay:g}")
    return ", ".join(parts)


def learning_rate_in_words(training: Training) -> str:
    """Describe the learning rate and its schedule.

    >>> learning_rate_in_words(Training(schedule="multistep", milestones=(60, 120), decay=0.2, warmup_epochs=1))
    '0.0001, times 0.2 after epochs 60, 120, linear warm-up over the first epoch'
    """
    parts = [f"{training.learning_rate:g}"]
    if training.schedule == "multistep":
        parts.append(f"times {training.decay:g} after epochs {', '.join(map(str, training.milestones))}")
    if training.schedule == "cosine":
        parts.append("cosine decay to 0")
    if training.warmup_epochs:
        first = "epoch" if training.warmup_epochs == 1 else f"{training.warmup_epochs:g} epochs"
        parts.append(f"linear warm-up over the first {first}")
    return ", ".join(parts)


def training_rows(training: Training, split: str = "evaluation") -> list[tuple[str, str]]:
    """Return name and value of each training setting that differs from its default, for settings that rarely change.

    ``split`` is the name of the split that is evaluated during training.

    >>> training_rows(Training(augment=("flip",), keep="best"))
    [('augmentation', 'horizontal flips'), ('checkpoint', 'of the epoch with the best evaluation accuracy')]
    """
    rows = []
    if training.label_smoothing:
        rows.append(("label smoothing", f"{training.label_smoothing:g}"))
    if training.class_weights == "balanced":
        rows.append(("class weights", "balanced: n / (classes x images of the class)"))
    if training.augment:
        views = f"; {training.views} views of each image" if training.views else ""
        rows.append(("augmentation", ", ".join(_CHANGES[name] for name in training.augment) + views))
    if training.patience:
        rows.append(("early stopping", f"after {training.patience} epochs without a better {split} accuracy"))
    if training.keep != "last":
        rows.append(("checkpoint", f"of the epoch with the best {split} accuracy"))
    others = ["of the last epoch"] if training.keep == "both" else []
    others += [f"of epochs that are multiples of {training.save_every}"] if training.save_every else []
    if others:
        rows.append((OTHER_WEIGHTS, ", ".join(others)))
    return rows


def training_in_words(training: Training, split: str = "evaluation") -> str:
    """Describe the training settings on one line: first the main settings, then settings that differ from defaults.

    >>> training_in_words(Training(optimizer="sgd", momentum=0.9, schedule="cosine", augment=("flip",)))
    '20 epochs, sgd 0.0001, batch 32; momentum 0.9; learning rate cosine decay to 0; augmentation: horizontal flips'
    """
    optimizer, *settings = optimizer_in_words(training).split(", ")
    rate, *schedule = learning_rate_in_words(training).split(", ", maxsplit=1)
    main = f"{training.epochs} epochs, {optimizer} {rate}, batch {training.batch_size}"
    parts = [", ".join(settings)] if settings else []
    parts += [f"learning rate {words}" for words in schedule]
    parts += [f"{name}: {words}" for name, words in training_rows(training, split)]
    return "; ".join([main, *parts])


def input_size_in_words(settings: SettingsRecord) -> str:
    """Describe the input size that the user chose with ``--input-size``, and the default input size."""
    sizes = settings.preprocessing.input_size, settings.default_input_size or settings.preprocessing.input_size
    chosen, default = ("{} x {}".format(*size) for size in sizes)
    return f"{chosen} pixels, chosen with --input-size; the default is {default}"


def frozen_batchnorm_in_words(parameters: ParametersRecord) -> str:
    """Describe which BatchNorm statistics change if frozen BatchNorm layers are in training mode.

    >>> counts = {"total": 9, "trained": 3, "trained_without_head": 1, "trained_names": ()}
    >>> frozen_batchnorm_in_words(ParametersRecord(**counts, moving_layers=2, moving_buffers=6))
    'train: 2 layers normalise by each training batch, which updates their 6 buffers; their parameters stay frozen'
    """
    return (
        f"train: {parameters.moving_layers:,} layers normalise by each training batch, which updates their "
        f"{parameters.moving_buffers:,} buffers; their parameters stay frozen"
    )


def frozen_part_in_words(made: FrozenPartRecord | None) -> str:
    """Describe whether the frozen part of the network ran once, in every epoch, or in an earlier run.

    >>> frozen_part_in_words(FrozenPartRecord(reason=None, kept=("blocks.5 192x7x7",), bytes_per_image=37632))
    'ran once for each image; every epoch used its cached outputs (blocks.5 192x7x7)'
    >>> frozen_part_in_words(FrozenPartRecord(reason=None, kept=("norm 768",), computed=90, seconds=6.25))
    'ran once for each image, in 6.2 s that the seconds per epoch do not include; every epoch used its ...'
    >>> frozen_part_in_words(FrozenPartRecord(reason=None, kept=("norm 768",), computed=0, seconds=0.01))
    'ran in an earlier run; every epoch used its cached outputs (norm 768)'
    """
    if made is None:
        return "not reached"
    if made.reason is not None:
        return f"ran in every epoch: {made.reason}"
    if made.computed == 0:
        once = "ran in an earlier run"
    else:
        taken = "" if made.seconds is None else f", in {made.seconds:.1f} s that the seconds per epoch do not include"
        once = f"ran once for each image{taken}"
    return f"{once}; every epoch used its cached outputs ({', '.join(made.kept)})"
