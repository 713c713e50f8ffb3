"""Features and labels that are refused, with what is wrong with them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from zoo.errors import DataError, UsageError
from zoo_harness.separation.index import separation, separation_index

FINE = np.arange(6.0).reshape(3, 2)


def spoilt(rows, value):
    features = np.zeros((20, 2), dtype=np.float32)
    features[rows, 1] = value
    return features


FEATURES = [
    (spoilt([3, 11], np.nan), DataError, "not-finite", {"rows": [3, 11]}),
    (spoilt(range(2, 20), -np.inf), DataError, "not-finite", {"rows": list(range(2, 20))}),
    (np.zeros(6), UsageError, "array-shape", {"shape": (6,)}),
    (np.zeros((3, 2, 2)), UsageError, "array-shape", {"shape": (3, 2, 2)}),
    (np.zeros((0, 4)), DataError, "array-too-small", {"shape": (0, 4)}),
    (np.zeros((1, 4)), DataError, "array-too-small", {"shape": (1, 4)}),
    (np.zeros((3, 0)), DataError, "array-too-small", {"shape": (3, 0)}),
    (np.zeros((3, 2), dtype=complex), UsageError, "array-dtype", {}),
    (np.zeros((3, 2), dtype=bool), UsageError, "array-dtype", {}),
    (np.zeros((3, 2), dtype=object), UsageError, "array-dtype", {}),
    (np.zeros((3, 2), dtype=np.longdouble), UsageError, "array-dtype", {}),
    (torch.eye(3).to_sparse(), UsageError, "array-dtype", {}),
    (np.full((3, 2), 2**53 + 1), DataError, "integers-too-large", {}),
    (FINE.tolist(), UsageError, "array-type", {}),
]
LABELS = [
    (np.zeros(4, dtype=int), UsageError, "array-shape", {"shape": (4,)}),
    (np.zeros((3, 1), dtype=int), UsageError, "array-shape", {"shape": (3, 1)}),
    (np.zeros(3), UsageError, "array-dtype", {}),
    (np.zeros(3, dtype=bool), UsageError, "array-dtype", {}),
    (np.array(["a", "b", "c"]), UsageError, "array-dtype", {}),
    ([0, 1, 2], UsageError, "array-type", {}),
    (np.array([0, -1, -2]), DataError, "label-range", {"rows": [1, 2]}),
    (np.arange(3, dtype=np.uint64) + 2**63, DataError, "label-range", {"rows": [0, 1, 2]}),
]
CASES = [
    *((features, np.zeros(len(features), dtype=int), *rest, "features") for features, *rest in FEATURES),
    *((FINE, labels, *rest, "labels") for labels, *rest in LABELS),
]


@pytest.mark.parametrize(("features", "labels", "error", "code", "facts", "array"), CASES)
@pytest.mark.parametrize("function", [separation_index, separation])
def test_features_and_labels_are_refused(function, features, labels, error, code, facts, array):
    with pytest.raises(error) as caught:
        function(features, labels)
    assert caught.value.code == code
    assert facts.items() <= caught.value.facts.items()
    assert array in str(caught.value)


def test_the_first_bad_rows_are_listed():
    with pytest.raises(DataError, match=r"features hold NaN or infinity in 18 of 20 rows \(2, 3, 4, 5, 6, \.\.\.\)"):
        separation_index(spoilt(range(2, 20), np.nan), np.zeros(20, dtype=int))


def test_labels_that_are_text_come_with_a_way_to_number_them():
    with pytest.raises(UsageError, match=r"labels have the wrong dtype: <U3; expected numbers .*numpy.unique"):
        separation(np.eye(3), np.array(["cat", "cat", "dog"]))
