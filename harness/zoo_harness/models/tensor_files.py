"""Write safetensors; read safetensors, pickles (``weights_only``) and Keras' H5 without running code."""

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
    """Return all tensors of a weight file by name, on the CPU, in the file's order; H5 files name them by layer.

    Raises :class:`~zoo.errors.WeightsError` for a file that is damaged, is of another kind, or would run code.
    """
    check_kind(path)
    if path.suffix == ".safetensors":
        return read_safetensors(path)
    if path.suffix in PICKLE_SUFFIXES:
        return _read_pickle(path)
    return read_keras_tensors(path)


def read_safetensors(path: Path, source: Path | None = None) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file; ``source`` is the file to read if ``path`` is only its name."""
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
    """Write a safetensors file, all or nothing; tensors that share memory are written separately.

    The file that was there is moved to ``keep``, if that is given. Raises :class:`~zoo.errors.ZooError` if the disk is
    full.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    apart = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
    with replacing(path, keep=keep) as temporary:
        temporary.touch()
        mode = temporary.stat().st_mode  # only the owner could read the files that safetensors creates
        try:
            save_file(apart, temporary, metadata=metadata)
        except SafetensorError as error:  # raised if the disk is full
            fault = f"the disk of {path.parent} is full; make room there" if "os error 28" in str(error) else str(error)
            raise ZooError(f"cannot write {path.name}: {fault}", code="disk-full", path=str(path)) from error
        temporary.chmod(mode)


def check_finite(where: object, tensors: Mapping[str, Tensor]) -> None:
    """Raise :class:`~zoo.errors.WeightsError`, beginning with ``where``, if a value is not finite."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            message = f"{where}: tensor {name!r:.80} holds values that are not finite; such a network cannot predict"
            raise WeightsError(message, code="not-finite", name=name)


def form_of(tensor: Tensor) -> str:
    """Return type and shape of a tensor in words.

    >>> form_of(torch.ones(3, 4))
    'float32 (3, 4)'
    """
    return form(str(tensor.dtype).removeprefix("torch."), tensor.shape)


def form(dtype: str, shape: Iterable[int]) -> str:
    """Return a type and a shape in words."""
    return f"{dtype} ({', '.join(map(str, shape))})"


def _read_pickle(path: Path) -> dict[str, Tensor]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # torch warns of a bare pickle before it refuses it
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # torch's last error advises to disable its protection; the error before it describes the fault.
        reason = _first_sentence(error.__context__ or error)
        raise WeightsError(
            f"{path}: damaged, or would run code ({reason}); save the state dict as safetensors", code="file-unsafe"
        ) from error
    except Exception as error:  # damaged files raise struct.error, IndexError, AssertionError and more
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
        found = others[0] if others else f"{type(content).__name__} without any"
        message = f"{path}: expected a state dict of named tensors, found {found}"
        raise WeightsError(message, code="file-kind", path=str(path))
    return {str(name): value for name, value in tensors.items()}
