"""The Separation Index against scikit-learn and on small examples; what may be given, and what may not."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.neighbors import NearestNeighbors

from zoo.errors import DataError, UsageError
from zoo_harness.separation.index import separation_index
from zoo_harness.separation.knn.search import MEMORY_BUDGET

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def gaussian(seed, n=150, width=24, classes=4, spread=1.0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    return spread * rng.normal(size=(classes, width))[labels] + rng.normal(size=(n, width)), labels


# Against independent answers


@pytest.mark.parametrize("budget", [1, 100_000, MEMORY_BUDGET])
@pytest.mark.parametrize("seed", range(3))
def test_equals_leave_one_out_nearest_neighbour_of_scikit_learn(seed, budget):
    features, labels = gaussian(seed, spread=0.4)
    indices = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(features).kneighbors(return_distance=False)[:, 0]
    result = separation_index(features, labels, memory_budget=budget)
    assert result.nearest.tolist() == indices.tolist()
    assert result.value == (labels[indices] == labels).mean()
    assert 0.2 < result.value < 1
    assert (result.ties, result.tied_disagreements) == (0, 0)


def test_digits():
    features, labels = load_digits(return_X_y=True)
    result = separation_index(features, labels)
    distances, indices = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(features).kneighbors()
    gaps = np.linalg.norm(features - features[result.nearest], axis=1)
    np.testing.assert_allclose(gaps, distances[:, 0], rtol=1e-12)
    reference = (labels[indices[:, 0]] == labels).mean()  # which of the tied scikit-learn takes is up to chance
    assert abs(result.value - reference) <= result.tied_disagreements / len(labels)
    assert result.value == pytest.approx(0.988, abs=5e-4)
    assert result.ties > 0


@pytest.mark.parametrize("side", [6, 40])
def test_ties_agree_with_integer_arithmetic(side):
    rng = np.random.default_rng(side)
    x, labels = rng.integers(0, side, (200, 3)), rng.integers(0, 3, 200)
    nearest, ties, disagreements = [], 0, 0
    for i, row in enumerate(x):
        distances = ((x - row) ** 2).sum(1)
        distances[i] = np.iinfo(distances.dtype).max
        tied = np.flatnonzero(distances == distances.min())
        nearest.append(int(tied[0]))
        ties += len(tied) > 1
        disagreements += len(set((labels[tied] == labels[i]).tolist())) > 1
    result = separation_index(x, labels)
    assert result.nearest.tolist() == nearest
    assert (result.ties, result.tied_disagreements) == (ties, disagreements)
    assert result.value == (labels[nearest] == labels).mean()
    assert 0 < disagreements < ties


# What may be given


def nearest_in_float64(features):
    """The same search on a plain copy."""
    plain = torch.tensor(features.tolist(), dtype=torch.float64)
    return separation_index(plain, torch.arange(len(plain))).nearest.tolist()


@pytest.mark.parametrize("dtype", [*FLOATS, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64], ids=str)
def test_dtypes_are_taken_as_given(dtype):
    features = torch.from_numpy(gaussian(6)[0] * 20).abs().to(dtype)
    labels = torch.arange(len(features)) % 7
    assert separation_index(features, labels).nearest.tolist() == nearest_in_float64(features)


@pytest.mark.parametrize("dtype", [">f4", "<f8", ">i2", "u1", "u2", "u4", "u8"])
def test_numpy_dtypes(dtype):
    features = np.abs(gaussian(7)[0] * 20).astype(dtype)
    labels = np.arange(len(features), dtype=dtype.replace("f", "i")) % 7
    assert separation_index(features, labels).nearest.tolist() == nearest_in_float64(features)


LAYOUTS = {
    "every other column": lambda x: x[:, ::2],
    "every third row": lambda x: x[::3],
    "transposed": lambda x: np.asfortranarray(x),
    "backwards": lambda x: x[::-1, ::-1],
    "field of packed records": lambda x: np.rec.fromarrays([x, x.astype("i1")], dtype=[("x", "f8"), ("y", "i1")])["x"],
    "read only": lambda x: np.lib.stride_tricks.as_strided(x, writeable=False),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_of_memory(layout):
    features = LAYOUTS[layout](gaussian(8)[0])
    before = features.copy()
    labels = np.arange(2 * len(features))[::-2] % 3
    assert separation_index(features, labels).nearest.tolist() == nearest_in_float64(before)
    np.testing.assert_array_equal(features, before)


def test_strided_and_differentiable_tensors():
    wide = torch.from_numpy(gaussian(9)[0]).requires_grad_()
    for features in (wide[:, 3::2], wide.T.contiguous().T, wide[:, :1].expand(-1, 5)):
        result = separation_index(features, torch.arange(len(features)))
        assert result.nearest.tolist() == nearest_in_float64(features)
        assert not result.nearest.requires_grad


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_on_cuda_as_on_the_cpu():
    for dtype in FLOATS:
        features = torch.from_numpy(gaussian(10)[0]).to(dtype)
        labels = torch.arange(len(features)) % 3
        there, here = separation_index(features.cuda(), labels), separation_index(features, labels)
        assert there.nearest.is_cuda
        assert (there.nearest.tolist(), there.value, there.ties) == (here.nearest.tolist(), here.value, here.ties)


# What must and must not change the result


def test_equal_rows_with_other_labels_are_ties_that_matter():
    features, labels = np.array([[1.0]] * 3 + [[2.0]]), np.array([0, 1, 0, 1])
    result = separation_index(features, labels)
    assert result.nearest.tolist() == [1, 0, 0, 0]
    assert result.value == 0.25
    assert (result.ties, result.tied_disagreements) == (4, 3)


def test_order_of_samples_does_not_matter():
    features, labels = gaussian(19)
    order = np.random.default_rng(0).permutation(len(labels))
    plain, permuted = separation_index(features, labels), separation_index(features[order], labels[order])
    assert plain.value == permuted.value
    assert order[permuted.nearest].tolist() == plain.nearest[order].tolist()


def test_names_of_classes_do_not_matter():
    features, labels = gaussian(20)
    assert separation_index(features, labels).value == separation_index(features, 10**12 - 7 * labels).value


def test_labels_and_the_scale_of_a_feature_do_matter():
    features, labels = gaussian(21, spread=3.0)
    value = separation_index(features, labels).value
    assert value > 0.99
    assert separation_index(features, np.random.default_rng(0).permutation(labels)).value < 0.5
    features[:, 0] += 1e3 * np.random.default_rng(1).normal(size=len(features))
    assert separation_index(features, labels).value < 0.6


def test_standard_error_and_count():
    result = separation_index(np.array([[0.0], [1.0], [4.0], [6.0], [6.5]]), np.array([0, 0, 0, 1, 1]))
    assert (result.value, result.n) == (0.8, 5)
    assert result.standard_error == pytest.approx(math.sqrt(0.8 * 0.2 / 5))
    assert result.nearest.dtype == torch.int64


def test_one_class_is_one():
    result = separation_index(gaussian(22)[0], np.full(150, 3))
    assert (result.value, result.standard_error) == (1.0, 0.0)


def test_the_only_sample_of_a_class_is_a_miss():
    assert separation_index(np.array([[0.0], [0.1], [0.3]]), np.array([0, 0, 1])).value == 2 / 3
    assert separation_index(np.array([[0.0], [5.0]]), np.array([0, 1])).value == 0


# Bad input

FINE = np.arange(6.0).reshape(3, 2)


def spoilt(rows, value):
    features = np.zeros((20, 2), dtype=np.float32)
    features[rows, 1] = value
    return features


@pytest.mark.parametrize(
    ("features", "error", "message"),
    [
        (spoilt([3, 11], np.nan), DataError, r"NaN or infinity in 2 of 20 rows \(3, 11\)"),
        (spoilt(range(2, 20), -np.inf), DataError, r"in 18 of 20 rows \(2, 3, 4, 5, 6, \.\.\.\)"),
        (np.zeros(6), UsageError, r"shape \(6,\); expected \(samples, features\)"),
        (np.zeros((3, 2, 2)), UsageError, r"shape \(3, 2, 2\)"),
        (np.zeros((0, 4)), DataError, "0 samples; .* at least two"),
        (np.zeros((1, 4)), DataError, "1 samples; .* at least two"),
        (np.zeros((3, 0)), DataError, r"shape \(3, 0\); expected at least one number"),
        (np.zeros((3, 2), dtype=complex), UsageError, "complex128; expected real"),
        (np.zeros((3, 2), dtype=bool), UsageError, "bool; expected real"),
        (np.zeros((3, 2), dtype=object), UsageError, "dtype object; expected numbers"),
        (np.zeros((3, 2), dtype=np.longdouble), UsageError, "at most 64 bits"),
        (torch.eye(3).to_sparse(), UsageError, "sparse_coo"),
        (np.full((3, 2), 2**53 + 1), DataError, r"2\^53"),
        (FINE.tolist(), UsageError, "type list; expected a numpy array or a torch tensor"),
    ],
)
def test_bad_features(features, error, message):
    with pytest.raises(error, match=message):
        separation_index(features, np.zeros(len(features), dtype=int))


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        (np.zeros(4, dtype=int), UsageError, r"shape \(4,\); expected \(3,\)"),
        (np.zeros((3, 1), dtype=int), UsageError, r"shape \(3, 1\); expected \(3,\)"),
        (np.zeros(3), UsageError, "float64; expected integers"),
        (np.zeros(3, dtype=bool), UsageError, "bool; expected integers"),
        (np.array(["a", "b", "c"]), UsageError, r"labels are text or objects \(<U1\)"),
        ([0, 1, 2], UsageError, "labels are of type list"),
        (np.array([0, -1, -2]), DataError, "2 of 3 labels are negative, the first -1 at sample 1"),
    ],
)
def test_bad_labels(labels, error, message):
    with pytest.raises(error, match=message):
        separation_index(FINE, labels)


@pytest.mark.parametrize("budget", [0, -1, 1e9, True, "1G"])
def test_bad_memory_budget(budget):
    with pytest.raises(UsageError, match=r"memory_budget .* positive number of bytes"):
        separation_index(FINE, np.zeros(3, dtype=int), memory_budget=budget)
