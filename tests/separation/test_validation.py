"""Features and labels that are refused, with what is wrong with them."""

from __future__ import annotations

import numpy as np
import pandas
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
    (np.zeros((1, 3), dtype=int), UsageError, "array-shape", {"shape": (1, 3)}),
    (np.zeros((3, 2), dtype=int), UsageError, "array-shape", {"shape": (3, 2)}),
    (np.zeros(3, dtype=complex), UsageError, "array-dtype", {}),
    (np.array([0.0, 0.5, np.nan]), DataError, "label-fraction", {"rows": [1, 2]}),
    (np.array([0.0, np.inf, -1.0]), DataError, "label-range", {"rows": [1]}),
    (np.array([0.0, -1.0, 1.0]), DataError, "label-range", {"rows": [1]}),
    (torch.tensor([255.0, 256, 0]).bfloat16(), DataError, "label-range", {"rows": [1]}),
    (torch.tensor([2047.0, 2048, 0]).half(), DataError, "label-range", {"rows": [1]}),
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


@pytest.mark.parametrize("shape", [(-1,), (-1, 1)])
@pytest.mark.parametrize("kind", ["?", "u1", "<i4", ">i8", "f2", "f4", "f8", "bfloat16", "float8_e4m3fn"])
def test_labels_are_whole_numbers_of_any_type(kind, shape):
    features, numbers = np.random.default_rng(0).normal(size=(40, 2)), np.arange(40) % 2
    converted = torch.from_numpy(numbers).to(getattr(torch, kind)) if "float" in kind else numbers.astype(kind)
    result = separation(features, converted.reshape(shape), references=features[:9], reference_labels=converted[:9])
    expected = separation(features, numbers, references=features[:9], reference_labels=numbers[:9])
    assert result.to_dict() == expected.to_dict()


def test_a_data_frame_is_refused_with_the_way_to_its_feature_columns():
    with pytest.raises(UsageError, match=r"not an array: DataFrame.*dataframe\[COLUMNS\]\.to_numpy\(\)") as caught:
        separation(pandas.DataFrame({"x": [0.0, 1.0]}), np.arange(2))
    assert caught.value.code == "array-type"


def test_the_first_bad_rows_are_listed():
    with pytest.raises(DataError, match=r"features hold NaN or infinity in 18 of 20 rows \(2, 3, 4, 5, 6, \.\.\.\)"):
        separation_index(spoilt(range(2, 20), np.nan), np.zeros(20, dtype=int))


def test_labels_that_are_text_come_with_a_way_to_number_them():
    with pytest.raises(UsageError, match=r"labels have the wrong dtype: <U3; expected numbers .*numpy.unique"):
        separation(np.eye(3), np.array(["cat", "cat", "dog"]))
