"""Where a weight source would lie on this machine, found by looking at paths alone.

``zoo list`` asks this for every backbone, so nothing here imports torch, timm or
huggingface_hub, and a source is told by its ``kind``: it may be a record or what the catalogue remembers of one.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zoo.backbone import WeightSource


TIMM_FILENAME = "model.safetensors"


def find_local(source: WeightSource) -> Path | None:
    """The file a source would be read from, if it is already on this machine; random weights need none.

    >>> from zoo import FileWeights
    >>> find_local(FileWeights("/no/such/file.safetensors")) is None
    True
    """
    candidate = _candidate(source)
    return candidate if candidate is not None and candidate.is_file() else None


def describe(source: WeightSource) -> str:
    """Where the weights come from, in a few words.

    >>> from zoo import TimmWeights
    >>> describe(TimmWeights("resnet18.tv_in1k"))
    'hub timm/resnet18.tv_in1k'
    """
    match source.kind:
        case "timm" | "hub":
            return f"hub {source.repository}"
        case "torchvision":
            return f"torchvision {source.name} {source.tag}"
        case "keras":
            return f"keras {source.filename}"
        case "package":
            return f"package {source.distribution}"
        case "file":
            return f"file {source.path}"
        case "random":
            return "random"


def _candidate(source: WeightSource) -> Path | None:
    match source.kind:
        case "timm":
            return hub_file(source.repository, TIMM_FILENAME, source.revision)
        case "hub":
            return hub_file(source.repository, source.filename, source.revision)
        case "torchvision":
            return torch_hub_folder() / source.filename
        case "keras":
            return keras_folder() / source.filename
        case "package":
            return package_file(source.path)
        case "file":
            return Path(source.path).expanduser()
        case "random":
            return None


def package_file(relative: str) -> Path | None:
    """The file at a path that counts from a folder of ``sys.path``, such as site-packages."""
    candidates = (Path(folder) / relative for folder in sys.path if folder)
    return next((candidate for candidate in candidates if candidate.is_file()), None)


def hub_file(repository: str, filename: str, revision: str | None) -> Path | None:
    """A file of the Hub's cache at a revision (``main`` unless told), or ``None``."""
    folder = hub_cache() / f"models--{repository.replace('/', '--')}"
    reference = folder / "refs" / (revision or "main")
    commit = reference.read_text().strip() if reference.is_file() else (revision or "")
    if not commit:
        return None
    return folder / "snapshots" / commit / filename


def hub_cache() -> Path:
    """The folder the Hub's client caches in, by the environment variables it reads."""
    home = os.environ.get("HF_HOME", f"{_cache_home()}/huggingface")
    older = os.environ.get("HUGGINGFACE_HUB_CACHE", f"{home}/hub")
    return Path(os.path.expandvars(os.environ.get("HF_HUB_CACHE", older))).expanduser()


def torch_hub_folder() -> Path:
    """The folder torchvision downloads weights to, by the environment variables torch reads."""
    return Path(os.environ.get("TORCH_HOME", f"{_cache_home()}/torch")).expanduser() / "hub" / "checkpoints"


def keras_folder() -> Path:
    """The folder Keras downloads its applications' weights to, by the environment variable it reads."""
    return Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser() / "models"


def _cache_home() -> str:
    return os.environ.get("XDG_CACHE_HOME", "~/.cache")
