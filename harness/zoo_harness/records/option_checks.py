"""Resolve and check the options of a run. Nothing here imports torch, so that mistakes are reported at once."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from zoo.backbone import Backbone, DualHead, FeatureLayer, Tuning
from zoo.dataset import Dataset
from zoo.errors import UnknownNameError, UsageError, check_choice
from zoo.weights import FileWeights, RandomWeights, WeightSource

PRECISIONS = ("fp32", "bf16")
CacheDtype = Literal["exact", "fp16", "bf16"]


def choose_source(backbone: Backbone, option: str | Path | None) -> WeightSource:
    """Return the source that ``--weights`` names: ``pretrained`` (the default), ``random`` or a path.

    The path of a run directory names the checkpoint in it. Raises :class:`~zoo.errors.UsageError` for a missing file.
    """
    if option in (None, "pretrained"):
        return backbone.weights
    if option == "random":
        return RandomWeights()
    path = Path(str(option)).expanduser()
    if path.is_dir():
        path /= "model.safetensors"
    if not path.is_file():
        message = f"--weights: no such file {str(path)!r}; expected 'pretrained', 'random' or the path of a file"
        raise UsageError(message, code="missing-file", option="weights", path=path)
    return FileWeights(str(path))


def choose_layer(name: str, tuning: Tuning, path: str | None) -> FeatureLayer:
    """Return the declared feature layer of backbone ``name`` at a path; without a path the classifier's input."""
    if path is None:
        return tuning.features[-1]
    layers = {layer.path: layer for layer in tuning.features}
    if path not in layers:
        raise UnknownNameError(f"feature layer of {name}", path, layers)
    return layers[path]


def check_classes(classes: int) -> int:
    """Return the number of classes if it is at least 2.

    >>> check_classes(2)
    2
    """
    if classes < 2:
        message = f"a classifier needs at least 2 classes, given {classes}"
        raise UsageError(message, code="class-count", given=classes)
    return classes


def check_seed(seed: int) -> int:
    """Return the seed if generators accept it: 0 to 2^63 - 1."""
    if not 0 <= seed < 2**63:
        raise UsageError(f"--seed {seed} must be 0 or more, and below 2^63", code="option-range", option="seed")
    return seed


def choose_prediction(option: str, tuning: Tuning, backbones: Iterable[Backbone]) -> Literal["cls", "mean"]:
    """Return the rule that ``--predict`` names: ``cls``, or with two heads ``mean``.

    Raises :class:`~zoo.errors.UsageError` for ``mean`` of a single head; it names the ``backbones`` with two heads.
    """
    if check_choice("--predict", option, ("cls", "mean")) == "cls":
        return "cls"
    if isinstance(tuning.head, DualHead):
        return "mean"
    two = ", ".join(sorted(backbone.name for backbone in backbones if isinstance(backbone.head, DualHead)))
    raise UsageError(
        f"--predict mean needs two heads: the backbone has one, {tuning.head.path!r}; leave the option out (backbones "
        f"with two heads: {two or 'none'})",
        code="option-unused",
        option="predict",
    )


def check_device_name(name: str) -> str:
    """Return the name if it is ``auto``, ``cpu``, ``cuda`` or ``cuda:N``; the device may be absent.

    >>> check_device_name("cuda:1")
    'cuda:1'
    """
    if not re.fullmatch(r"auto|cpu|cuda(:\d{1,3})?", name):
        message = f"--device {name!r} is not one of auto, cpu, cuda, cuda:0, cuda:1, ..."
        raise UsageError(message, code="option-choice", option="device", given=name)
    return name


def check_folders(dataset: Dataset, argument: str | None, data_dir: Path | None) -> None:
    """Raise :class:`~zoo.errors.UsageError` if the folder of a data set's files, or their archive, is missing."""
    if data_dir is not None and not data_dir.is_dir() and not (dataset.data_file and data_dir.is_file()):
        raise UsageError(f"--data-dir {str(data_dir)!r}: no such folder", code="missing-folder", path=data_dir)
    if dataset.argument == "PATH" and argument and not Path(argument).expanduser().exists():
        message = f"dataset {dataset.name}:{argument}: no such file or folder {argument!r}"
        raise UsageError(message, code="missing-folder", path=argument)
