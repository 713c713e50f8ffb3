"""Writes safetensors; reads tensors without running code: safetensors, pickles with ``weights_only``, Keras' H5."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zoo.errors import WeightsError, ZooError
from zoo_harness.models.keras_weights import KERAS_SUFFIXES, read_keras_tensors
from zoo_harness.util.atomic_files import replacing

PICKLE_SUFFIXES = (".pth", ".pt", ".bin")
_WRAPPERS = ("state_dict", "model", "model_state_dict")


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a weight file by name, on the CPU, in the file's own order; of an H5 file by its layers' names.

    Raises :class:`~zoo.errors.WeightsError` for a file that is damaged, is of another kind, or would need arbitrary
    code to be read.
    """
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    if path.suffix in PICKLE_SUFFIXES:
        return _read_pickle(path)
    if path.suffix in KERAS_SUFFIXES:
        return read_keras_tensors(path)
    kinds = ", ".join((".safetensors", *PICKLE_SUFFIXES, ".h5"))
    raise WeightsError(f"{path}: a weight file ends in one of {kinds}; convert it to safetensors")


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    """Write a safetensors file, all or nothing; tensors that share memory are written one by one.

    Raises :class:`~zoo.errors.ZooError` where the disk does not take it.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    apart = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
    with replacing(path) as temporary:
        temporary.touch()
        mode = temporary.stat().st_mode  # safetensors makes its files readable by their owner alone
        try:
            save_file(apart, temporary, metadata=metadata)
        except SafetensorError as error:  # what it makes of a full disk
            raise ZooError(f"cannot write {path}: {error}") from error
        temporary.chmod(mode)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors: dict[str, Tensor] = load_file(path)
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path}: not a readable safetensors file: {error}") from error
    return tensors


def _read_pickle(path: Path) -> dict[str, Tensor]:
    try:
        with warnings.catch_warnings():
            # Of a bare pickle torch warns before it refuses it; the refusal says more.
            warnings.simplefilter("ignore", UserWarning)
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # What torch raises last tells the reader to switch its protection off; the error before it has the fault.
        reason = _reason(error.__context__ or error)
        raise WeightsError(
            f"{path}: damaged, or holds more than tensors, which would run code ({reason}); "
            "save the state dict as safetensors"
        ) from error
    except Exception as error:  # damaged, it lets struct.error, IndexError, AssertionError and more through
        raise WeightsError(f"{path}: not a readable PyTorch weight file: {_reason(error)}") from error
    return _unwrap(path, content)


def _reason(error: BaseException) -> str:
    first_line = next(iter(str(error).strip().splitlines()), "")
    first_sentence = first_line.partition(". ")[0].rstrip(".")
    return f"{type(error).__name__}: {first_sentence}" if first_sentence else type(error).__name__


def _unwrap(path: Path, content: Any) -> dict[str, Tensor]:
    for wrapper in _WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
            break
    if not isinstance(content, dict) or not content:
        found = "an empty one" if content == {} else f"one {type(content).__name__}"
        raise WeightsError(f"{path}: expected a state dict of named tensors, found {found}")
    for name, value in content.items():
        if not isinstance(value, Tensor):
            raise WeightsError(f"{path}: expected tensors alone, but {str(name)!r} is one {type(value).__name__}")
    return {str(name): value for name, value in content.items()}
