"""Reads the tensors of a checkpoint after proof that they are those of a network, and of no other.

The digest comes first, then names, types and shapes as the header of the file declares them, compared with a network
on torch's meta device: neither a tensor that the file declares nor one that the record asks for takes memory before
both agree.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from zoo.errors import WeightsError
from zoo_harness.models.tensor_files import read_tensors
from zoo_harness.util.digests import sha256_of

LARGEST_HEADER = 16 * 2**20  # bytes; the largest network of timm needs less than a tenth
_TYPES = {"F": "float", "BF": "bfloat", "I": "int", "U": "uint"}


@dataclass(frozen=True)
class Form:
    """Type and shape of a tensor; ``dtype`` is torch's name, or the file's own if torch has no such type.

    >>> print(Form("float32", (3, 4)))
    float32 (3, 4)
    """

    dtype: str
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.dtype} ({', '.join(map(str, self.shape))})"


def forms_of(tensors: Mapping[str, Tensor]) -> dict[str, Form]:
    """Return the form of each tensor."""
    return {
        name: Form(str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape)) for name, tensor in tensors.items()
    }


def check_digest(path: Path, recorded: str) -> None:
    """Raise :class:`~zoo.errors.WeightsError` if the file's SHA-256 is not the recorded one."""
    if (found := sha256_of(path)) != recorded:
        raise WeightsError(
            f"{path}: SHA-256 is {found}, the run wrote {recorded}; the file is damaged or was changed: fetch it again "
            "(zoo pull), or take it from the run once more",
            code="checkpoint-changed",
            path=path,
        )


def declared_forms(path: Path) -> dict[str, Form]:
    """Return the form of each tensor as the header of a safetensors file declares it, without reading any tensor.

    Raises :class:`~zoo.errors.WeightsError` if the header is damaged, too large, or declares more or less than the
    file holds.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
        if size > LARGEST_HEADER:
            raise SafetensorError(f"it declares a header of {size:,} bytes; expected at most {LARGEST_HEADER:,}")
        with safe_open(path, framework="pt") as tensors:
            slices = {name: tensors.get_slice(name) for name in tensors.keys()}  # noqa: SIM118 - it has no iterator
            return {name: Form(_dtype(part.get_dtype()), tuple(part.get_shape())) for name, part in slices.items()}
    except (SafetensorError, OSError) as error:
        message = f"{path}: not a readable safetensors file: {error!s:.200}"
        raise WeightsError(message, code="not-safetensors", path=path) from error


def _dtype(name: str) -> str:
    number = re.fullmatch(r"(F|BF|I|U)(8|16|32|64)", name)
    return f"{_TYPES[number[1]]}{number[2]}" if number else name.lower()


def check_forms(path: Path, found: Mapping[str, Form], expected: Mapping[str, Form]) -> None:
    """Raise :class:`~zoo.errors.WeightsError` if the tensors of a file are not those of the recorded network."""
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
        message = f"{path}: {len(faults)} tensor(s) are not the recorded network's, e.g. {faults[0]}"
        raise WeightsError(message, code="other-tensors", path=path, faults=faults)


def finite_tensors(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a safetensors file; raise :class:`~zoo.errors.WeightsError` if a value is not finite."""
    tensors = read_tensors(path)
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            message = f"{path}: tensor {name!r} holds values that are not finite; the model cannot predict"
            raise WeightsError(message, code="not-finite", path=path, name=name)
    return tensors
