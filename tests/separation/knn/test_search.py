"""The search for nearest neighbours against brute force in exact or float64 arithmetic, and on its bad cases."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from hypothesis.extra.numpy import arrays
from torch.utils._python_dispatch import TorchDispatchMode

from zoo_harness.separation.knn import candidate_pairs, duplicates, search as knn_search
from zoo_harness.separation.knn.candidate_pairs import BFLOAT16, FLOAT64
from zoo_harness.separation.knn.exact_distances import EXACT_DTYPES, Rows
from zoo_harness.separation.knn.lower_bounds import Projection, make_non_expansive, principal_components
from zoo_harness.separation.knn.search import COMPARED_PER_ROW, MEMORY_BUDGET, nearest_neighbours

BUDGETS = (1, 100_000, MEMORY_BUDGET)
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


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
    compare = Rows.squared_distances

    def counted(rows, left, right):
        counts.append(len(left))
        return compare(rows, left, right)

    monkeypatch.setattr(Rows, "squared_distances", counted)
    return counts


@pytest.fixture
def screened(monkeypatch):
    """Note the dtypes of the vectors that the search goes through."""
    dtypes = []
    half_norms = candidate_pairs._half_norms

    def noted(vectors, precision):
        dtypes.append(precision.vectors)
        return half_norms(vectors, precision)

    monkeypatch.setattr(candidate_pairs, "_half_norms", noted)
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


@pytest.mark.parametrize("dtype", EXACT_DTYPES, ids=str)
def test_dtypes_are_taken_as_given(dtype):
    features = torch.from_numpy(gaussian(6) * 20).abs().to(dtype)
    assert nearest(features) == nearest_by_brute_force(features.double())


def magnitudes(least, most):
    positive = st.floats(least, most)
    return st.one_of(st.just(0.0), positive, positive.map(lambda value: -value))


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


def answer(result):
    return [result.indices.tolist(), result.last_tied.tolist(), result.last_tied_same_label.tolist()]


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


def triples(result):
    columns = result.indices[:, 0], result.last_tied, result.last_tied_same_label
    return list(zip(*(column.tolist() for column in columns), strict=True))


@pytest.mark.parametrize("budget", BUDGETS)
def test_lowest_index_wins_ties_across_tiles(budget):
    x = np.random.default_rng(1).permutation(100)
    result = search(x[:, None].astype(float), x % 2, budget)
    place = np.argsort(x)
    for value in range(1, 99):
        assert result.indices[place[value], 0] == min(place[value - 1], place[value + 1])
    assert result.last_tied.sum() == 98 * 2 + 2
    assert not result.last_tied_same_label.any()


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
    assert answer(search(x.astype(np.uint8), x[:, 0])) == answer_by_integers(x, x[:, 0], 1)
    assert sum(compared) < 2000


def test_different_rows_with_one_hash_stay_apart(monkeypatch):
    hashes = duplicates._hashes
    monkeypatch.setattr(duplicates, "_hashes", lambda rows, seed: hashes(rows, seed) % (1 if seed < 2 else 2**40))
    features = gaussian(11, n=40)
    features[30:] = features[:10]
    assert nearest(features) == nearest_by_brute_force(features)


# Where screening finds it hard


@pytest.mark.parametrize("budget", BUDGETS[1:])
@pytest.mark.parametrize(("distance", "most"), [(1e2, 10), (1e5, 60), (1e10, 210)])
def test_tight_clusters_far_apart(distance, most, budget, compared, screened):
    features = gaussian(12, n=640) + distance * (np.arange(640) % 2)[:, None]
    assert nearest(features, budget) == nearest_by_brute_force(features)
    assert sum(compared) < most * len(features)
    assert screened == [torch.float32, torch.float64][: 1 + (distance > 1e2)]


def test_one_outlier_does_not_spoil_the_screening(compared):
    features = gaussian(13)
    features[70] = 1e30
    assert nearest(features) == nearest_by_brute_force(features)
    wasted = (COMPARED_PER_ROW + 8) * len(features)  # by the float32 pass, until it is given up
    assert sum(compared) < wasted + 10 * len(features)


def test_every_pair_tied():
    result = search(np.eye(150), np.arange(150) % 2)
    assert triples(result) == [(1, 149, 74)] + [(0, 149, 74)] * 149


def test_ordinary_features_meet_few_exact_comparisons(compared):
    features = gaussian(14, n=1000, width=200)
    search(features.astype(np.float32))
    assert sum(compared) < 2 * len(features)


def test_where_no_direction_tells_rows_apart_whole_rows_are_taken_in_bfloat16(screened, compared):
    features = torch.randn(4200, 300, generator=torch.Generator().manual_seed(2))
    result = search(features)
    assert screened == [torch.bfloat16]
    assert sum(compared) < 60 * len(features)
    distances = torch.cdist(features.double(), features.double(), compute_mode="use_mm_for_euclid_dist")
    assert torch.equal(result.indices[:, 0], distances.fill_diagonal_(np.inf).argmin(1))


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


@pytest.mark.parametrize("against", [False, True])
def test_all_parts_of_a_search_share_the_budget(against, monkeypatch):
    parts = []

    def noting(part, place):
        def make(*arguments):
            parts.append(arguments[place])
            return part(*arguments)

        return make

    monkeypatch.setattr(knn_search, "Operand", noting(knn_search.Operand, 5))
    monkeypatch.setattr(knn_search, "TiledProducts", noting(knn_search.TiledProducts, 3))
    features, labels = torch.from_numpy(gaussian(3, n=300, width=8)), torch.zeros(300, dtype=torch.int64)
    references = {"references": features + 1, "reference_labels": labels} if against else {}
    nearest_neighbours(features, labels, memory_budget=2**24, **references)
    assert len(parts) == 2 + against
    assert sum(parts) <= 2**24


# More than one neighbour, and reference samples


def integer_set(data, least):
    n = data.draw(st.integers(least, 40))
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
    features += data.draw(st.sampled_from([0, 10_000, -(10**9)]))
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


# Projected rows


@pytest.fixture(scope="module")
def many():
    """Enough rows for a projection: most of the variance in a few of 160 directions, some rows twice."""
    rng = np.random.default_rng(20)
    shape = np.exp(-np.arange(160) / 15)
    features = torch.from_numpy((rng.normal(size=(2500, 160)) * shape).astype(np.float32))
    features[100:110] = features[2000:2010]
    return features, torch.from_numpy(rng.integers(0, 7, 2500))


@pytest.fixture(scope="module")
def nearest_of_many(many):
    """The four nearest of each row, lowest index first among equally near ones, and their squared distances."""
    distances = squared_distances(many[0], many[0]).fill_diagonal_(np.inf)
    nearest = distances.argsort(dim=1, stable=True)[:, :4]
    return nearest, distances.gather(1, nearest)


@pytest.fixture
def projected(monkeypatch):
    """Have the search use a projection, whether or not it saves time."""

    def chosen(rows, _queries, references, _order, _budget):
        return Projection(principal_components(rows, references, 24), 24)

    monkeypatch.setattr(knn_search, "choose_projection", chosen)


def squared_distances(left, right):
    return torch.cdist(left.double(), right.double(), compute_mode="donot_use_mm_for_euclid_dist").square()


@pytest.mark.parametrize("budget", [2**22, MEMORY_BUDGET])
@pytest.mark.parametrize("order", [1, 4])
def test_projected_rows_find_the_nearest(many, nearest_of_many, projected, budget, order, compared, screened):
    features, labels = many
    result = nearest_neighbours(features, labels, order, memory_budget=budget)
    assert screened == [torch.bfloat16]
    nearest, distances = (values[:, :order] for values in nearest_of_many)
    assert torch.equal(result.indices, nearest)
    torch.testing.assert_close(result.squared_distances, distances, rtol=1e-12, atol=1e-12)
    assert sum(compared) < 40 * order * len(features) < len(features) ** 2 / 10


def test_projected_rows_find_the_nearest_references(many, projected, screened):
    features, labels = many
    queries = torch.cat([features[:150] + 0.01, features[2250:]])
    of_queries = torch.cat([labels[:150], labels[2250:]])
    more = queries.repeat(6, 1) + torch.arange(6).repeat_interleave(len(queries))[:, None] * 1e-3
    result = nearest_neighbours(
        more, of_queries.repeat(6), 2, references=features[:2250], reference_labels=labels[:2250]
    )
    assert screened == [torch.bfloat16] * 2
    nearest = squared_distances(more, features[:2250]).argsort(dim=1, stable=True)[:, :2]
    assert torch.equal(result.indices, nearest)


def test_tight_clusters_leave_the_projected_rows_behind(many, projected, screened):
    features, labels = many[0].double(), many[1]
    features = features * 1e-6 + 1e3 * torch.eye(160, dtype=torch.float64)[labels]
    result = nearest_neighbours(features, labels)
    assert screened == [torch.bfloat16, torch.bfloat16, torch.float32, torch.float64]
    distances = squared_distances(features - features[0], features - features[0]).fill_diagonal_(np.inf)
    least = distances.amin(1)
    chosen = distances.gather(1, result.indices)[:, 0]
    assert (chosen <= least * (1 + 1e-9)).all()


@pytest.mark.parametrize("found", ["random", "one column repeated", "nothing"])
def test_bad_projections_cost_time_and_nothing_else(many, nearest_of_many, monkeypatch, found):
    features, labels = many
    basis = torch.randn(160, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    if found == "one column repeated":
        basis[:, 1:] = basis[:, :1]
    if found == "nothing":
        basis.zero_()
    bad = Projection(make_non_expansive(basis), 16)
    monkeypatch.setattr(knn_search, "choose_projection", lambda *_arguments: bad)
    assert torch.equal(nearest_neighbours(features, labels).indices, nearest_of_many[0][:, :1])


# Difficult data on every path, also on a GPU


def difficult(kind):
    """Multiples of 1/8, whose squared distances are exact in float64, so that ties are ties."""
    rng = np.random.default_rng(1)
    values = np.round(8 * rng.normal(size=(160, 40)) * np.exp(-np.arange(40) / 12)) / 8
    if kind == "ties":
        values = rng.integers(0, 2, (160, 7)).repeat(6, axis=1)[:, :40] + np.round(values / 4)
    if kind == "duplicates":
        values[50:90] = values[110:150]
    if kind == "offset":
        values += 1e4
    if kind == "clusters":
        values += 1000 * (np.arange(160) % 3)[:, None]
    return torch.from_numpy(values).to(DEVICE)


def brute_force(features, order, references=None):
    """Indices, squared distances and tied of each row, by float64 differences."""
    others = features if references is None else references
    squared = (features[:, None] - others[None]).square().sum(2)
    if references is None:
        squared.fill_diagonal_(torch.inf)
    distance, index = squared.sort(dim=1, stable=True)
    tied = (squared == distance[:, order - 1 : order]).sum(1)
    return index[:, :order], distance[:, :order], tied


@pytest.fixture(params=["projected rows", "whole rows in bfloat16", "whole rows in float32"])
def path(request, monkeypatch):
    """Have the search begin with these vectors, whether or not they save time."""

    def chosen(rows, _queries, references, _order, _budget):
        return Projection(principal_components(rows, references, 24), 8)

    if request.param == "projected rows":
        monkeypatch.setattr(knn_search, "choose_projection", chosen)
    if request.param == "whole rows in bfloat16":
        monkeypatch.setattr(knn_search, "_passes", lambda *_arguments: iter([(BFLOAT16, None), (FLOAT64, None)]))
    return request.param


@pytest.mark.parametrize("kind", ["plain", "ties", "duplicates", "offset", "clusters"])
@pytest.mark.parametrize("against", ["each other", "references"])
def test_every_path_finds_the_nearest(kind, against, path, screened):
    features = difficult(kind)
    labels = torch.arange(160, device=DEVICE) % 3
    queries, references = (features, None) if against == "each other" else (features[:70], features[40:])
    others = None if references is None else labels[40:]
    found = nearest_neighbours(queries, labels[: len(queries)], 3, references=references, reference_labels=others)
    index, distance, tied = brute_force(queries, 3, references)
    assert torch.equal(found.indices, index)
    assert torch.equal(found.squared_distances, distance)
    assert torch.equal(found.last_tied, tied)
    assert screened[0] is (torch.float32 if path == "whole rows in float32" else torch.bfloat16)


def test_every_path_finds_every_pair_tied_in_lists_of_any_length(path, monkeypatch):
    monkeypatch.setattr(knn_search, "COMPARED_PER_ROW", 10**6)
    features = torch.eye(120, dtype=torch.float64, device=DEVICE)
    found = nearest_neighbours(features, torch.zeros(120, dtype=torch.int64, device=DEVICE), memory_budget=2**18)
    assert found.indices[:, 0].tolist() == [1] + [0] * 119
    assert found.last_tied.tolist() == [119] * 120


@pytest.mark.skipif(DEVICE.type == "cpu", reason="needs CUDA")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("against", ["each other", "references"])
def test_cuda_finds_what_the_cpu_finds_bit_for_bit(dtype, against):
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(20_000, 48, generator=generator) @ torch.randn(48, 512, generator=generator)
    features = (coarse + 0.3 * torch.randn(20_000, 512, generator=generator) + 30).to(dtype)
    labels = torch.randint(0, 10, (20_000,), generator=generator)
    references = (None, None) if against == "each other" else (features[8000:], labels[8000:])
    both = []
    for device in ("cpu", "cuda"):
        given = {
            name: None if part is None else part.to(device)
            for name, part in zip(("references", "reference_labels"), references, strict=True)
        }
        both.append(nearest_neighbours(features.to(device), labels.to(device), 2, **given))
    assert torch.equal(both[0].indices, both[1].indices.cpu())
    assert torch.equal(both[0].squared_distances, both[1].squared_distances.cpu())
    assert torch.equal(both[0].last_tied, both[1].last_tied.cpu())


# Settings of the caller


def test_autocast_does_not_reach_the_products():
    features = gaussian(17, spread=30.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert nearest(features) == nearest_by_brute_force(features)


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
    monkeypatch.setattr(candidate_pairs, "PIECE", 100)
    features = torch.from_numpy(gaussian(30, n=300, width=1250) + offset).to(dtype)
    assert nearest(features, 2**19) == nearest_by_brute_force(features)
    assert sum(compared) < 10 * len(features)
