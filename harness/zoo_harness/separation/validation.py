"""Check the features, labels and numbers that a user gives; arrays are those of numpy or torch."""

from __future__ import annotations

import operator
import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.errors import DataError, UsageError
from zoo_harness.separation.knn.exact_distances import EXACT_DTYPES, by_parts, chunk_rows

Array = np.ndarray[Any, np.dtype[Any]]


def checked_integer(name: str, given: Any, least: int, most: int | None = None, why: str = "") -> int:
    """Return the number if it is an integer from ``least`` to ``most``; ``why`` explains the limit in errors.

    >>> checked_integer("order", np.int64(2), 1)
    2
    """
    try:
        number = least - 1 if isinstance(given, bool) else operator.index(given)
    except TypeError:
        number = least - 1
    if number < least or (most is not None and number > most):
        limit = "" if most is None else f" to {most}{why}"
        message = f"{name} is wrong: {given!r}; expected an integer from {least}{limit}"
        raise UsageError(message, code="option-range", option=name, given=given, least=least, most=most)
    return number


def checked_features(given: Array | Tensor, what: str = "features", *, least: int = 2) -> Tensor:
    """Return the features, (N, D), finite, in one of ``EXACT_DTYPES``; without a copy if they already are.

    ``what``: their name in errors. ``least``: the smallest number of samples accepted; 2 if samples are compared with
    each other.

    >>> checked_features(np.array([[1], [2]])).dtype
    torch.float64
    """
    features = _as_tensor(given, what)
    if features.is_complex() or features.dtype == torch.bool or features.layout is not torch.strided:
        raise _wrong_dtype(what, features, "real numbers in a dense array")
    if features.ndim != 2:
        raise _wrong_shape(what, features, "(samples, features); try to pool or flatten")
    shape = tuple(features.shape)
    if shape[0] < least or shape[1] < 1:
        message = f"{what} are too few: shape {shape}; expected at least ({least}, 1)"
        raise DataError(message, code="array-too-small", array=what, shape=shape)
    if features.device.type == "mps":  # no float64 there
        features = features.cpu()
    finite = features.new_empty(len(features), dtype=torch.bool)
    by_parts(lambda part: part.to(torch.float64).isfinite().all(1), chunk_rows(features), finite, features)
    refuse_rows(~finite, f"{what} hold NaN or infinity", "finite numbers; try to leave these rows out", "not-finite")
    if features.dtype in EXACT_DTYPES:
        return features
    exact = features.to(torch.float64)
    if not features.is_floating_point() and float(exact.abs().amax()) >= 2.0**53:
        message = f"{what} are too large for float64: integers of 2^53 or more; try to scale them down"
        raise DataError(message, code="integers-too-large", array=what)
    return exact


