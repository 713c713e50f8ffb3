"""Find weight files on this machine from paths and environment variables alone.

``zoo list`` calls :func:`find` for every backbone, so this module imports only the standard library.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

Place = tuple[str | None, ...]


def find(place: Sequence[str | None]) -> Path | None:
    """Return the path of the weight file at a standard place, or ``None`` if the file does not exist.

    A standard place is one of the tuples ``("file", path)``, ``("package", path below site-packages)``, ``("torch",
    filename)``, ``("keras", filename)`` and ``("hub", repository, filename, revision)``.

    >>> find(("file", "/no/such/file.safetensors")) is None
    True
    """
    kind, *parts = place
    candidate = _CANDIDATES[str(kind)](*parts)
    return candidate if candidate is not None and candidate.is_file() else None


def hub_cache() -> Path:
    """Return the cache folder of the Hub's client, as its environment variables set it."""
    home = os.environ.get("HF_HOME", f"{_cache_home()}/huggingface")
    older = os.environ.get("HUGGINGFACE_HUB_CACHE", f"{home}/hub")
    return Path(os.path.expandvars(os.environ.get("HF_HUB_CACHE", older))).expanduser()


def torch_hub_folder() -> Path:
    """Return the folder to which torchvision downloads weights, as torch's environment variables set it."""
    return Path(os.environ.get("TORCH_HOME", f"{_cache_home()}/torch")).expanduser() / "hub" / "checkpoints"


def keras_folder() -> Path:
    """Return the folder to which Keras applications download weights, as the variable ``KERAS_HOME`` sets it."""
    return Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser() / "models"


def _package_file(path: str) -> Path | None:
    candidates = (Path(folder) / path for folder in sys.path if folder)
    return next((candidate for candidate in candidates if candidate.is_file()), None)


def _hub_file(repository: str, filename: str, revision: str | None) -> Path | None:
    folder = hub_cache() / f"models--{repository.replace('/', '--')}"
    reference = folder / "refs" / (revision or "main")
    commit = reference.read_text().strip() if reference.is_file() else (revision or "")
    return folder / "snapshots" / commit / filename if commit else None


def _cache_home() -> str:
    return os.environ.get("XDG_CACHE_HOME", "~/.cache")


_CANDIDATES: dict[str, Callable[..., Path | None]] = {
    "file": lambda path: Path(path).expanduser(),
    "package": _package_file,
    "torch": lambda filename: torch_hub_folder() / filename,
    "keras": lambda filename: keras_folder() / filename,
    "hub": _hub_file,
}
