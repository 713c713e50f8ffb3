"""What the options of a run mean, and which cannot be meant.

Nothing here imports torch, so that a slip of the pen is told at once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, get_args

from zoo.backbone import Backbone, DualHead, FeatureLayer, Tuning
from zoo.dataset import Dataset
from zoo.errors import UnknownNameError, UsageError, check_choice
from zoo.weights import FileWeights, RandomWeights, WeightSource

PRECISIONS = ("fp32", "bf16")
CacheDtype = Literal["exact", "fp16", "bf16"]
CACHE_DTYPES: tuple[CacheDtype, ...] = get_args(CacheDtype)


def choose_source(backbone: Backbone, option: str | Path | None) -> WeightSource:
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


def choose_prediction(option: str, tuning: Tuning, backbones: Iterable[Backbone]) -> Literal["cls", "mean"]:
    """The rule that ``--predict`` means: ``cls``, or where there are two heads ``mean``.

    Raises :class:`~zoo.errors.UsageError` for ``mean`` of a single head, with those of ``backbones`` that have two.
    """
    if check_choice("--predict", option, ("cls", "mean")) == "cls":
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
    if data_dir is not None and not data_dir.is_dir() and not (dataset.data_file and data_dir.is_file()):
        raise UsageError(f"--data-dir {str(data_dir)!r}: no such folder", code="missing-folder", path=str(data_dir))
    if dataset.argument == "PATH" and argument and not Path(argument).expanduser().exists():
        raise UsageError(f"dataset {dataset.name}:{argument}: no such file or folder {argument!r}")
