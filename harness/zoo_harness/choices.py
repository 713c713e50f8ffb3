"""What the options of a run mean, and which cannot be meant.

Nothing here imports torch, so that a slip of the pen is told at once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, get_args

from pydantic import TypeAdapter, ValidationError

from zoo.backbone import Backbone, DualHead, FeatureLayer, FileWeights, RandomWeights, Training, Tuning, WeightSource
from zoo.dataset import Dataset
from zoo.errors import UnknownNameError, UsageError, one_of

PRECISIONS = ("fp32", "bf16")
KeptAs = Literal["exact", "fp16", "bf16"]
KEPT_AS: tuple[KeptAs, ...] = get_args(KeptAs)


@dataclass(frozen=True)
class Subset:
    """Which part of a data set a run uses: ``per_class`` images of each class or ``limit`` in all, of each split.

    ``val_fraction`` holds that part of the training split out for evaluation, in place of the data set's own
    evaluation split.
    """

    per_class: int | None = None
    limit: int | None = None
    val_fraction: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.per_class is not None and self.limit is not None:
            raise UsageError("--per-class and --limit exclude each other: give one")
        for option, value in (("--per-class", self.per_class), ("--limit", self.limit)):
            if value is not None and value < 1:
                raise UsageError(f"{option} {value} must be at least 1")
        if self.val_fraction is not None and not 0 < self.val_fraction < 1:
            raise UsageError(f"--val-fraction {self.val_fraction} must lie between 0 and 1, both excluded")

    def in_words(self, *splits: tuple[str, int]) -> str:
        """What was left out, for a reader of the card.

        ``splits``: what each split is called, and how many images of each class ``per_class`` came to in it.

        >>> Subset(per_class=9).in_words(("training split", 9), ("test split", 4))
        '9 images per class of the training split, 4 of the test split (all that its smallest class has), seed 0'
        >>> Subset(per_class=5).in_words(("training split", 5), ("evaluation split", 5))
        '5 images per class, seed 0'
        """
        parts = []
        if self.val_fraction is not None:
            parts.append(f"{self.val_fraction:g} of the training split held out for evaluation")
        if self.per_class is not None:
            parts.append(f"{_numbers_of_images(self.per_class, splits)}, seed {self.seed}")
        if self.limit is not None:
            parts.append(f"at most {self.limit} images of each split, classes in turn, seed {self.seed}")
        return "; ".join(parts) or "all images"


def _numbers_of_images(asked: int, splits: Sequence[tuple[str, int]]) -> str:
    counts = {count for _name, count in splits}
    if len(counts) == 1:
        return f"{counts.pop()} images per class"
    clauses: list[str] = []
    for name, count in splits:
        unit = "" if clauses else " images per class"
        clauses.append(f"{count}{unit} of the {name}{' (all that its smallest class has)' if count < asked else ''}")
    return ", ".join(clauses)


def choose_source(backbone: Backbone, option: str | None) -> WeightSource:
    """The source that ``--weights`` means: ``pretrained`` (the default), ``random`` or a path.

    A run directory may stand for the checkpoint in it. Raises :class:`~zoo.errors.UsageError` for a path that is
    not there.
    """
    if option in (None, "pretrained"):
        return backbone.weights
    if option == "random":
        return RandomWeights()
    path = Path(str(option)).expanduser()
    if path.is_dir():
        path /= "model.safetensors"
    if not path.is_file():
        raise UsageError(f"--weights: no such file {str(path)!r}; give 'pretrained', 'random' or a path of one")
    return FileWeights(str(path))


def choose_layer(name: str, tuning: Tuning, path: str | None) -> FeatureLayer:
    """The declared feature layer of backbone ``name`` at a path; the one the classifier sees unless given."""
    if path is None:
        return tuning.features[-1]
    layers = {layer.path: layer for layer in tuning.features}
    if path not in layers:
        raise UnknownNameError(f"feature layer of {name}", path, layers)
    return layers[path]


def check_classes(classes: int) -> int:
    """The number of classes, if a classifier can have so many.

    >>> check_classes(2)
    2
    """
    if classes < 2:
        raise UsageError(f"a classifier needs at least 2 classes, given {classes}")
    return classes


def check_seed(seed: int) -> int:
    """The seed, if generators take it: 0 to 2^63 - 1."""
    if not 0 <= seed < 2**63:
        raise UsageError(f"--seed {seed} must be 0 or more, and below 2^63")
    return seed


def apply_overrides(training: Training, given: Mapping[str, object]) -> Training:
    """The recipe's training settings with what the user gave in their place.

    Raises :class:`~zoo.errors.UsageError` for a value that cannot be.

    >>> apply_overrides(Training(), {"epochs": 3, "augment": "crop,flip"}).augment
    ('crop', 'flip')
    """
    changes = dict(given)
    for name in ("augment", "milestones"):
        if name in changes:
            changes[name] = tuple(part.strip() for part in str(changes[name]).split(",") if part.strip())
    try:
        if changes.get("schedule", "multistep") != "multistep" and "milestones" not in changes:
            changes["milestones"] = ()  # of the recipe's own schedule
        return TypeAdapter(Training).validate_python({**asdict(training), **changes}, strict=False)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        name = str(fault["loc"][0]) if fault["loc"] else ""
        raise UsageError(_explained(name, given, fault["msg"])) from error


def _explained(name: str, given: Mapping[str, object], message: str) -> str:
    message, value = message.removeprefix("Value error, "), given.get(name)
    if not name:  # of several together
        options = " ".join(f"--{option.replace('_', '-')} {chosen}" for option, chosen in given.items())
        return f"{options}: {message}"
    hint = " (0 scores without training)" if name == "epochs" else ""
    return f"--{name.replace('_', '-')} {value}: {message[0].lower()}{message[1:]}{hint}"


def choose_prediction(option: str, tuning: Tuning, backbones: Iterable[Backbone]) -> Literal["cls", "mean"]:
    """The rule that ``--predict`` means: ``cls``, or where there are two heads ``mean``.

    Raises :class:`~zoo.errors.UsageError` for ``mean`` of a single head, with those of ``backbones`` that have two.
    """
    if one_of("--predict", option, ("cls", "mean")) == "cls":
        return "cls"
    if isinstance(tuning.head, DualHead):
        return "mean"
    two = ", ".join(sorted(backbone.name for backbone in backbones if isinstance(backbone.head, DualHead)))
    raise UsageError(
        f"--predict mean: there is one head, {tuning.head.path!r}, and a mean takes two; leave it out "
        f"(backbones with two heads: {two or 'none'})"
    )


def check_device_name(name: str) -> str:
    """The name, if it is ``auto``, ``cpu``, ``cuda`` or ``cuda:N``; whether such a device is here is not looked at.

    >>> check_device_name("cuda:1")
    'cuda:1'
    """
    if not re.fullmatch(r"auto|cpu|cuda(:\d{1,3})?", name):
        raise UsageError(f"--device {name!r} is not one of auto, cpu, cuda, cuda:0, cuda:1, ...")
    return name


def check_folders(dataset: Dataset, argument: str | None, data_dir: Path | None) -> None:
    """Raise :class:`~zoo.errors.UsageError` where a data set's files are looked for in a folder that is not there."""
    if data_dir is not None and not data_dir.is_dir():
        raise UsageError(f"--data-dir {str(data_dir)!r}: no such folder")
    if dataset.argument == "PATH" and argument and not Path(argument).expanduser().exists():
        raise UsageError(f"dataset {dataset.name}:{argument}: no such folder {argument!r}")
