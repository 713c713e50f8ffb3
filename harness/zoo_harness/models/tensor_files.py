"""Write safetensors files; read safetensors, PyTorch and Keras H5 files without running code from the files."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zoo.errors import WeightsError, ZooError
from zoo.registry import explain
from zoo_harness.models.keras_weights import read_keras_tensors
from zoo_harness.models.weight_files import PICKLE_SUFFIXES, check_kind, unreadable_safetensors
from zoo_harness.util.atomic_files import replacing

_WRAPPERS = ("state_dict", "model", "model_state_dict")


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read all tensors of a weight file by name, on the CPU and in the file's order.

    Tensors of Keras H5 files have names of the form ``layer.weight``. Raises :class:`~zoo.errors.WeightsError` for a
    file that is damaged, is not a weight file, or would run code.
    """
    check_kind(path)
    if path.suffix == ".safetensors":
        return read_safetensors(path)
    if path.suffix in PICKLE_SUFFIXES:
        return _read_pickle(path)
    return read_keras_tensors(path)


def read_safetensors(path: Path, source: Path | None = None) -> dict[str, Tensor]:
    """Read all tensors of a safetensors file.

    If ``source`` is given, the function reads that file, and uses ``path`` only in error messages.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors: dict[str, Tensor] = load_file(source or path)
    except (SafetensorError, OSError) as error:
        raise unreadable_safetensors(path, error) from error
    return tensors


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str], *, keep: Path | None = None
) -> None:
    """Write a safetensors file atomically; tensors that share memory are written separately.

    ``keep``: the path to which an existing file at ``path`` is moved. Raises :class:`~zoo.errors.ZooError` if the disk
    is full.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    apart = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
    with replacing(path, keep=keep) as temporary:
        temporary.touch()
        mode = temporary.stat().st_mode  # safetensors creates files that only the owner can read
        try:
            save_file(apart, temporary, metadata=metadata)
        except SafetensorError as error:  # such as a full disk
            fault = f"the disk of {path.parent} is full; free some space" if "os error 28" in str(error) else str(error)
            raise ZooError(f"cannot write {path.name}: {fault}", code="disk-full", path=str(path)) from error
        temporary.chmod(mode)


def check_finite(where: object, tensors: Mapping[str, Tensor]) -> None:
    """Raise :class:`~zoo.errors.WeightsError` if a tensor has NaN or infinite values; ``where`` begins the message."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            message = (
                f"{where}: tensor {name!r:.80} has NaN or infinite values; a network with such weights cannot predict"
            )
            raise WeightsError(message, code="not-finite", name=name)


def form_of(tensor: Tensor) -> str:
    """Format the dtype and shape of a tensor for messages.

    >>> form_of(torch.ones(3, 4))
    'float32 (3, 4)'
    """
    return form(str(tensor.dtype).removeprefix("torch."), tensor.shape)


def form(dtype: str, shape: Iterable[int]) -> str:
    """Format a dtype and a shape for messages, such as ``float32 (3, 4)``."""
    return f"{dtype} ({', '.join(map(str, shape))})"


def _read_pickle(path: Path) -> dict[str, Tensor]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # torch first warns about a bare pickle, then raises an error
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # torch's own message advises to disable the protection, so show the underlying error instead.
        reason = _first_sentence(error.__context__ or error)
        raise WeightsError(
            f"{path}: the file is damaged or would run code ({reason}); save the state dict as safetensors",
            code="file-unsafe",
        ) from error
    except Exception as error:  # torch raises struct.error, IndexError, AssertionError and others for damaged files
        message = f"{path}: not a readable PyTorch weight file: {_first_sentence(error)}"
        raise WeightsError(message, code="file-unreadable", path=str(path)) from error
    return _state_dict(path, content)


def _first_sentence(error: BaseException) -> str:
    return explain(error).partition(". ")[0].rstrip(".")


def _state_dict(path: Path, content: Any) -> dict[str, Tensor]:
    tensors = content if isinstance(content, dict) else {}
    tensors = next((tensors[key] for key in _WRAPPERS if isinstance(tensors.get(key), dict)), tensors)
    others = [f"{str(name)!r:.80} as {type(it).__name__}" for name, it in tensors.items() if not isinstance(it, Tensor)]
    if others or not tensors:
        found = others[0] if others else f"{type(content).__name__} without tensors"
        message = f"{path}: expected a state dict of named tensors, found {found}"
        raise WeightsError(message, code="file-kind", path=str(path))
    return {str(name): value for name, value in tensors.items()}
