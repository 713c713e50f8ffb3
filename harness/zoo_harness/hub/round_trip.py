"""Checks before publication that zoo, timm and transformers load a tree with equal logits, or refuse it by name.

Two photographs of scikit-learn pass through the run's own network, and through the networks that ``zoo.load``, timm and
transformers load from the tree. If timm cannot represent the head or network, timm and transformers must fail with an
error that names ``zoo.load``, because they would load a network with a random head.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zoo.errors import WeightsError
from zoo_harness.checkpoints.load import load_folder
from zoo_harness.checkpoints.loaded_model import LoadedModel
from zoo_harness.records.file_names import CONFIGURATION

# Differences by rounding, if another library computes the same steps in another order.
_RELATIVE, _ABSOLUTE = 1e-4, 1e-4
_NOTHING_SENT = "nothing was published"


@dataclass(frozen=True)
class Check:
    """The result of one loader: its name with its version, and a few words."""

    loader: str
    result: str


def verify_tree(tree: Path, run: Path) -> list[Check]:
    """Load the tree with each loader and compare logits, classes and preprocessing with the run's.

    Raises :class:`~zoo.errors.WeightsError` if a loader gives others, fails, or loads a checkpoint that it must refuse.
    """
    from sklearn.datasets import load_sample_images

    photographs = load_sample_images().images
    own = load_folder(run)
    images = own.preprocess(photographs)
    checks = [_by_zoo(tree, own, images)]
    if not own.record.loads_in_timm:
        return [*checks, _refused_by_timm(tree), _refused_by_transformers(tree)]
    # The other loaders average the logits of two heads, whatever the run's own rule.
    expected = _logits(own.network, images)
    by_timm = _by_timm(tree, images, expected)
    return [*checks, by_timm, _by_transformers(tree, own, images, photographs, expected)]


def _by_zoo(tree: Path, own: LoadedModel, images: Tensor) -> Check:
    loaded = load_folder(tree)
    if loaded.classes != own.classes:
        raise WeightsError(f"zoo.load of the tree gives other classes than the run; {_NOTHING_SENT}")
    return _same("zoo.load", _logits(own, images), _logits(loaded, images))


def _by_timm(tree: Path, images: Tensor, expected: Tensor) -> Check:
    name = f"timm {version('timm')}"
    with _loading_with(name):
        loaded = _timm_model(tree)
    return _same(name, expected, _logits(loaded, images))


def _by_transformers(tree: Path, own: LoadedModel, images: Tensor, photographs: list[Any], expected: Tensor) -> Check:
    if find_spec("transformers") is None:
        return Check("transformers", "not installed, so not tried")
    import transformers

    name = f"transformers {version('transformers')}"
    processor: Any = transformers.AutoImageProcessor
    with _loading_with(name), _quiet_transformers():
        loaded = _transformers_model(tree)
        processed = processor.from_pretrained(tree)(photographs)["pixel_values"]
    labels = loaded.config.id2label
    if labels != dict(enumerate(own.classes)):
        raise WeightsError(f"{name} gives other class names than the run's; {_NOTHING_SENT}")
    # Both resize uint8 images; their rounding differs by one grey level at most.
    level = 1.01 / 255 / min(own.record.settings.preprocessing.std)
    if processed.shape != images.shape or float((processed - images.cpu()).abs().max()) > level:
        raise WeightsError(f"{name} prepares images otherwise than the run did; {_NOTHING_SENT}")
    with torch.inference_mode():
        found = loaded(images).logits
    return _same(name, expected, found)


def _refused_by_timm(tree: Path) -> Check:
    name = f"timm {version('timm')}"
    return _refused(name, lambda: _timm_model(tree), "zoo.load")


def _refused_by_transformers(tree: Path) -> Check:
    if find_spec("transformers") is None:
        return Check("transformers", "not installed, so not tried")
    with _quiet_transformers():
        word = "zoo.load" if "model_type" in json.loads((tree / CONFIGURATION).read_bytes()) else ""
        return _refused(f"transformers {version('transformers')}", lambda: _transformers_model(tree), word)


def _refused(name: str, loading: Callable[[], object], word: str) -> Check:
    try:
        loading()
    except (RuntimeError, ValueError) as error:
        if not word:  # an earlier run, whose configuration has no message for this loader
            return Check(name, "refuses it, as a network that it does not know")
        if word in str(error):
            return Check(name, "refuses it by name, as it must")
        raise WeightsError(f"{name} fails without naming {word}: {error}; {_NOTHING_SENT}") from error
    raise WeightsError(f"{name} loads what it does not know, with a random head; {_NOTHING_SENT}")


def _timm_model(tree: Path) -> torch.nn.Module:
    import timm

    model: torch.nn.Module = timm.create_model(f"local-dir:{tree}", pretrained=True)
    return model.eval()


def _transformers_model(tree: Path) -> Any:
    from transformers import AutoModelForImageClassification

    return AutoModelForImageClassification.from_pretrained(tree).eval()


def _logits(network: torch.nn.Module, images: Tensor) -> Tensor:
    with torch.inference_mode():
        result: Tensor = network(images)
    return result


def _same(name: str, expected: Tensor, found: Tensor) -> Check:
    if found.shape != expected.shape:
        shapes = f"{tuple(found.shape)} instead of {tuple(expected.shape)}"
        raise WeightsError(f"{name} gives logits of shape {shapes}; {_NOTHING_SENT}")
    if torch.equal(found, expected):
        return Check(name, "same logits, bit for bit")
    largest = float((found - expected).abs().max())
    if not torch.allclose(found, expected, rtol=_RELATIVE, atol=_ABSOLUTE):
        raise WeightsError(f"{name} gives other logits than the run's network, by up to {largest:.3g}; {_NOTHING_SENT}")
    return Check(name, f"same logits within {largest:.1e}")


@contextlib.contextmanager
def _loading_with(loader: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        first = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise WeightsError(f"{loader} cannot load the tree: {first:.300}; {_NOTHING_SENT}") from error


@contextlib.contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Context manager that hides transformers' progress bars and advice."""
    from transformers import utils

    logging: Any = utils.logging
    level = logging.get_verbosity()
    bars = logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
