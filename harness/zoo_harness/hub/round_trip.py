"""Check before publication that zoo, timm and transformers load the published files and compute equal logits.

Two photographs of scikit-learn pass through the run's own network, and through the networks that ``zoo.load``, timm and
transformers load from the files. If timm cannot represent the head or the network, timm and transformers must fail with
an error that names ``zoo.load``. Without an error, timm and transformers would load a network with a random head.
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

from zoo.errors import WeightsError, ZooError
from zoo_harness.checkpoints.load import load_folder
from zoo_harness.checkpoints.loaded_model import LoadedModel
from zoo_harness.records.file_names import CONFIGURATION

# Tolerance for rounding: another library may compute the same steps in another order.
_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Check:
    """Hold the name and version of a library, and text that says how the library loaded the checkpoint."""

    loader: str
    result: str


def verify_tree(tree: Path, run: Path) -> list[Check]:
    """Load the published files with each library, and compare logits, classes and preprocessing with the run.

    Raises :class:`~zoo.errors.WeightsError` if a library fails, computes other logits, or loads a network that it
    cannot represent.
    """
    from sklearn.datasets import load_sample_images

    photographs = load_sample_images().images
    own, loaded = load_folder(run), load_folder(tree)
    if loaded.classes != own.classes:
        raise _fault("zoo.load", "returns other classes than the run")
    images = own.preprocess(photographs)
    checks = [Check("zoo.load", _compare("zoo.load", _logits(own, images), _logits(loaded, images)))]
    # timm and transformers always average the logits of two heads; the run may use the first head.
    expected = _logits(own.network, images)
    loaders: dict[str, Callable[[str], Tensor]] = {
        "timm": lambda _loader: _by_timm(tree, images),
        "transformers": lambda loader: _by_transformers(tree, own, images, photographs, loader),
    }
    for name, load in loaders.items():
        if find_spec(name) is None:
            checks.append(Check(name, "not installed, so not tried"))
            continue
        loader = f"{name} {version(name)}"
        if own.record.loads_in_timm:
            checks.append(Check(loader, _compare(loader, expected, _load(loader, load))))
        else:
            # The config.json of an old run has no error message for transformers.
            by_name = name == "timm" or "model_type" in json.loads((tree / CONFIGURATION).read_bytes())
            checks.append(Check(loader, _refuse(loader, load, by_name=by_name)))
    return checks


def _by_timm(tree: Path, images: Tensor) -> Tensor:
    import timm

    return _logits(timm.create_model(f"local-dir:{tree}", pretrained=True).eval(), images)


def _by_transformers(tree: Path, own: LoadedModel, images: Tensor, photographs: list[Any], loader: str) -> Tensor:
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    processor: Any = AutoImageProcessor
    with _quiet_transformers():
        loaded = AutoModelForImageClassification.from_pretrained(tree).eval()
        processed = processor.from_pretrained(tree)(photographs)["pixel_values"]
    if loaded.config.id2label != dict(enumerate(own.classes)):
        raise _fault(loader, "returns other class names than the run")
    # Both libraries resize uint8 images; their results differ by at most one level.
    level = 1.01 / 255 / min(own.record.settings.preprocessing.std)
    if processed.shape != images.shape or float((processed - images.cpu()).abs().max()) > level:
        raise _fault(loader, "preprocesses images differently than the run")
    return _logits(lambda batch: loaded(batch).logits, images)


@torch.inference_mode()
def _logits(network: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    return network(images)


def _load(loader: str, load: Callable[[str], Tensor]) -> Tensor:
    try:
        return load(loader)
    except ZooError:
        raise
    except Exception as error:
        first = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise _fault(loader, f"cannot load the tree: {first:.300}") from error


def _refuse(loader: str, load: Callable[[str], Tensor], *, by_name: bool) -> str:
    try:
        load(loader)
    except (RuntimeError, ValueError) as error:
        if not by_name:
            return "refuses it, as a network that it does not know"
        if "zoo.load" in str(error):
            return "refuses it by name, as it must"
        raise _fault(loader, f"fails without naming zoo.load: {error}") from error
    raise _fault(loader, "cannot represent this network, but loads it with a random head")


def _compare(loader: str, expected: Tensor, found: Tensor) -> str:
    if found.shape != expected.shape:
        raise _fault(loader, f"returns logits of shape {tuple(found.shape)} instead of {tuple(expected.shape)}")
    if torch.equal(found, expected):
        return "same logits, bit for bit"
    largest = float((found - expected).abs().max())
    if not torch.allclose(found, expected, rtol=_TOLERANCE, atol=_TOLERANCE):
        raise _fault(loader, f"returns logits that differ from the run's network by up to {largest:.3g}")
    return f"same logits within {largest:.1e}"


def _fault(loader: str, fault: str) -> WeightsError:
    return WeightsError(f"{loader} {fault}; zoo published nothing", code="round-trip", loader=loader, fault=fault)


@contextlib.contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Hide the progress bars and warnings of transformers in the ``with`` block."""
    from transformers import utils

    logging: Any = utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
