"""Convert tensors to the rows of bytes that the cache stores for each image, and convert rows back to tensors."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from zoo.errors import ZooError
from zoo_harness.frozen.cache.key import DTYPES, DtypeName, TensorSpec


def spec_of(name: str, example: Tensor) -> TensorSpec:
    """Return the name, shape, dtype and memory layout of tensors like the example ``(B, ...)``.

    >>> spec_of("layer3", torch.ones(2, 512, 14, 14).to(memory_format=torch.channels_last)).order
    (0, 2, 3, 1)
    """
    order = memory_order(example) or tuple(range(example.dim()))
    return TensorSpec(name=name, shape=tuple(example.shape[1:]), dtype=_dtype_name(example.dtype), order=order)


def memory_order(values: Tensor) -> tuple[int, ...] | None:
    """Return the dimensions from the outermost to the innermost in memory, or ``None`` if the memory has gaps.

    >>> memory_order(torch.zeros(2, 3, 5).transpose(1, 2)), memory_order(torch.zeros(2, 3, 5)[:, 1:])
    ((0, 2, 1), None)
    """
    strides = values.stride()
    order = sorted(range(values.dim()), key=lambda dimension: (-strides[dimension], dimension))
    return tuple(order) if values.permute(order).is_contiguous() else None


def as_rows(spec: TensorSpec, tensor: Tensor) -> Tensor:
    """Convert a tensor ``(B, ...)`` to bytes, ``(B, bytes)`` of uint8, in the dtype and layout of the cache.

    Raises :class:`ValueError` if the tensor does not have the shape and dtype in ``spec``. Raises
    :class:`~zoo.errors.ZooError` if a finite value becomes infinite in the dtype of the cache.
    """
    if tuple(tensor.shape[1:]) != spec.shape or _dtype_name(tensor.dtype) != spec.dtype:
        given = f"{tensor.dtype} {tuple(tensor.shape)}"
        raise ValueError(f"cached tensor {spec.name!r}: expected {spec.dtype} (B, *{spec.shape}), given {given}")
    values = tensor.detach().permute(_row_order(spec))
    stored = values.to(getattr(torch, spec.stored_dtype))
    if spec.stored and (stored.isinf() & ~values.isinf()).any():
        raise ZooError(
            f"output {spec.name!r} is too large for {spec.stored}: "
            f"{float(values[values.isfinite()].abs().max()):.4g}; try --cache-dtype bf16, "
            f"or --cache-dtype exact to store {spec.dtype}",
            code="cache-overflow",
            option="--cache-dtype",
            name=spec.name,
            dtype=spec.stored,
        )
    return stored.reshape(len(stored), math.prod(spec.shape)).view(torch.uint8)


def from_rows(spec: TensorSpec, rows: Tensor) -> Tensor:
    """Convert B rows of at least ``spec.bytes`` bytes back to the tensor ``(B, ...)`` that the network computed."""
    order = _row_order(spec)
    shape = [(len(rows), *spec.shape)[dimension] for dimension in order]
    values = rows[:, : spec.bytes].contiguous().view(getattr(torch, spec.stored_dtype)).view(shape)
    return _permuted_back(values.to(getattr(torch, spec.dtype)), order)


def restore(spec: TensorSpec, values: Tensor) -> Tensor:
    """Convert values to the dtype and memory layout that the network computed, because these affect rounding."""
    permuted = values.to(getattr(torch, spec.dtype)).permute(spec.order).contiguous()
    return _permuted_back(permuted, spec.order)


def bytes_of(rows: Tensor) -> memoryview:
    """Return the memory of a contiguous host tensor as a ``memoryview`` of bytes."""
    return rows.view(-1).view(torch.uint8).numpy().data


def _row_order(spec: TensorSpec) -> list[int]:
    return [0, *(dimension for dimension in spec.order if dimension)]


def _permuted_back(values: Tensor, order: Sequence[int]) -> Tensor:
    return values.permute([order.index(dimension) for dimension in range(len(order))])


def _dtype_name(dtype: torch.dtype) -> DtypeName:
    name = str(dtype).removeprefix("torch.")
    if name not in DTYPES:
        raise ValueError(f"tensors of {name} cannot be cached; expected one of {', '.join(DTYPES)}")
    return name