def checked_references(given: Array | Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
    """Return features and references, (N, D) and (M, D), of one dtype and on the device of the features.

    If the dtypes differ, both become float64, which represents either exactly.

    >>> [rows.dtype for rows in checked_references(np.ones((1, 2), "f4"), torch.zeros(3, 2, dtype=torch.float16))]
    [torch.float64, torch.float64]
    """
    references = checked_features(given, "references", least=1).to(features.device)
    if references.shape[1] != features.shape[1]:
        raise _wrong_shape("references", references, f"(references, {features.shape[1]}), as wide as the features")
    if references.dtype == features.dtype:
        return features, references
    return features.to(torch.float64), references.to(torch.float64)


def checked_labels(given: Array | Tensor, features: Tensor, what: str = "labels") -> Tensor:
    """Return the labels, (N,) int64, on the device of the features.

    They are integers, bools, or floats that are whole numbers; the shape is (N,) or (N, 1).

    >>> checked_labels(np.array([[3.0], [0.0]]), torch.zeros(2, 1))
    tensor([3, 0])
    """
    labels = _as_tensor(given, what)
    if labels.is_complex() or labels.layout is not torch.strided:
        raise _wrong_dtype(what, labels, "integers, the class of each sample")
    labels = one_dimensional(labels)
    if labels.shape != features.shape[:1]:
        raise _wrong_shape(what, labels, f"({len(features)},), one for each sample")
    if labels.is_floating_point():
        _refuse_fractions(labels, what)
    unsigned = labels.dtype == torch.uint64
    labels = labels.to(device=features.device, dtype=torch.int64)
    fault = "2^63 or more" if unsigned else "negative"
    expected = "classes counted from 0; try to leave unlabelled samples out"
    refuse_rows(labels < 0, f"{what} are out of range: {fault}", expected, "label-range")
    return labels


def named_labels(given: Array | Tensor, what: str = "labels") -> tuple[Array | Tensor, tuple[str, ...]]:
    """Return labels that are no numbers, (N,) or (N, 1), as indices of their class names, and the names, sorted.

    Text, bytes and times have names; numbers are returned unchanged, without names. Raises
    :class:`~zoo.errors.DataError` for missing labels: null and empty text.

    >>> named_labels(np.array(["dog", "cat", "dog"]))
    (array([1, 0, 1]), ('cat', 'dog'))
    >>> named_labels(np.array([3, 0]))
    (array([3, 0]), ())
    """
    if not isinstance(given, np.ndarray) or given.dtype.kind not in "USOMm":
        return given, ()
    if given.ndim == 2 and given.shape[1] == 1:
        given = given[:, 0]
    if given.ndim != 1 or any(isinstance(value, dict | list | np.ndarray) for value in given.flat):
        raise _wrong_dtype(what, given, "numbers or text, the class of each sample")
    values = (given.astype(str) if given.dtype.kind in "Mm" else given).tolist()  # nanoseconds would become integers
    texts = np.array([_class_name(value) for value in values], dtype=object)
    missing = torch.tensor([not text.strip() or text == "NaT" for text in texts.tolist()], dtype=torch.bool)
    expected = "a class for each sample; try to leave unlabelled samples out"
    refuse_rows(missing, f"{what} are missing", expected, "label-missing")
    names, indices = np.unique(texts, return_inverse=True)
    return indices.astype(np.int64), tuple(names.tolist())


def _class_name(value: object) -> str:
    if value is None or value != value:  # null or NaN
        return ""
    return value.decode(errors="backslashreplace") if isinstance(value, bytes) else str(value)


def one_dimensional(labels: Tensor) -> Tensor:
    """Return labels of shape (N, 1) as (N,), and others as they are."""
    return labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels


def _refuse_fractions(labels: Tensor, what: str) -> None:
    dtype = str(labels.dtype).removeprefix("torch.")
    limit = int(2 / torch.finfo(labels.dtype).eps)  # from here on the dtype rounds whole numbers, which merges classes
    numbers = labels.to(device="cpu", dtype=torch.float64)
    expected = "whole numbers, the class of each sample"
    refuse_rows(numbers != numbers.round(), f"{what} have fractions or are NaN", expected, "label-fraction")
    refuse_rows(numbers.abs() >= limit, f"{what} may be rounded: {dtype} of {limit} or more", "integers", "label-range")


def refuse_rows(bad: Tensor, fault: str, expected: str, code: str) -> None:
    """Raise a :class:`DataError` that lists the first bad rows, if there are any; ``bad``: (N,) bool."""
    rows = bad.nonzero()[:, 0].tolist()
    if rows:
        listed = ", ".join(map(str, rows[:5])) + (", ..." if len(rows) > 5 else "")
        raise DataError(
            f"{fault} in {len(rows)} of {len(bad)} rows ({listed}); expected {expected}", code=code, rows=rows
        )


def _as_tensor(given: Array | Tensor, what: str) -> Tensor:
    if isinstance(given, Tensor):
        return given.detach()
    if not isinstance(given, np.ndarray):
        advice = f"; try the to_numpy() of the columns that are {what}" if hasattr(given, "to_numpy") else ""
        message = f"{what} are not an array: {type(given).__name__}; expected a numpy array or a torch tensor{advice}"
        raise UsageError(message, code="array-type", array=what)
    if given.dtype.kind not in "biufc" or given.dtype.itemsize > 16 or given.dtype == np.longdouble:
        advice = "; try numpy.unique(labels, return_inverse=True)[1]" if what.endswith("labels") else ""
        raise _wrong_dtype(what, given, f"numbers of at most 64 bits{advice}")
    # Copy the arrays torch cannot share memory with: foreign byte order, negative strides, strides between elements.
    if not given.dtype.isnative or any(step < 0 or step % given.itemsize for step in given.strides):
        given = np.ascontiguousarray(given, dtype=given.dtype.newbyteorder("="))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns about read-only arrays; they are only read
        return torch.from_numpy(given)


def _wrong_dtype(what: str, given: Array | Tensor, expected: str) -> UsageError:
    dtype = str(given.dtype).removeprefix("torch.")
    if isinstance(given, Tensor) and given.layout is not torch.strided:
        dtype += f" ({given.layout})"
    return UsageError(f"{what} have the wrong dtype: {dtype}; expected {expected}", code="array-dtype", array=what)


def _wrong_shape(what: str, given: Tensor, expected: str) -> UsageError:
    shape = tuple(given.shape)
    return UsageError(
        f"{what} have the wrong shape: {shape}; expected {expected}", code="array-shape", array=what, shape=shape
    )
