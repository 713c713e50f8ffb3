"""Check the features and labels that a user gives: numpy arrays or torch tensors."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.errors import DataError, UsageError
from zoo_harness.separation.knn.exact_distances import CHUNK_ELEMENTS, EXACT_DTYPES, by_parts

Array = np.ndarray[Any, np.dtype[Any]]


def checked_features(given: Array | Tensor, what: str = "features", *, least: int = 2) -> Tensor:
    """Return the features, (N, D), finite, in one of ``EXACT_DTYPES``; without a copy if they already are.

    ``what``: their name in errors. ``least``: the smallest number of samples accepted; 2 if samples are compared with
    each other.

    >>> checked_features(np.array([[1], [2]])).dtype
    torch.float64
    """
    features = _as_tensor(given, what)
    if features.is_complex() or features.dtype == torch.bool or features.layout is not torch.strided:
        raise UsageError(f"{what} are {_kind(features)}; expected real numbers in a dense array")
    shape = tuple(features.shape)
    if features.ndim != 2:
        raise UsageError(f"{what} have shape {shape}; expected (samples, features): pool or flatten")
    samples, width = shape
    if samples < least:
        need = "a nearest other sample needs at least two" if least > 1 else "expected at least one"
        raise DataError(f"{what} hold {samples} samples; {need}")
    if width < 1:
        raise DataError(f"{what} have shape {shape}; expected at least one number for each sample")
    if features.device.type == "mps":  # no float64 there
        features = features.cpu()
    _refuse_non_finite(features, what)
    return features if features.dtype in EXACT_DTYPES else _in_float64(features, what)


def checked_references(given: Array | Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
    """Return features and references, (N, D) and (M, D), of one dtype and on the device of the features.

    If the dtypes differ, both become float64, which represents either exactly.

    >>> [rows.dtype for rows in checked_references(np.ones((1, 2), "f4"), torch.zeros(3, 2, dtype=torch.float16))]
    [torch.float64, torch.float64]
    """
    references = checked_features(given, "references", least=1).to(features.device)
    if references.shape[1] != features.shape[1]:
        raise UsageError(
            f"references have {references.shape[1]} features a sample; expected {features.shape[1]}, as the samples to "
            "score have"
        )
    if references.dtype == features.dtype:
        return features, references
    return features.to(torch.float64), references.to(torch.float64)


def checked_labels(given: Array | Tensor, features: Tensor, what: str = "labels") -> Tensor:
    """Return the labels, (N,) int64, on the device of the features.

    >>> checked_labels(np.array([3, 0], dtype=np.uint8), torch.zeros(2, 1))
    tensor([3, 0])
    """
    labels = _as_tensor(given, what)
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise UsageError(f"{what} are {_kind(labels)}; expected integers, the class of each sample: convert them first")
    if labels.dtype == torch.uint64 and bool((labels.view(torch.int64) < 0).any()):
        raise DataError(f"{what} of 2^63 and more are too large; expected classes counted from 0")
    if labels.shape != features.shape[:1]:
        raise UsageError(f"{what} have shape {tuple(labels.shape)}; expected ({len(features)},), one for each sample")
    labels = labels.to(device=features.device, dtype=torch.int64)
    bad = (labels < 0).nonzero()[:, 0]
    if len(bad):
        first = int(bad[0])
        raise DataError(
            f"{len(bad)} of {len(labels)} {what} are negative, the first {int(labels[first])} at sample {first}; "
            "expected classes counted from 0: leave unlabelled samples out"
        )
    return labels


def _as_tensor(given: Array | Tensor, what: str) -> Tensor:
    if isinstance(given, Tensor):
        return given.detach()
    if not isinstance(given, np.ndarray):
        raise UsageError(f"{what} are of type {type(given).__name__}; expected a numpy array or a torch tensor")
    if what.endswith("labels") and given.dtype.kind in "OSU":
        raise UsageError(
            f"{what} are text or objects ({given.dtype}); expected whole numbers from 0 on: number the classes, as "
            "numpy.unique(labels, return_inverse=True)[1] does"
        )
    if given.dtype.kind not in "biufc" or given.dtype.itemsize > 16 or given.dtype == np.longdouble:
        raise UsageError(f"{what} are of dtype {given.dtype}; expected numbers of at most 64 bits")
    # Copy the arrays torch cannot share memory with: foreign byte order, negative strides, strides between elements.
    if not given.dtype.isnative or any(step < 0 or step % given.itemsize for step in given.strides):
        given = np.ascontiguousarray(given, dtype=given.dtype.newbyteorder("="))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns about read-only arrays; they are only read
        return torch.from_numpy(given)


def listed(rows: Tensor) -> str:
    """Return the first of some row numbers, for an error.

    >>> listed(torch.arange(7))
    '0, 1, 2, 3, 4, ...'
    """
    return ", ".join(str(row) for row in rows[:5].tolist()) + (", ..." if len(rows) > 5 else "")


def _refuse_non_finite(features: Tensor, what: str) -> None:
    step = max(1, CHUNK_ELEMENTS // features.shape[1])
    finite = by_parts(lambda part: part.to(torch.float64).isfinite().all(1), step, torch.bool, features)
    bad = (~finite).nonzero()[:, 0]
    if len(bad):
        raise DataError(
            f"{what} hold NaN or infinity in {len(bad)} of {len(finite)} rows ({listed(bad)}); "
            "expected finite numbers: check their computation, or leave these rows out"
        )


def _in_float64(features: Tensor, what: str) -> Tensor:
    exact = features.to(torch.float64)
    if not features.is_floating_point() and float(exact.abs().amax()) >= 2.0**53:
        raise DataError(
            f"{what} hold integers of 2^53 or more, which float64 cannot distinguish; scale them down first"
        )
    return exact


def _kind(tensor: Tensor) -> str:
    layout = "" if tensor.layout is torch.strided else f" ({tensor.layout})"
    return f"{tensor.dtype}".removeprefix("torch.") + layout
