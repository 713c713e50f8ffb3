"""The search for nearest neighbours against brute force in exact or float64 arithmetic, and on its bad cases."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from hypothesis.extra.numpy import arrays
from torch.utils._python_dispatch import TorchDispatchMode

from zoo_harness.compute.precision import full_precision
from zoo_harness.separation.knn import (
    duplicates as equal_rows,
    kernel_choice as survivors,
    operand as neighbours,
    search as neighbours_search,
)
from zoo_harness.separation.knn.lower_bounds import Contraction, Frame, at_most_one, principal_directions
from zoo_harness.separation.knn.projection import Directions, choose_directions
from zoo_harness.separation.knn.search import MEMORY_BUDGET, nearest_neighbours

BUDGETS = (1, 100_000, MEMORY_BUDGET)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Threads that wait for each other after every tiny operation are slow when other processes want the cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def search(features, labels=None, budget=MEMORY_BUDGET):
    features = torch.as_tensor(features)
    labels = torch.zeros(len(features), dtype=torch.int64) if labels is None else torch.as_tensor(labels)
    return nearest_neighbours(features, labels, memory_budget=budget)


def nearest(features, budget=MEMORY_BUDGET):
    return search(features, budget=budget).indices[:, 0].tolist()


def nearest_by_brute_force(features):
    """Lowest index of the nearest other row, in float64, row by row."""
    x = np.asarray(features, dtype=np.float64)
    found = []
    for i, row in enumerate(x):
        distances = ((x - row) ** 2).sum(1)
        distances[i] = np.inf
        found.append(int(distances.argmin()))
    return found


def gaussian(seed, n=150, width=24, clusters=4, spread=1.0):
    rng = np.random.default_rng(seed)
    members = rng.integers(0, clusters, n)
    return spread * rng.normal(size=(clusters, width))[members] + rng.normal(size=(n, width))


@pytest.fixture
def compared(monkeypatch):
    """Count the pairs that are compared one by one in float64."""
    counts = []
    compare = equal_rows.Rows.squared_distances

    def counted(rows, left, right):
        counts.append(len(left))
        return compare(rows, left, right)

    monkeypatch.setattr(equal_rows.Rows, "squared_distances", counted)
    return counts


@pytest.fixture
def screened(monkeypatch):
    """Note the dtypes of the vectors that the search goes through."""
    dtypes = []
    half = neighbours._half

    def noted(vectors, precision):
        dtypes.append(precision.vectors)
        return half(vectors, precision)

    monkeypatch.setattr(neighbours, "_half", noted)
    return dtypes


# Against independent answers


@pytest.mark.parametrize("offset", [0.0, 1e2, 1e4, -1e6])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_offsets_do_not_blur_neighbours(offset, dtype, compared, screened):
    features = (gaussian(3) + offset).astype(dtype)
    assert nearest(features) == nearest_by_brute_force(features)
    assert sum(compared) < 10 * len(features)
    assert screened == [torch.float32]


@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1.0, 1e12, 1e30])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_scales(scale, dtype, compared):
    features = (gaussian(4) * scale).astype(dtype)
    assert nearest(features) == nearest_by_brute_force(features)
    assert sum(compared) < 10 * len(features)


@pytest.mark.parametrize("scale", [2.0**-1060, 2.0**-900, 2.0**1010])
def test_scales_at_which_squares_leave_the_range_of_float64(scale):
    features = np.round(gaussian(5) * 64)  # so that subnormal multiples are exact
    plain, scaled = search(features), search(features * scale)
    assert scaled.indices.tolist() == plain.indices.tolist()
    assert scaled.last_tied.tolist() == plain.last_tied.tolist()


def test_subnormal_float32():
    features = np.random.default_rng(0).integers(1, 1000, (60, 8)).astype(np.float32) * np.float32(2.0**-149)
    assert nearest(features) == nearest_by_brute_force(features)


@pytest.mark.parametrize("dtype", equal_rows.EXACT_DTYPES, ids=str)
def test_dtypes_are_taken_as_given(dtype):
    features = torch.from_numpy(gaussian(6) * 20).abs().to(dtype)
    assert nearest(features) == nearest_by_brute_force(features.double())


def magnitudes(least, most):
    positive = st.floats(least, most)
    return st.check_choice(st.just(0.0), positive, positive.map(lambda value: -value))


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_wild_floats_agree_with_fractions(data):
    shape = data.draw(st.integers(2, 20)), data.draw(st.integers(1, 4))
    elements = data.draw(st.sampled_from([magnitudes(1e-100, 1e100), magnitudes(0.5, 2.0), magnitudes(1e-3, 1e9)]))
    x = data.draw(arrays(np.float64, shape, elements=elements))
    exact = [[Fraction(value) for value in row] for row in x.tolist()]
    for i, found in enumerate(nearest(x, data.draw(st.sampled_from(BUDGETS)))):
        distances = [sum((a - b) ** 2 for a, b in zip(exact[i], other, strict=True)) for other in exact]
        assert found != i
        # Float64 rounds twice for a square and at most twice for a sum of up to four of them.
        assert distances[found] <= min(distances[:i] + distances[i + 1 :]) * (1 + Fraction(1, 2**48))


# Ties and duplicates


def search_integers(x, labels):
    """Nearest, tied and tied alike of each row, in integer arithmetic."""
    found = []
    for i, row in enumerate(x):
        distances = ((x - row) ** 2).sum(1)
        distances[i] = np.iinfo(distances.dtype).max
        tied = np.flatnonzero(distances == distances.min())
        found.append((int(tied[0]), len(tied), int((labels[tied] == labels[i]).sum())))
    return found


def triples(result):
    columns = result.indices[:, 0], result.last_tied, result.last_tied_alike
    return list(zip(*(column.tolist() for column in columns), strict=True))


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_integer_grids_agree_with_integer_arithmetic(data):
    n, width = data.draw(st.integers(2, 40)), data.draw(st.integers(1, 4))
    side = data.draw(st.sampled_from([1, 2, 5, 200]))
    x = data.draw(arrays(np.int64, (n, width), elements=st.integers(0, side)))
    labels = data.draw(arrays(np.int64, (n,), elements=st.integers(0, 3)))
    shift = data.draw(st.sampled_from([0, 10_000, -(10**9)]))
    result = search((x + shift).astype(float), labels, data.draw(st.sampled_from(BUDGETS)))
    assert triples(result) == search_integers(x, labels)


@pytest.mark.parametrize("budget", BUDGETS)
def test_lowest_index_wins_ties_across_tiles(budget):
    x = np.random.default_rng(1).permutation(100)
    result = search(x[:, None].astype(float), x % 2, budget)
    place = np.argsort(x)
    for value in range(1, 99):
        assert result.indices[place[value], 0] == min(place[value - 1], place[value + 1])
    assert result.last_tied.sum() == 98 * 2 + 2
    assert not result.last_tied_alike.any()


def test_a_sample_is_excluded_by_index_not_as_the_first_of_its_equals():
    result = search([[1.0], [1.0], [5.0], [5.0]], [0, 1, 2, 2])
    assert triples(result) == [(1, 1, 0), (0, 1, 0), (3, 1, 1), (2, 1, 1)]


def test_minus_zero_equals_zero():
    result = search([[-0.0], [0.1], [0.0], [-0.0]])
    assert result.indices[:, 0].tolist() == [2, 0, 0, 0]
    assert result.last_tied.tolist() == [2, 3, 2, 2]


@pytest.mark.parametrize("value", [0.0, 0.1, 1e30])
def test_all_rows_equal_needs_no_comparison(value, compared):
    result = search(np.full((5000, 3), value), np.arange(5000) % 2)
    assert triples(result) == [(1, 4999, 2499)] + [(0, 4999, 2499)] * 4999
    assert compared == []


def test_many_duplicates_are_collapsed(compared):
    x = np.random.default_rng(2).integers(0, 6, (2000, 3))
    assert triples(search(x.astype(np.uint8), x[:, 0])) == search_integers(x, x[:, 0])
    assert sum(compared) < 2000


def test_different_rows_with_one_hash_stay_apart(monkeypatch):
    hashes = equal_rows._hashes
    monkeypatch.setattr(equal_rows, "_hashes", lambda rows, seed: hashes(rows, seed) % (1 if seed < 2 else 2**40))
    features = gaussian(11, n=40)
    features[30:] = features[:10]
    assert nearest(features) == nearest_by_brute_force(features)


# Where screening finds it hard


@pytest.mark.parametrize("budget", BUDGETS[1:])
@pytest.mark.parametrize(("distance", "most"), [(1e2, 10), (1e5, 60), (1e10, 310)])
def test_tight_clusters_far_apart(distance, most, budget, compared, screened):
    features = gaussian(12, n=1000) + distance * (np.arange(1000) % 2)[:, None]
    assert nearest(features, budget) == nearest_by_brute_force(features)
    assert sum(compared) < most * len(features)
    assert screened == [torch.float32, torch.float64][: 1 + (distance > 1e2)]


def test_one_outlier_does_not_spoil_the_screening(compared):
    features = gaussian(13)
    features[70] = 1e30
    assert nearest(features) == nearest_by_brute_force(features)
    wasted = (neighbours_search.COMPARED_PER_ROW + 8) * len(
        features
    )  # by the float32 products, until they are given up
    assert sum(compared) < wasted + 10 * len(features)


def test_every_pair_tied():
    result = search(np.eye(150), np.arange(150) % 2)
    assert triples(result) == [(1, 149, 74)] + [(0, 149, 74)] * 149


def test_ordinary_features_meet_few_exact_comparisons(compared):
    features = gaussian(14, n=1000, width=200)
    search(features.astype(np.float32))
    assert sum(compared) < 2 * len(features)


@pytest.mark.parametrize("precision", [neighbours._BFLOAT16, neighbours._FLOAT32, neighbours._FLOAT64])
@pytest.mark.parametrize("rank", [None, 3, 40])
@pytest.mark.parametrize("spread", [0.0, 1.0, 1e4, 1e20])
@pytest.mark.parametrize("outlier", [0.0, 1e22, 1e160])  # makes other squares underflow in float32, in float64
def test_products_are_lower_bounds(precision, rank, spread, outlier):
    features = torch.from_numpy(gaussian(15, n=80, width=100, spread=spread))
    features[7, 3] += outlier
    rows = equal_rows.Rows.of(features, MEMORY_BUDGET)
    groups = equal_rows.Groups.of(rows, torch.zeros(80, dtype=torch.int64), None)
    frame = Frame(rows, groups.first)
    directions = Directions.along(principal_directions(frame, groups.first, rank)) if rank else None
    count = len(groups.first)  # with the largest spread, rows of a cluster become equal
    side = neighbours._Side(frame, groups, torch.arange(count), directions, precision, MEMORY_BUDGET)
    width = side.coarse.width + 2 * precision.ends
    left, right = (torch.empty(count, width, dtype=precision.products) for _ in range(2))
    side.fill(left, slice(None), left=True)
    side.fill(right, slice(None), left=False)
    with full_precision(torch.device("cpu"), precision.setting):
        lower = (left @ right.T).numpy().astype(np.longdouble)
    x = frame.centred(groups.first[side.ids]).numpy().astype(np.longdouble)
    squared = ((x[:, None] - x[None, :]) ** 2).sum(2)
    others = ~np.eye(count, dtype=bool)
    assert (lower <= (1 + precision.slack) / 2 * squared)[others].all()


def test_where_no_direction_tells_rows_apart_whole_rows_are_taken_in_bfloat16(screened, compared):
    features = torch.randn(4200, 300, generator=torch.Generator().manual_seed(2))
    result = search(features)
    assert screened == [torch.bfloat16]
    assert sum(compared) < 60 * len(features)
    nearest = squared_distances(features, features).fill_diagonal_(np.inf).argmin(1)
    assert torch.equal(result.indices[:, 0], nearest)


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
    features = gaussian(16, n=1200, width=16)
    features[::clusters] += 1e11  # with two clusters far apart nearly half of all pairs survive
    with LargestTensor() as largest:
        found = nearest(features, 2**20)
    assert largest.bytes < 2**20 < 1200**2
    assert found == nearest(features)


# More than one neighbour, and reference samples


def answer(result):
    return [result.indices.tolist(), result.last_tied.tolist(), result.last_tied_alike.tolist()]


def answer_by_integers(x, labels, order, references=None, reference_labels=None):
    """Indices, tied and tied alike of each row, in integer arithmetic."""
    there, there_labels = (x, labels) if references is None else (references, reference_labels)
    found = [[], [], []]
    for i, row in enumerate(x):
        distances = ((there - row) ** 2).sum(1)
        kept = np.delete(np.arange(len(there)), i) if references is None else np.arange(len(there))
        nearest = kept[np.argsort(distances[kept], kind="stable")][:order]
        tied = kept[distances[kept] == distances[nearest[-1]]]
        found[0].append(nearest.tolist())
        found[1].append(len(tied))
        found[2].append(int((there_labels[tied] == labels[i]).sum()))
    return found


def integer_set(data, least):
    n = data.draw(st.integers(least, 25))
    side = data.draw(st.sampled_from([1, 2, 5, 200]))
    return n, side


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_several_neighbours_agree_with_integer_arithmetic(data):
    n, side = integer_set(data, 2)
    width, order = data.draw(st.integers(1, 3)), data.draw(st.integers(1, min(n - 1, 6)))
    x = data.draw(arrays(np.int64, (n, width), elements=st.integers(0, side)))
    labels = data.draw(arrays(np.int64, (n,), elements=st.integers(0, 3)))
    features, tensor = torch.from_numpy(x).double(), torch.from_numpy(labels)
    budget = data.draw(st.sampled_from(BUDGETS))
    result = nearest_neighbours(features, tensor, order, memory_budget=budget)
    assert answer(result) == answer_by_integers(x, labels, order)
    exact = ((x[:, None] - x[result.indices.numpy()]) ** 2).sum(2)
    assert result.squared_distances.tolist() == exact.tolist()


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_references_agree_with_integer_arithmetic(data):
    (n, side), (m, _side) = integer_set(data, 1), integer_set(data, 1)
    width, order = data.draw(st.integers(1, 3)), data.draw(st.integers(1, min(m, 6)))
    x, references = (data.draw(arrays(np.int64, (k, width), elements=st.integers(0, side))) for k in (n, m))
    labels, theirs = (data.draw(arrays(np.int64, (k,), elements=st.integers(0, 3))) for k in (n, m))
    result = nearest_neighbours(
        torch.from_numpy(x).double(),
        torch.from_numpy(labels),
        order,
        references=torch.from_numpy(references).double(),
        reference_labels=torch.from_numpy(theirs),
        memory_budget=data.draw(st.sampled_from(BUDGETS)),
    )
    assert answer(result) == answer_by_integers(x, labels, order, references, theirs)


# Short vectors


@pytest.fixture(scope="module")
def many():
    """Rows enough for short vectors: most of the variance in a few of 160 directions, some rows twice."""
    rng = np.random.default_rng(20)
    shape = np.exp(-np.arange(160) / 15)
    features = torch.from_numpy((rng.normal(size=(5000, 160)) * shape).astype(np.float32))
    features[100:110] = features[4000:4010]
    return features, torch.from_numpy(rng.integers(0, 7, 5000))


@pytest.fixture(scope="module")
def nearest_of_many(many):
    """The four nearest of each row, lowest index first among equally near ones, and their squared distances."""
    distances = squared_distances(many[0], many[0]).fill_diagonal_(np.inf)
    nearest = distances.argsort(dim=1, stable=True)[:, :4]
    return nearest, distances.gather(1, nearest)


@pytest.fixture
def shortened(monkeypatch):
    """Have the search take short and longer vectors, whether or not they pay."""

    def chosen(frame, _asking, offered, _order, _budget):
        return Directions.along(*(principal_directions(frame, offered, rank) for rank in (24, 80)))

    monkeypatch.setattr(neighbours, "choose_directions", chosen)


def squared_distances(left, right):
    return torch.cdist(left.double(), right.double(), compute_mode="donot_use_mm_for_euclid_dist").square()


@pytest.mark.parametrize("budget", [2**22, MEMORY_BUDGET])
@pytest.mark.parametrize("order", [1, 4])
def test_short_vectors_find_the_nearest(many, nearest_of_many, shortened, budget, order, compared, screened):
    features, labels = many
    result = nearest_neighbours(features, labels, order, memory_budget=budget)
    assert screened == [torch.bfloat16]
    nearest, distances = (values[:, :order] for values in nearest_of_many)
    assert torch.equal(result.indices, nearest)
    torch.testing.assert_close(result.squared_distances, distances, rtol=1e-12, atol=1e-12)
    assert sum(compared) < 40 * order * len(features) < len(features) ** 2 / 20


def test_short_vectors_find_the_nearest_references(many, shortened, screened):
    features, labels = many
    queries = torch.cat([features[:300] + 0.01, features[4500:]])
    of_queries = torch.cat([labels[:300], labels[4500:]])
    more = queries.repeat(6, 1) + torch.arange(6).repeat_interleave(len(queries))[:, None] * 1e-3
    result = nearest_neighbours(
        more, of_queries.repeat(6), 2, references=features[:4500], reference_labels=labels[:4500]
    )
    assert screened == [torch.bfloat16] * 2
    nearest = squared_distances(more, features[:4500]).argsort(dim=1, stable=True)[:, :2]
    assert torch.equal(result.indices, nearest)


def test_tight_clusters_leave_the_short_vectors_behind(many, shortened, screened):
    features, labels = many[0].double(), many[1]
    features = features * 1e-6 + 1e3 * torch.eye(160, dtype=torch.float64)[labels]
    result = nearest_neighbours(features, labels)
    assert screened == [torch.bfloat16, torch.bfloat16, torch.float32, torch.float64]
    distances = squared_distances(features - features[0], features - features[0]).fill_diagonal_(np.inf)
    least = distances.amin(1)
    chosen = distances.gather(1, result.indices)[:, 0]
    assert (chosen <= least * (1 + 1e-9)).all()


def test_directions_are_taken_only_where_they_pay():
    random = torch.Generator().manual_seed(0)
    noise = torch.randn(5000, 1024, generator=random)
    flat = noise[:, :20] @ torch.randn(20, 1024, generator=random) + 0.01 * noise
    chosen = torch.arange(5000)
    frames = [Frame(equal_rows.Rows.of(features, MEMORY_BUDGET), chosen) for features in (flat, noise)]
    found = choose_directions(frames[0], chosen, chosen, 1, MEMORY_BUDGET)
    assert found is not None
    assert found.coarse.shape == (1024, 32)
    whole = choose_directions(frames[1], chosen, chosen, 1, MEMORY_BUDGET)
    assert whole is not None
    assert (whole.coarse, whole.fine) == (None, None)
    assert choose_directions(frames[0], chosen[:100], chosen, 1, MEMORY_BUDGET) is None
    assert choose_directions(frames[0], chosen, chosen, 1, 2**20) is None  # no room for a sample


@pytest.mark.parametrize("found", ["random", "one direction twice", "nothing"])
def test_bad_directions_cost_time_and_nothing_else(many, nearest_of_many, monkeypatch, found):
    features, labels = many
    basis = torch.randn(160, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    if found == "one direction twice":
        basis[:, 1:] = basis[:, :1]
    if found == "nothing":
        basis.zero_()
    bad = Directions.along(at_most_one(basis))
    monkeypatch.setattr(neighbours, "choose_directions", lambda *_arguments: bad)
    assert torch.equal(nearest_neighbours(features, labels).indices, nearest_of_many[0][:, :1])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1.0, 1e-20, 1e20])
def test_distances_of_vectors_are_lower_bounds(dtype, scale):
    features = torch.from_numpy(gaussian(21, n=90, width=60) * scale)
    features[3] *= 1e6
    frame = Frame(equal_rows.Rows.of(features, MEMORY_BUDGET), torch.arange(90))
    for rank in (1, 10, 59, 60):
        basis = principal_directions(frame, torch.arange(90), rank)
        assert torch.linalg.matrix_norm(basis, ord=2) <= 1
        short = Contraction(frame, torch.arange(90), basis, dtype, keep=True)
        w, h = short.vectors.double().numpy().astype(np.longdouble), short.error.numpy()
        x = frame.centred(torch.arange(90)).numpy().astype(np.longdouble)
        apart = np.sqrt(((w[:, None] - w[None]) ** 2).sum(2)) - h[:, None] - h[None]
        assert (apart <= np.sqrt(((x[:, None] - x[None]) ** 2).sum(2))).all()


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
    with full_precision(torch.device("cpu")):
        assert precisions() == ["ieee", "ieee"]
        assert torch.get_float32_matmul_precision() == "highest"
        assert not torch.backends.cuda.matmul.allow_tf32
    assert precisions() == before
    assert torch.get_float32_matmul_precision() == setting


@pytest.mark.usefixtures("precision_kept")
def test_reduced_precision_of_one_backend_is_off_inside_and_back_afterwards():
    torch.backends.mkldnn.matmul.fp32_precision = "bf16"
    before = precisions()
    with full_precision(torch.device("cpu")):
        assert precisions() == ["ieee", "ieee"]
    assert precisions() == before


def test_autocast_does_not_reach_the_products():
    features = gaussian(17, spread=30.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert nearest(features) == nearest_by_brute_force(features)
        with full_precision(torch.device("cpu")):
            assert not torch.is_autocast_enabled("cpu")
        assert torch.is_autocast_enabled("cpu")


def test_default_dtype_does_not_matter():
    features = gaussian(18)
    try:
        torch.set_default_dtype(torch.float16)
        assert nearest(features) == nearest_by_brute_force(features)
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("offset", [0.0, 1e4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_wide_rows_that_are_not_kept_are_multiplied_in_pieces(monkeypatch, offset, dtype, compared):
    monkeypatch.setattr(survivors, "PIECE", 100)
    features = torch.from_numpy(gaussian(30, n=300, width=1250) + offset).to(dtype)
    assert nearest(features, 2**19) == nearest_by_brute_force(features)
    assert sum(compared) < 10 * len(features)
