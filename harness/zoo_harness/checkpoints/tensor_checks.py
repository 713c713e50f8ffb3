"""Check that a checkpoint file has the tensors of the recorded network, before any tensor is allocated.

The names, types and shapes in the file's header are compared with a network on torch's meta device. Tensors on the meta
device use no memory, so a manipulated file or record cannot exhaust the memory.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from zoo.errors import WeightsError
from zoo_harness.models.tensor_files import form, form_of

LARGEST_HEADER = 16 * 2**20  # bytes; the largest timm network needs less than a tenth of this limit
_TYPES = {"F": "float", "BF": "bfloat", "I": "int", "U": "uint"}


def check_forms(path: Path, network: Mapping[str, Tensor], source: Path | None = None, *, some: bool = False) -> None:
    """Raise :class:`~zoo.errors.WeightsError` if a safetensors file has other tensors than the network.

    If ``source`` is given, the function reads that path, but error messages still contain ``path``. If ``some`` is
    true, the file may lack some of the network's tensors.
    """
    found, expected = _declared_forms(path, source or path), {name: form_of(tensor) for name, tensor in network.items()}
    faults = [
        *(f"{name!r:.80} is missing" for name in expected if name not in found and not some),
        *(f"{name!r:.80} is not in the network" for name in found if name not in expected),
        *(
            f"{name!r:.80} is {found[name]:.80}, but {wanted} in the network"
            for name, wanted in expected.items()
            if name in found and found[name] != wanted
        ),
    ]
    if faults:
        message = f"{path}: {len(faults)} tensor(s) differ from the recorded network, e.g. {faults[0]}"
        raise WeightsError(message, code="other-tensors", path=path, faults=faults)


def _declared_forms(path: Path, source: Path) -> dict[str, str]:
    """Return the type and shape of each tensor as the header of a safetensors file declares them.

    The tensors themselves are not read. Raises :class:`~zoo.errors.WeightsError` if the header is damaged or too large,
    or does not match the size of the file.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with source.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
        if size > LARGEST_HEADER:
            raise SafetensorError(f"the header has {size:,} bytes; expected at most {LARGEST_HEADER:,}")
        with safe_open(source, framework="pt") as tensors:
            slices = {name: tensors.get_slice(name) for name in tensors.keys()}  # noqa: SIM118 - safe_open has no iterator
            return {name: form(_dtype(part.get_dtype()), part.get_shape()) for name, part in slices.items()}
    except (SafetensorError, OSError) as error:
        message = f"{path}: not a readable safetensors file: {error!s:.200}"
        raise WeightsError(message, code="not-safetensors", path=path) from error


def _dtype(name: str) -> str:
    """Convert a safetensors type name to torch's name, such as ``F32`` to ``float32``; write others in lower case."""
    number = re.fullmatch(r"(F|BF|I|U)(8|16|32|64)", name)
    return f"{_TYPES[number[1]]}{number[2]}" if number else name.lower()
