"""Resolve and check the options of a run. This module does not import torch, so mistakes are reported immediately."""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from zoo.backbone import Backbone, DualHead, FeatureLayer, Training, Tuning
from zoo.dataset import Dataset
from zoo.errors import UnknownNameError, UsageError, shortened
from zoo.weights import FileWeights, RandomWeights, WeightSource
from zoo_harness.records.untrusted import LARGEST_SIDE

PRECISIONS = ("fp32", "bf16")
CacheDtype = Literal["exact", "fp16", "bf16"]
TRAINING_OPTIONS = frozenset(field.name for field in fields(Training))


def apply_overrides(training: Training, given: Mapping[str, object]) -> Training:
    """Return the recipe's training settings, with the given options in place of the recipe's values.

    Options that are not training settings are ignored. Raises :class:`~zoo.errors.UsageError` for a value that is not
    allowed, alone or in combination with other settings.

    >>> apply_overrides(Training(), {"epochs": 3, "augment": "crop,flip", "momentum": None, "seed": 1}).augment
    ('crop', 'flip')
    """
    given = {name: value for name, value in given.items() if name in TRAINING_OPTIONS and value is not None}
    changes = {name: _parts(value) if name in ("augment", "milestones") else value for name, value in given.items()}
    try:
        if changes.get("schedule", "multistep") != "multistep":
            changes.setdefault("milestones", ())  # drops the recipe's milestones, which belong to its own schedule
        return TypeAdapter(Training).validate_python({**asdict(training), **changes}, strict=False)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        name, message = str(fault["loc"][0]) if fault["loc"] else "", fault["msg"].removeprefix("Value error, ")
        if name:
            message = expectation(message) + (" (0 scores without training)" if name == "epochs" else "")
        named = {name: given.get(name)} if name else given  # without a name, several options contradict each other
        options = " ".join(f"--{option.replace('_', '-')} {value}" for option, value in named.items())
        raise UsageError(f"{options}: {message}", code="option-value", option=name) from error


def expectation(message: str) -> str:
    """Turn pydantic's description of an invalid value into the words that end an error message.

    >>> expectation("Input should be greater than 0")
    'expected a number greater than 0'
    >>> expectation("Input should be a valid integer, unable to parse string as an integer")
    'expected an integer'
    """
    expected = message.removeprefix("Input should be ").partition(", unable to")[0]
    expected = re.sub("^(?=greater|less)", "a number ", expected).replace("a valid integer", "an integer")
    return f"expected {expected.replace('valid ', '')}"


def _parts(given: object) -> tuple[object, ...]:
    if isinstance(given, str):
        return tuple(part.strip() for part in given.split(",") if part.strip())
    return tuple(given) if isinstance(given, Sequence) else (given,)


def parse_input_size(given: str | int | Sequence[int] | None) -> tuple[int, int] | None:
    """Return height and width in pixels from ``--input-size``: ``N``, ``HxW`` or a pair of numbers.

    >>> parse_input_size("32"), parse_input_size("64x96"), parse_input_size((64, 96))
    ((32, 32), (64, 96), (64, 96))
    """
    if given is None:
        return None
    parts = given.lower().split("x") if isinstance(given, str) else [given] if isinstance(given, int) else [*given]
    sides = [int(part) if str(part).strip().isdecimal() else 0 for part in parts]
    if len(sides) not in (1, 2) or not all(0 < side <= LARGEST_SIDE for side in sides):
        message = (
            f"--input-size is wrong: {shortened(given)}; expected a side in pixels, 1 to {LARGEST_SIDE:,}, such as 32, "
            "or height and width, such as 64x96"
        )
        raise UsageError(message, code="option-value", option="input_size", given=given)
    return sides[0], sides[-1]


