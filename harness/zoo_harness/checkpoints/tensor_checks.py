"""Checks that a checkpoint has the tensors of the recorded network.

Names, types and shapes are those that the header of the file declares, compared with a network on torch's meta device:
neither a tensor that the file declares nor one that the record asks for takes memory before both agree.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from zoo.errors import WeightsError
from zoo_harness.models.tensor_files import form, form_of

LARGEST_HEADER = 16 * 2**20  # bytes; the largest network of timm needs less than a tenth
_TYPES = {"F": "float", "BF": "bfloat", "I": "int", "U": "uint"}


def check_forms(path: Path, network: Mapping[str, Tensor], source: Path | None = None, *, some: bool = False) -> None:
    """Raise :class:`~zoo.errors.WeightsError` if the tensors of a safetensors file are not those of the network.

    ``source`` is the file to read if ``path`` is only its name. With ``some`` the file may lack tensors.
    """
    found, expected = _declared_forms(path, source or path), {name: form_of(tensor) for name, tensor in network.items()}
    faults = [
        *(f"{name!r:.80} is missing" for name in expected if name not in found and not some),
        *(f"{name!r:.80} is not in the network" for name in found if name not in expected),
        *(
            f"{name!r:.80} is {found[name]:.80}, in the network {wanted}"
            for name, wanted in expected.items()
            if name in found and found[name] != wanted
        ),
    ]
    if faults:
        message = f"{path}: {len(faults)} tensor(s) are not the recorded network's, e.g. {faults[0]}"
        raise WeightsError(message, code="other-tensors", path=path, faults=faults)


def _declared_forms(path: Path, source: Path) -> dict[str, str]:
    """Return type and shape of each tensor as the header declares them, without reading any tensor.

    Raises :class:`~zoo.errors.WeightsError` if the header is damaged, too large, or declares more or less than the
    file holds.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with source.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
        if size > LARGEST_HEADER:
            raise SafetensorError(f"it declares a header of {size:,} bytes; expected at most {LARGEST_HEADER:,}")
        with safe_open(source, framework="pt") as tensors:
            slices = {name: tensors.get_slice(name) for name in tensors.keys()}  # noqa: SIM118 - it has no iterator
            return {name: form(_dtype(part.get_dtype()), part.get_shape()) for name, part in slices.items()}
    except (SafetensorError, OSError) as error:
        message = f"{path}: not a readable safetensors file: {error!s:.200}"
        raise WeightsError(message, code="not-safetensors", path=path) from error


def _dtype(name: str) -> str:
    """Return torch's name of a safetensors type, or the type's own name if torch has no such type."""
    number = re.fullmatch(r"(F|BF|I|U)(8|16|32|64)", name)
    return f"{_TYPES[number[1]]}{number[2]}" if number else name.lower()
