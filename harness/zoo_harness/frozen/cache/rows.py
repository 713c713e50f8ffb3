"""Tensors as a store keeps them: one row of bytes for each image, in the dtype and memory format that was chosen."""

from __future__ import annotations

import torch
from torch import Tensor

from zoo.errors import ZooError
from zoo_harness.frozen.cache.key import DTYPES, DtypeName, KeptTensor, StoredName


def kept_tensor(name: str, example: Tensor, stored: StoredName | None = None) -> KeptTensor:
    """How a tensor ``(B, ...)`` is kept: shape, dtype and memory format are those of the example.

    >>> kept_tensor("layer3", torch.ones(2, 512, 14, 14), "bfloat16").row_bytes
    200704
    """
    last = example.ndim == 4 and not example.is_contiguous()
    return KeptTensor(
        name=name,
        shape=tuple(example.shape[1:]),
        dtype=dtype_name(example.dtype),
        stored=stored,
        channels_last=last and example.is_contiguous(memory_format=torch.channels_last),
    )


def as_rows(kept: KeptTensor, tensor: Tensor) -> Tensor:
    """A tensor ``(B, ...)`` as it is stored.

    Raises :class:`ValueError` for one that is not as declared, and :class:`~zoo.errors.ZooError` where finite values
    are infinite in the dtype it is stored in.

    >>> as_rows(KeptTensor(name="cls", shape=(2,), dtype="float32", stored="float16"), torch.ones(3, 2)).dtype
    torch.float16
    """
    if tuple(tensor.shape[1:]) != kept.shape or dtype_name(tensor.dtype) != kept.dtype:
        given = f"{dtype_name(tensor.dtype)} {tuple(tensor.shape)}"
        raise ValueError(f"kept tensor {kept.name!r}: expected {kept.dtype} (B, *{kept.shape}), given {given}")
    values = tensor.detach().movedim(1, -1) if kept.channels_last else tensor.detach()
    if kept.stored_dtype == kept.dtype:
        return values
    stored = values.to(getattr(torch, kept.stored_dtype))
    if (stored.isinf() & ~values.isinf()).any():
        raise ZooError(
            f"output {kept.name!r} reaches {float(values[values.isfinite()].abs().max()):.4g}, too large for "
            f"{kept.stored_dtype}; take --cache-dtype bf16, or exact for {kept.dtype}"
        )
    return stored


def from_rows(kept: KeptTensor, rows: Tensor) -> Tensor:
    """What was stored, in the dtype and memory format it was computed in."""
    values = rows.to(getattr(torch, kept.dtype))
    return values.movedim(-1, 1) if kept.channels_last else values


def bytes_of(rows: Tensor) -> memoryview:
    """The memory of a tensor of the host, which is copied where it is not in one piece."""
    return rows.contiguous().reshape(-1).view(torch.uint8).numpy().data


def relative_difference(kept: Tensor, computed: Tensor) -> float:
    """The largest difference of two tensors, relative to the largest magnitude in the second."""
    scale = float(computed.double().abs().max())
    return float((kept.double() - computed.double()).abs().max()) / (scale or 1.0)


def dtype_name(dtype: torch.dtype) -> DtypeName:
    """The name of a dtype that can be kept."""
    name = str(dtype).removeprefix("torch.")
    if name not in DTYPES:
        raise ValueError(f"tensors of {name} cannot be kept, only those of {', '.join(DTYPES)}")
    return name
