"""Validate features, labels and integer arguments of the separation functions; arrays are from numpy or torch."""

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
    """Return a number as an ``int``; raise :class:`UsageError` if it is not an integer from ``least`` to ``most``.

    ``name``: the argument's name in the error message. ``why``: words that explain the upper limit in the error
    message.

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
    """Check that features are a finite (N, D) array, and convert the array to float64 if its dtype is not exact.

    ``what``: the name of the array in error messages. ``least``: the smallest number of samples accepted; 2 if samples
    are compared with each other. A dtype is exact if it is one of the ``EXACT_DTYPES``; features with an exact dtype
    are not copied.

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
    if features.device.type == "mps":  # Apple GPUs do not support float64
        features = features.cpu()
    finite = features.new_empty(len(features), dtype=torch.bool)
    by_parts(lambda part: part.to(torch.float64).isfinite().all(1), chunk_rows(features), finite, features)
    refuse_rows(~finite, f"{what} hold NaN or infinity", "finite numbers; try to exclude these rows", "not-finite")
    if features.dtype in EXACT_DTYPES:
        return features
    exact = features.to(torch.float64)
    if not features.is_floating_point() and float(exact.abs().amax()) >= 2.0**53:
        message = f"{what} are too large for float64: integers of 2^53 or more; try to scale them down"
        raise DataError(message, code="integers-too-large", array=what)
    return exact


def checked_references(given: Array | Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
    """Check the references, and return features (N, D) and references (M, D) with one dtype and on one device.

    If the dtypes differ, both tensors are converted to float64, which represents the values of both dtypes exactly.
    References are moved to the device of the features.

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
    """Check labels of shape (N,) or (N, 1), and return them as (N,) int64 on the device of the features.

    Labels are integers, bools, or floating-point numbers without fractions. ``what``: the name of the array in error
    messages.

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
    expected = "class indices from 0; try to exclude unlabelled samples"
    refuse_rows(labels < 0, f"{what} are out of range: {fault}", expected, "label-range")
    return labels


def named_labels(given: Array | Tensor, what: str = "labels") -> tuple[Array | Tensor, tuple[str, ...]]:
    """Convert labels that are text, bytes or times to class indices, and return the indices and the sorted class names.

    Numeric labels are returned unchanged, with an empty tuple of class names. The labels have shape (N,) or (N, 1).
    Raises :class:`~zoo.errors.DataError` if a label is missing, which means null or empty text.

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
    # Without astype(str), tolist() would convert times in nanoseconds to integers.
    values = (given.astype(str) if given.dtype.kind in "Mm" else given).tolist()
    texts = np.array([_class_name(value) for value in values], dtype=object)
    missing = torch.tensor([not text.strip() or text == "NaT" for text in texts.tolist()], dtype=torch.bool)
    expected = "a class for each sample; try to exclude unlabelled samples"
    refuse_rows(missing, f"{what} are missing", expected, "label-missing")
    names, indices = np.unique(texts, return_inverse=True)
    return indices.astype(np.int64), tuple(names.tolist())


def _class_name(value: object) -> str:
    if value is None or value != value:  # null or NaN
        return ""
    return value.decode(errors="backslashreplace") if isinstance(value, bytes) else str(value)


def one_dimensional(labels: Tensor) -> Tensor:
    """Reshape labels from (N, 1) to (N,), and return labels of other shapes unchanged."""
    return labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels


def _refuse_fractions(labels: Tensor, what: str) -> None:
    dtype = str(labels.dtype).removeprefix("torch.")
    limit = int(2 / torch.finfo(labels.dtype).eps)  # the dtype rounds larger whole numbers, which merges classes
    numbers = labels.to(device="cpu", dtype=torch.float64)
    expected = "whole numbers, the class of each sample"
    refuse_rows(numbers != numbers.round(), f"{what} have fractions or are NaN", expected, "label-fraction")
    fault = f"{what} may be rounded, because they are {dtype} numbers of {limit} or more,"
    refuse_rows(numbers.abs() >= limit, fault, "integers", "label-range")


def refuse_rows(bad: Tensor, fault: str, expected: str, code: str) -> None:
    """Raise a :class:`DataError` that lists the first invalid rows, if any row is invalid.

    ``bad``: (N,) bool, true for invalid rows. ``fault``: what is wrong with these rows. ``expected``: what valid rows
    contain. ``code``: the error code.
    """
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
        advice = "; try dataframe[COLUMNS].to_numpy()" if hasattr(given, "to_numpy") else ""
        message = f"{what} are not an array: {type(given).__name__}; expected a numpy array or a torch tensor{advice}"
        raise UsageError(message, code="array-type", array=what)
    if given.dtype.kind not in "biufc" or given.dtype.itemsize > 16 or given.dtype == np.longdouble:
        advice = "; try numpy.unique(labels, return_inverse=True)[1]" if what.endswith("labels") else ""
        raise _wrong_dtype(what, given, f"numbers of at most 64 bits{advice}")
    # torch cannot share memory with an array whose byte order is foreign, or whose strides are negative or are not
    # multiples of the element size.
    if not given.dtype.isnative or any(step < 0 or step % given.itemsize for step in given.strides):
        given = np.ascontiguousarray(given, dtype=given.dtype.newbyteorder("="))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of read-only arrays, but the tensor is never written
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
