"""Converts tensors to the rows of bytes in a cache, one for each image, and back."""

from __future__ import annotations

import torch
from torch import Tensor

from zoo.errors import ZooError
from zoo_harness.frozen.cache.key import DTYPES, CachedTensor, DtypeName, StoredName


def cached_tensor(name: str, example: Tensor, stored: StoredName | None = None) -> CachedTensor:
    """Describe tensors like the example ``(B, ...)`` by shape, dtype and memory format.

    >>> cached_tensor("layer3", torch.ones(2, 512, 14, 14), "bfloat16").row_bytes
    200704
    """
    last = example.ndim == 4 and not example.is_contiguous()
    return CachedTensor(
        name=name,
        shape=tuple(example.shape[1:]),
        dtype=_dtype_name(example.dtype),
        stored=stored,
        channels_last=last and example.is_contiguous(memory_format=torch.channels_last),
    )


def empty_rows(spec: CachedTensor, images: int, device: torch.device | None, *, pinned: bool = False) -> Tensor:
    """Return uninitialised rows of stored values for a number of images."""
    dtype = getattr(torch, spec.stored_dtype)
    return torch.empty((images, *spec.row_shape), dtype=dtype, device=device, pin_memory=pinned)


def as_rows(spec: CachedTensor, tensor: Tensor) -> Tensor:
    """Convert a tensor ``(B, ...)`` to the dtype and memory format of the cache.

    Raises :class:`ValueError` for a tensor of another shape or dtype, and :class:`~zoo.errors.ZooError` if a finite
    value becomes infinite.

    >>> as_rows(CachedTensor(name="cls", shape=(2,), dtype="float32", stored="float16"), torch.ones(3, 2)).dtype
    torch.float16
    """
    if tuple(tensor.shape[1:]) != spec.shape or _dtype_name(tensor.dtype) != spec.dtype:
        given = f"{tensor.dtype} {tuple(tensor.shape)}"
        raise ValueError(f"cached tensor {spec.name!r}: expected {spec.dtype} (B, *{spec.shape}), given {given}")
    values = tensor.detach().movedim(1, -1) if spec.channels_last else tensor.detach()
    stored = values.to(getattr(torch, spec.stored_dtype))
    if spec.stored and (stored.isinf() & ~values.isinf()).any():
        raise ZooError(
            f"output {spec.name!r} is too large for {spec.stored}: "
            f"{float(values[values.isfinite()].abs().max()):.4g}; try --cache-dtype bf16, or exact for {spec.dtype}",
            code="cache-overflow",
            option="--cache-dtype",
            name=spec.name,
            dtype=spec.stored,
        )
    return stored


def from_rows(spec: CachedTensor, rows: Tensor) -> Tensor:
    """Convert stored rows to the dtype and memory format that the network computed."""
    values = rows.to(getattr(torch, spec.dtype))
    return values.movedim(-1, 1) if spec.channels_last else values


def bytes_of(rows: Tensor) -> memoryview:
    """Return the memory of a host tensor; one that is not contiguous is copied."""
    return rows.contiguous().reshape(-1).view(torch.uint8).numpy().data


def _dtype_name(dtype: torch.dtype) -> DtypeName:
    name = str(dtype).removeprefix("torch.")
    if name not in DTYPES:
        raise ValueError(f"tensors of {name} cannot be cached; expected one of {', '.join(DTYPES)}")
    return name