def choose_source(backbone: Backbone, option: str | Path | None) -> WeightSource:
    """Return the weight source that ``--weights`` names: ``pretrained`` (the default), ``random`` or a path.

    If the path is a run directory, its checkpoint is used. Raises :class:`~zoo.errors.UsageError` for a missing file.
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


def choose_layer(owner: str, features: Sequence[FeatureLayer], path: str | None) -> FeatureLayer:
    """Return the declared feature layer at ``path``; without a path, the last layer, which feeds the classifier."""
    layers = {layer.path: layer for layer in features}
    if path is not None and path not in layers:
        raise UnknownNameError(f"feature layer of {owner}", path, layers)
    return layers[path] if path is not None else features[-1]


def check_classes(classes: int) -> int:
    """Return the number of classes, or raise :class:`~zoo.errors.UsageError` if it is below 2.

    >>> check_classes(2)
    2
    """
    if classes < 2:
        message = f"the number of classes is wrong: {classes}; expected 2 or more"
        raise UsageError(message, code="class-count", given=classes)
    return classes


def check_seed(seed: int) -> int:
    """Return the seed, or raise :class:`~zoo.errors.UsageError` if it is not in the range 0 to 2^63 - 1."""
    if not 0 <= seed < 2**63:
        raise UsageError(f"--seed {seed} must be 0 or more, and below 2^63", code="option-range", option="seed")
    return seed


def check_prediction(rule: Literal["cls", "mean"], tuning: Tuning, backbones: Iterable[Backbone]) -> None:
    """Raise :class:`~zoo.errors.UsageError` for rule ``mean`` with one head; the error lists two-headed backbones."""
    if rule == "cls" or isinstance(tuning.head, DualHead):
        return
    two = ", ".join(sorted(backbone.name for backbone in backbones if isinstance(backbone.head, DualHead)))
    message = (
        f"--predict mean needs two heads: the backbone has one, {tuning.head.path!r}; omit the option (backbones "
        f"with two heads: {two or 'none'})"
    )
    raise UsageError(message, code="option-unused", option="predict")


def check_device_name(name: str) -> str:
    """Return the name if it is ``auto``, ``cpu``, ``cuda`` or ``cuda:N``, even if this machine lacks the device.

    >>> check_device_name("cuda:1")
    'cuda:1'
    """
    if not re.fullmatch(r"auto|cpu|cuda(:\d{1,3})?", name):
        message = f"--device {name!r} is not one of auto, cpu, cuda, cuda:0, cuda:1, ..."
        raise UsageError(message, code="option-choice", option="device", given=name)
    return name


def check_device(name: str, precision: str | None = None) -> None:
    """Check the device's name; raise an error if CUDA, or a precision that needs CUDA, is requested without a driver.

    This early check does not import torch. :func:`zoo_harness.compute.device.choose_device` makes the final check.
    """
    check_device_name(name)
    if name.startswith("cuda") and not _may_have_gpu():
        raise no_such_device(name, NO_GPU)
    if precision == "bf16" and (name == "cpu" or (name == "auto" and not _may_have_gpu())):
        raise precision_needs_gpu("cpu")


NO_GPU = "this machine has no usable CUDA device; use --device cpu or auto"


def no_such_device(name: str, fault: str) -> UsageError:
    """Return the error for a device that does not exist on this machine; ``fault`` is the reason."""
    return UsageError(f"--device {name!r}: {fault}", code="device-unavailable", option="device", given=name)


def precision_needs_gpu(device: str) -> UsageError:
    """Return the error for ``--precision bf16`` on a device that is not a GPU."""
    message = f"--precision bf16 needs a CUDA device, but this run is on {device}; use fp32"
    return UsageError(message, code="precision-device", option="precision")


@cache
def _may_have_gpu() -> bool:
    """Whether the driver library of CUDA can be loaded, or the device file of ROCm exists."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return os.path.exists("/dev/kfd")  # noqa: PTH110
    return True


def check_folders(dataset: Dataset | None, argument: str | None, data_dir: Path | None) -> None:
    """Raise :class:`~zoo.errors.UsageError` if the folder of a dataset's files, or their archive, is missing.

    ``dataset`` is ``None`` if the caller has not resolved the dataset yet.
    """
    may_be_file = dataset is None or dataset.data_file
    if data_dir is not None and not (data_dir.is_dir() or (may_be_file and data_dir.is_file())):
        raise UsageError(f"--data-dir {str(data_dir)!r}: no such folder", code="missing-folder", path=data_dir)
    if dataset and argument and dataset.is_path(argument) and not Path(argument).expanduser().exists():
        message = f"dataset {dataset.name}:{argument}: no such file or folder {argument!r}"
        raise UsageError(message, code="missing-folder", path=argument)


def check_order(order: int, split: str, images: int) -> None:
    """Raise :class:`~zoo.errors.UsageError` if a split has too few images for ``order`` neighbours per image."""
    if images <= order:
        message = f"--order {order} needs more than {order} images; split {split!r} has {images}; try a smaller order"
        raise UsageError(message, code="too-few-images", split=split, given=images)
