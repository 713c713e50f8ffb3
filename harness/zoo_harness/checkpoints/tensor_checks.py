"""Reads the tensors of a checkpoint after proof that they are those of a network, and of no other.

The digest comes first, then names, types and shapes as the head of the file declares them, compared with a network on
torch's meta device: neither a tensor that the file declares nor one that the record asks for takes memory before both
agree.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from zoo.errors import WeightsError
from zoo_harness.models.tensor_files import read_tensors
from zoo_harness.util.digests import sha256_of

LARGEST_HEADER = 16 * 2**20

"""Bytes; the largest network of timm needs less than a tenth."""

_TYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


@dataclass(frozen=True)
class Form:
    """Type and shape of a tensor; ``dtype`` is torch's, or the file's own word for one that torch has not.

    >>> print(Form(torch.float32, (3, 4)))
    float32 (3, 4)
    """

    dtype: torch.dtype | str
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{str(self.dtype).removeprefix('torch.')} ({', '.join(map(str, self.shape))})"


def forms_of(tensors: Mapping[str, Tensor]) -> dict[str, Form]:
    """The form of each tensor.

    >>> print(forms_of({"bias": torch.empty(2, device="meta")})["bias"])
    float32 (2)
    """
    return {name: Form(tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}


def check_digest(path: Path, recorded: str) -> None:
    """Raise :class:`~zoo.errors.WeightsError` where the file's SHA-256 is not the recorded one."""
    found = sha256_of(path)
    if found != recorded:
        raise WeightsError(
            f"{path}: SHA-256 is {found}, the run wrote {recorded}; the file is damaged or was changed: fetch it again "
            "(zoo pull), or take it from the run once more"
        )


def declared_forms(path: Path) -> dict[str, Form]:
    """The form of each tensor as the head of a safetensors file declares it; of the tensors nothing is read.

    Raises :class:`~zoo.errors.WeightsError` where the head is damaged, too large, or declares more or less than the
    file holds.
    """
    from safetensors import SafetensorError, safe_open

    _check_header_size(path)
    try:
        with safe_open(path, framework="pt") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - it has no iterator
            return {
                name: Form(_TYPES.get(part.get_dtype(), part.get_dtype()), tuple(part.get_shape()))
                for name, part in slices.items()
            }
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path}: not a readable safetensors file: {error!s:.200}") from error


def _check_header_size(path: Path) -> None:
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
    if size > LARGEST_HEADER:
        raise WeightsError(
            f"{path}: not a readable safetensors file: it declares a head of {size:,} bytes, at most "
            f"{LARGEST_HEADER:,} are read"
        )


def check_forms(path: Path, found: Mapping[str, Form], expected: Mapping[str, Form]) -> None:
    """Raise :class:`~zoo.errors.WeightsError` where the tensors of a file are not those of the recorded network."""
    faults = [
        *(f"{name!r:.80} is missing" for name in expected if name not in found),
        *(f"{name!r:.80} is not in the network" for name in found if name not in expected),
        *(
            f"{name!r:.80} is {found[name]!s:.80}, in the network {form}"
            for name, form in expected.items()
            if name in found and found[name] != form
        ),
    ]
    if faults:
        raise WeightsError(f"{path}: {len(faults)} tensor(s) are not the recorded network's, e.g. {faults[0]}")


def finite_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file by name.

    Raises :class:`~zoo.errors.WeightsError` where one holds a value that is not finite.
    """
    tensors = read_tensors(path)
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise WeightsError(
                f"{path}: tensor {name!r} holds values that are not finite; such a network predicts none"
            )
    return tensors
