"""The Separation Index against brute force in exact or float64 arithmetic, scikit-learn, and on its bad cases."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.datasets import load_digits
from sklearn.neighbors import NearestNeighbors
from torch.utils._python_dispatch import TorchDispatchMode

from zoo.errors import DataError, UsageError
from zoo_harness import separation
from zoo_harness.separation import separation_index

BUDGETS = (1, 100_000, separation.MEMORY_BUDGET)
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Threads that wait for each other after every tiny operation are slow when other processes want the cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def nearest_by_brute_force(features):
    """Lowest index of the nearest other row, in float64, row by row."""
    x = np.asarray(features, dtype=np.float64)
    nearest = []
    for i, row in enumerate(x):
        distances = ((x - row) ** 2).sum(1)
        distances[i] = np.inf
        nearest.append(int(distances.argmin()))
    return nearest


def gaussian(seed, n=150, width=24, classes=4, spread=1.0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    return spread * rng.normal(size=(classes, width))[labels] + rng.normal(size=(n, width)), labels


@pytest.fixture
def compared(monkeypatch):
    """Count the pairs that are compared one by one in float64."""
    counts = []
    compare = separation._Rows.squared_distances

    def counted(rows, left, right):
        counts.append(len(left))
        return compare(rows, left, right)

    monkeypatch.setattr(separation._Rows, "squared_distances", counted)
    return counts


@pytest.fixture
def screened(monkeypatch):
    """Note the dtypes of the products that the search goes through."""
    dtypes = []
    bounds = separation._bounds

    def noted(norms, width, dtype):
        dtypes.append(dtype)
        return bounds(norms, width, dtype)

    monkeypatch.setattr(separation, "_bounds", noted)
    return dtypes


# Against independent answers


@pytest.mark.parametrize("budget", BUDGETS)
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
    assert result.nearest.tolist() == nearest_by_brute_force(features)
    assert result.value == pytest.approx(0.988, abs=5e-4)
    assert result.ties > 0


@pytest.mark.parametrize("offset", [0.0, 1e2, 1e4, -1e6])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_offsets_do_not_blur_neighbours(offset, dtype, compared, screened):
    features = (gaussian(3)[0] + offset).astype(dtype)
    labels = np.arange(len(features)) % 5
    assert separation_index(features, labels).nearest.tolist() == nearest_by_brute_force(features)
    assert sum(compared) < 10 * len(features)
    assert screened == [torch.float32]


@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1.0, 1e12, 1e30])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_scales(scale, dtype, compared):
    features, labels = gaussian(4)
    features = (features * scale).astype(dtype)
    assert separation_index(features, labels).nearest.tolist() == nearest_by_brute_force(features)
    assert sum(compared) < 10 * len(features)


@pytest.mark.parametrize("scale", [2.0**-1060, 2.0**-900, 2.0**1010])
def test_scales_at_which_squares_leave_the_range_of_float64(scale):
    features, labels = gaussian(5)
    features = np.round(features * 64)  # so that subnormal multiples are exact
    plain, scaled = separation_index(features, labels), separation_index(features * scale, labels)
    assert scaled.nearest.tolist() == plain.nearest.tolist()
    assert (scaled.value, scaled.ties) == (plain.value, plain.ties)


def test_subnormal_float32():
    features = np.random.default_rng(0).integers(1, 1000, (60, 8)).astype(np.float32) * np.float32(2.0**-149)
    assert separation_index(features, np.arange(60)).nearest.tolist() == nearest_by_brute_force(features)


@pytest.mark.parametrize("dtype", [*FLOATS, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64], ids=str)
def test_dtypes_are_taken_as_given(dtype):
    features = torch.from_numpy(gaussian(6)[0] * 20).abs().to(dtype)
    labels = torch.arange(len(features)) % 7
    assert separation_index(features, labels).nearest.tolist() == nearest_by_brute_force(features.double())


@pytest.mark.parametrize("dtype", [">f4", "<f8", ">i2", "u1", "u2", "u4", "u8"])
def test_numpy_dtypes(dtype):
    features = np.abs(gaussian(7)[0] * 20).astype(dtype)
    labels = np.arange(len(features), dtype=dtype.replace("f", "i")) % 7
    assert separation_index(features, labels).nearest.tolist() == nearest_by_brute_force(features)


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
    assert separation_index(features, labels).nearest.tolist() == nearest_by_brute_force(features)
    np.testing.assert_array_equal(features, before)


def test_strided_and_differentiable_tensors():
    wide = torch.from_numpy(gaussian(9)[0]).requires_grad_()
    for features in (wide[:, 3::2], wide.T.contiguous().T, wide[:, :1].expand(-1, 5)):
        result = separation_index(features, torch.arange(len(features)))
        assert result.nearest.tolist() == nearest_by_brute_force(features.detach())
        assert not result.nearest.requires_grad


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_on_cuda_as_on_the_cpu():
    for dtype in FLOATS:
        features = torch.from_numpy(gaussian(10)[0]).to(dtype)
        labels = torch.arange(len(features)) % 3
        there, here = separation_index(features.cuda(), labels), separation_index(features, labels)
        assert there.nearest.is_cuda
        assert (there.nearest.tolist(), there.value, there.ties) == (here.nearest.tolist(), here.value, here.ties)


# Ties and duplicates


def reference_on_integers(x, labels):
    """Nearest, ties and tied disagreements in integer arithmetic."""
    nearest, ties, disagreements = [], 0, 0
    for i, row in enumerate(x):
        distances = ((x - row) ** 2).sum(1)
        distances[i] = np.iinfo(distances.dtype).max
        tied = np.flatnonzero(distances == distances.min())
        nearest.append(int(tied[0]))
        ties += len(tied) > 1
        disagreements += len(set((labels[tied] == labels[i]).tolist())) > 1
    return nearest, ties, disagreements


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_integer_grids_agree_with_integer_arithmetic(data):
    n, width = data.draw(st.integers(2, 40)), data.draw(st.integers(1, 4))
    side = data.draw(st.sampled_from([1, 2, 5, 200]))
    x = data.draw(arrays(np.int64, (n, width), elements=st.integers(0, side)))
    labels = data.draw(arrays(np.int64, (n,), elements=st.integers(0, 3)))
    shift = data.draw(st.sampled_from([0, 10_000, -(10**9)]))
    result = separation_index(x + shift, labels, memory_budget=data.draw(st.sampled_from(BUDGETS)))
    nearest, ties, disagreements = reference_on_integers(x, labels)
    assert result.nearest.tolist() == nearest
    assert (result.ties, result.tied_disagreements) == (ties, disagreements)
    assert result.value == (labels[nearest] == labels).mean()


def magnitudes(least, most):
    positive = st.floats(least, most)
    return st.one_of(st.just(0.0), positive, positive.map(lambda value: -value))


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_wild_floats_agree_with_fractions(data):
    shape = data.draw(st.integers(2, 20)), data.draw(st.integers(1, 4))
    elements = data.draw(st.sampled_from([magnitudes(1e-100, 1e100), magnitudes(0.5, 2.0), magnitudes(1e-3, 1e9)]))
    x = data.draw(arrays(np.float64, shape, elements=elements))
    result = separation_index(x, np.zeros(len(x), dtype=int), memory_budget=data.draw(st.sampled_from(BUDGETS)))
    exact = [[Fraction(value) for value in row] for row in x.tolist()]
    for i, found in enumerate(result.nearest.tolist()):
        distances = [sum((a - b) ** 2 for a, b in zip(exact[i], other, strict=True)) for other in exact]
        assert found != i
        # Float64 rounds twice for a square and at most twice for a sum of up to four of them.
        assert distances[found] <= min(distances[:i] + distances[i + 1 :]) * (1 + Fraction(1, 2**48))


@pytest.mark.parametrize("budget", BUDGETS)
def test_lowest_index_wins_ties_across_tiles(budget):
    x = np.random.default_rng(1).permutation(100)
    result = separation_index(x[:, None], x % 2, memory_budget=budget)
    place = np.argsort(x)
    for value in range(1, 99):
        assert result.nearest[place[value]] == min(place[value - 1], place[value + 1])
    assert (result.ties, result.tied_disagreements, result.value) == (98, 0, 0)


def test_a_sample_is_excluded_by_index_not_as_the_first_of_its_equals():
    result = separation_index(np.array([[1.0], [1.0], [5.0], [5.0]]), np.array([0, 1, 2, 2]))
    assert result.nearest.tolist() == [1, 0, 3, 2]
    assert (result.value, result.ties) == (0.5, 0)


def test_equal_rows_with_other_labels_are_ties_that_matter():
    features, labels = np.array([[1.0]] * 3 + [[2.0]]), np.array([0, 1, 0, 1])
    result = separation_index(features, labels)
    assert result.nearest.tolist() == [1, 0, 0, 0]
    assert result.value == 0.25
    assert (result.ties, result.tied_disagreements) == (4, 3)


def test_minus_zero_equals_zero():
    result = separation_index(np.array([[-0.0], [0.1], [0.0], [-0.0]]), np.zeros(4, int))
    assert result.nearest.tolist() == [2, 0, 0, 0]
    assert result.ties == 4


@pytest.mark.parametrize("value", [0.0, 0.1, 1e30])
def test_all_rows_equal_needs_no_comparison(value, compared):
    result = separation_index(np.full((5000, 3), value), np.arange(5000) % 2)
    assert result.nearest.tolist() == [1] + [0] * 4999
    assert (result.value, result.ties, result.tied_disagreements) == (2499 / 5000, 5000, 5000)
    assert compared == []


def test_many_duplicates_are_collapsed(compared):
    x = np.random.default_rng(2).integers(0, 6, (2000, 3))
    nearest, ties, disagreements = reference_on_integers(x, x[:, 0])
    result = separation_index(x.astype(np.uint8), x[:, 0])
    assert result.nearest.tolist() == nearest
    assert (result.ties, result.tied_disagreements) == (ties, disagreements)
    assert sum(compared) < 2000


def test_different_rows_with_one_hash_stay_apart(monkeypatch):
    hashes = separation._hashes
    monkeypatch.setattr(separation, "_hashes", lambda rows, seed: hashes(rows, seed) % (1 if seed < 2 else 2**40))
    features, labels = gaussian(11, n=40)
    features[30:] = features[:10]
    assert separation_index(features, labels).nearest.tolist() == nearest_by_brute_force(features)


# Where screening finds it hard


@pytest.mark.parametrize("budget", BUDGETS[1:])
@pytest.mark.parametrize(("distance", "most"), [(1e2, 10), (1e5, 40), (1e10, 190)])
def test_tight_clusters_far_apart(distance, most, budget, compared, screened):
    labels = np.arange(300) % 2
    features = gaussian(12, n=300)[0] + distance * labels[:, None]
    result = separation_index(features, labels, memory_budget=budget)
    assert result.nearest.tolist() == nearest_by_brute_force(features)
    assert result.value == 1
    assert sum(compared) < most * len(features)
    assert screened == [torch.float32, torch.float64][: 1 + (distance > 1e2)]


def test_one_outlier_does_not_spoil_the_screening(compared):
    features, labels = gaussian(13)
    features[70] = 1e30
    assert separation_index(features, labels).nearest.tolist() == nearest_by_brute_force(features)
    assert sum(compared) < 10 * len(features)


def test_every_pair_tied():
    result = separation_index(np.eye(150), np.arange(150) % 2)
    assert result.nearest.tolist() == [1] + [0] * 149
    assert (result.ties, result.tied_disagreements) == (150, 150)


def test_ordinary_features_meet_few_exact_comparisons(compared):
    features, labels = gaussian(14, n=1000, width=200)
    separation_index(features.astype(np.float32), labels)
    assert sum(compared) < 2 * len(features)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("spread", [0.0, 1.0, 1e4, 1e20])
@pytest.mark.parametrize("outlier", [0.0, 1e22, 1e160])  # makes other squares underflow in float32, in float64
def test_bounds_hold(dtype, spread, outlier):
    features = torch.from_numpy(gaussian(15, n=80, width=100, spread=spread)[0])
    features[7, 3] += outlier
    rows = separation._Rows.of(features, separation.MEMORY_BUDGET)
    screen = separation._Screen.of(rows, torch.arange(80), dtype)
    x = screen.factor * features.numpy().astype(np.longdouble)
    half = ((x[:, None] - x[None, :]) ** 2).sum(2) / 2
    seen = np.zeros((80, 80), dtype=int)
    for tile, down, across, _ in separation._tiles(screen, 80, 33):
        at = np.isfinite(tile.numpy())
        lower = tile.numpy().astype(np.longdouble)
        upper = lower + (screen.slack[down, None] + screen.slack[across]).numpy()
        assert (lower[at] <= half[down, across][at]).all()
        assert (half[down, across][at] <= upper[at]).all()
        seen[down, across] += at
    assert (seen == np.triu(np.ones_like(seen), 1)).all()


class LargestTensor(TorchDispatchMode):
    bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else [result]:
            if isinstance(tensor, torch.Tensor):
                self.bytes = max(self.bytes, tensor.nbytes)
        return result


@pytest.mark.parametrize("clusters", [1, 2])
def test_memory_stays_within_the_budget(clusters):
    features = torch.from_numpy(gaussian(16, n=1200, width=16)[0])
    features[::clusters] += 1e11  # with two clusters far apart nearly half of all pairs survive
    labels = torch.arange(1200) % 3
    with LargestTensor() as largest:
        result = separation_index(features, labels, memory_budget=2**20)
    assert largest.bytes < 2**20 < 1200**2
    assert result.nearest.tolist() == separation_index(features, labels).nearest.tolist()


# Settings of the caller


def precisions():
    matmuls = torch.backends.cuda.matmul, torch.backends.mkldnn.matmul
    return [matmul.fp32_precision for matmul in matmuls]


@pytest.fixture
def precision_kept():
    before = precisions()
    yield
    torch.set_float32_matmul_precision("highest")
    torch.backends.cuda.matmul.fp32_precision, torch.backends.mkldnn.matmul.fp32_precision = before


@pytest.mark.usefixtures("precision_kept")
@pytest.mark.parametrize("setting", ["highest", "high", "medium"])
def test_reduced_precision_is_off_inside_and_back_afterwards(setting):
    torch.set_float32_matmul_precision(setting)
    before = precisions()
    with separation._full_precision(torch.device("cpu")):
        assert precisions() == ["ieee", "ieee"]
        assert torch.get_float32_matmul_precision() == "highest"
        assert not torch.backends.cuda.matmul.allow_tf32
    assert precisions() == before
    assert torch.get_float32_matmul_precision() == setting


@pytest.mark.usefixtures("precision_kept")
def test_reduced_precision_of_one_backend_is_off_inside_and_back_afterwards():
    torch.backends.mkldnn.matmul.fp32_precision = "bf16"
    before = precisions()
    with separation._full_precision(torch.device("cpu")):
        assert precisions() == ["ieee", "ieee"]
    assert precisions() == before


def test_autocast_does_not_reach_the_products():
    features, labels = gaussian(17, spread=30.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert separation_index(features, labels).nearest.tolist() == nearest_by_brute_force(features)
        with separation._full_precision(torch.device("cpu")):
            assert not torch.is_autocast_enabled("cpu")
        assert torch.is_autocast_enabled("cpu")


def test_default_dtype_does_not_matter():
    features, labels = gaussian(18)
    try:
        torch.set_default_dtype(torch.float16)
        assert separation_index(features, labels).nearest.tolist() == nearest_by_brute_force(features)
    finally:
        torch.set_default_dtype(torch.float32)


# What must and must not change the result


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
        (np.array(["a", "b", "c"]), UsageError, "labels are of dtype <U1"),
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
