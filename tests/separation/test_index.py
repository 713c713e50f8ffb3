"""All scores of the Separation Index family against brute force, their identities, scikit-learn, and small examples."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from sklearn.datasets import load_digits
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid, NearestNeighbors

import zoo
from zoo_harness.separation.index import anti_si, centre_si, high_order_si, separation, separation_index, soft_si

from .brute_force import agreement_by_brute_force, check_against_brute_force, gaussian

BUDGETS = (1, 20_000, 512 * 2**20)
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@st.composite
def clouds(draw, least=2):
    """Features and labels with ties, duplicates, offsets and scales; integers, so that all arithmetic is exact."""
    n = draw(st.integers(least, 24))
    width = draw(st.integers(1, 3))
    side = draw(st.sampled_from([0, 1, 3, 1000]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    offset = draw(st.sampled_from([0, 0, 10_000, -(10**6)]))
    scale = 2.0 ** draw(st.sampled_from([0, 0, -30, 40, -1000, 900]))
    features = (rng.integers(0, side + 1, (n, width)) + offset) * scale
    labels = rng.integers(0, draw(st.integers(1, 4)), n) * draw(st.sampled_from([1, 3, 10**9]))
    return features, labels


def squarable(features):
    """The same times a power of two, exactly: numpy cannot square 2^900."""
    return np.ldexp(features, -np.frexp(np.abs(features).max())[1])


@settings(deadline=None, max_examples=60)
@given(clouds(), st.integers(1, 6), st.sampled_from(BUDGETS))
def test_scores_are_those_of_the_definitions(cloud, order, budget):
    features, labels = cloud
    order = min(order, len(labels) - 1)
    result = separation(features, labels, order, memory_budget=budget)
    same_label, distances = agreement_by_brute_force(squarable(features), labels)
    check_against_brute_force(result, same_label, distances, labels)
    equal = distances[:, 0] == 0
    assert result.duplicates == equal.sum()
    assert result.duplicates_unlike == (((distances == 0) & ~same_label).any(1)).sum()
    assert result.ties == ((distances == distances[:, :1]).sum(1) > 1).sum()


@settings(deadline=None, max_examples=60)
@given(clouds(1), st.data(), st.sampled_from(BUDGETS))
def test_cross_scores_are_those_of_the_definitions(cloud, data, budget):
    references, reference_labels = cloud
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    features = references[rng.integers(0, len(references), 9)] + rng.integers(0, 2, (9, 1)) * np.abs(references).max()
    labels = reference_labels[rng.integers(0, len(references), 9)] + rng.integers(0, 2, 9)
    order = min(data.draw(st.integers(1, 4)), len(references))
    result = separation(
        features, labels, order, references=references, reference_labels=reference_labels, memory_budget=budget
    )
    both = squarable(np.concatenate([features, references]))
    same_label, distances = agreement_by_brute_force(both[:9], labels, both[9:], reference_labels)
    check_against_brute_force(result, same_label, distances, labels)
    assert result.duplicates == (distances[:, 0] == 0).sum()
    assert (result.n, result.references) == (9, len(references))


@settings(deadline=None, max_examples=60)
@given(clouds(3), st.integers(2, 6))
def test_identities(cloud, order):
    features, labels = cloud
    order = min(order, len(labels) - 1)
    s = separation(features, labels, order)
    assert s.si.value == s.high[1].value == s.soft[1].value == separation_index(features, labels).value
    assert s.anti[1].value == pytest.approx(1 - s.si.value, abs=1e-12)
    assert s.anti[2].value == pytest.approx(1 - 2 * s.soft[2].value + s.high[2].value, abs=1e-12)
    for r in range(1, order + 1):
        assert s.high[r].value <= s.soft[r].value + 1e-12
        assert s.high[r].value + s.anti[r].value <= 1 + 1e-12
        assert s.high[r].value <= s.high[max(1, r - 1)].value
        assert s.anti[r].value <= s.anti[max(1, r - 1)].value
        assert s.soft[r].tied >= max(s.high[r].tied, s.anti[r].tied)
        for label, size in s.classes.items():
            assert s.high[r].per_class[label] <= s.soft[r].per_class[label] + 1e-12, size
    levels = s.per_sample
    for r in range(1, order + 1):
        assert s.high[r].value == float((levels >= r).double().mean())
        assert s.anti[r].value == float((levels <= -r).double().mean())


@settings(deadline=None, max_examples=40)
@given(clouds(), st.sampled_from(BUDGETS))
def test_centre_si_is_that_of_the_nearest_mean(cloud, budget):
    features, labels = cloud
    result = centre_si(features, labels, memory_budget=budget)
    points = squarable(features - features[0])
    names = np.unique(labels)
    centres = np.stack([points[labels == name].mean(0) for name in names])
    distances = ((points[:, None] - centres) ** 2).sum(2)
    own = distances[np.arange(len(labels)), np.searchsorted(names, labels)]
    for hit, mine, row in zip(result.per_sample.tolist(), own, distances, strict=True):
        others = np.sort(row)
        if hit:
            assert mine <= others[0] + 1e-12
        else:
            assert mine >= others[0] - 1e-12
    assert result.value == float(result.per_sample.mean())


@pytest.mark.parametrize("dtype", [*FLOATS, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64], ids=str)
def test_dtypes_are_taken_as_given(dtype):
    features, labels = gaussian(1, n=60)
    given = torch.from_numpy(features * 20).abs().to(dtype)
    same_label, distances = agreement_by_brute_force(given.double().numpy(), labels)
    check_against_brute_force(separation(given, torch.from_numpy(labels), 4), same_label, distances, labels)


# Against scikit-learn


@pytest.fixture(scope="module")
def digits():
    return load_digits(return_X_y=True)


@pytest.mark.filterwarnings("ignore:self.within_class_std_dev_")  # of NearestCentroid, on pixels that are always 0
def test_cross_si_is_the_accuracy_of_a_nearest_neighbour_classifier(digits):
    x, y = digits
    result = separation(x[900:], y[900:], references=x[:900], reference_labels=y[:900])
    knn = KNeighborsClassifier(1, algorithm="brute").fit(x[:900], y[:900])
    assert result.si.value == knn.score(x[900:], y[900:])
    assert result.si.tied == 0
    assert result.centre.value == NearestCentroid().fit(x[:900], y[:900]).score(x[900:], y[900:])


def test_soft_si_is_the_mean_probability_of_k_nearest_neighbours(digits):
    x, y = digits
    result = soft_si(x[900:], y[900:], 5, references=x[:900], reference_labels=y[:900])
    probabilities = KNeighborsClassifier(5, algorithm="brute").fit(x[:900], y[:900]).predict_proba(x[900:])
    assert abs(result.value - probabilities[np.arange(897), y[900:]].mean()) <= result.tied / 897 + 1e-12


def test_cosine_is_the_cosine_of_scikit_learn(digits):
    x, y = digits
    options = {"references": x[:900], "reference_labels": y[:900], "metric": "cosine"}
    knn = KNeighborsClassifier(1, algorithm="brute", metric="cosine").fit(x[:900], y[:900])
    assert high_order_si(x[900:], y[900:], 1, **options).value == knn.score(x[900:], y[900:])


@pytest.mark.parametrize("budget", [1, 100_000, 2**29])
@pytest.mark.parametrize("seed", range(3))
def test_equals_leave_one_out_nearest_neighbour_of_scikit_learn(seed, budget):
    features, labels = gaussian(seed, width=24, spread=0.4)
    indices = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(features).kneighbors(return_distance=False)[:, 0]
    result = separation_index(features, labels, memory_budget=budget)
    assert result.nearest.tolist() == indices.tolist()
    assert result.value == (labels[indices] == labels).mean()
    assert 0.2 < result.value < 1
    assert (result.ties, result.tied_disagreements) == (0, 0)


def test_si_of_digits(digits):
    features, labels = digits
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


def test_strides_and_gradients():
    wide = torch.from_numpy(gaussian(12)[0]).requires_grad_()
    labels = torch.arange(300)[::2] % 3
    for features in (wide[:, 1::2], wide.T.contiguous().T, wide[:, :1].expand(-1, 4)):
        result = separation(features, labels, references=features[5:70], reference_labels=labels[5:70])
        plain = torch.tensor(features.tolist(), dtype=torch.float64)
        again = separation(plain, labels, references=plain[5:70], reference_labels=labels[5:70])
        assert result.to_dict() == again.to_dict()
        assert not result.soft[2].per_sample.requires_grad


def test_numpy_and_torch_and_dtypes_mix():
    features, labels = gaussian(13, n=60)
    halves = features.astype(np.float16)
    result = separation(
        halves.astype(np.float32), labels.astype(np.uint8), references=torch.from_numpy(halves[:20]),
        reference_labels=torch.from_numpy(labels[:20]),
    )  # fmt: skip
    assert result.duplicates == 20
    assert result.si.value == separation(
        halves.astype(float), labels, references=halves[:20], reference_labels=labels[:20]
    ).si.value  # fmt: skip


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_on_cuda_as_on_the_cpu():
    for dtype in FLOATS:
        features = torch.from_numpy(gaussian(10)[0]).to(dtype)
        labels = torch.arange(len(features)) % 3
        there, here = separation_index(features.cuda(), labels), separation_index(features, labels)
        assert there.nearest.is_cuda
        assert (there.nearest.tolist(), there.value, there.ties) == (here.nearest.tolist(), here.value, here.ties)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_references_and_labels_on_another_device():
    features, labels = (torch.from_numpy(given) for given in gaussian(14))
    here = separation(features, labels, references=features[::2], reference_labels=labels[::2])
    there = separation(features.cuda(), labels, references=features[::2], reference_labels=labels[::2].cuda())
    assert there.nearest.is_cuda
    assert there.to_dict() == here.to_dict()


def test_a_budget_beyond_any_machine_is_taken():
    features, labels = np.random.default_rng(0).normal(size=(40, 3)), np.arange(40) % 2
    assert separation(features, labels, memory_budget=2**70).si.value == separation(features, labels).si.value


# What must and must not change the result


def test_equal_rows_with_other_labels_are_ties_that_matter():
    features, labels = np.array([[1.0]] * 3 + [[2.0]]), np.array([0, 1, 0, 1])
    result = separation_index(features, labels)
    assert result.nearest.tolist() == [1, 0, 0, 0]
    assert result.value == 0.25
    assert (result.ties, result.tied_disagreements) == (4, 3)


def test_all_points_equal_go_to_the_lowest_index_and_the_lowest_class():
    labels = np.array([5, 5, 2, 2, 2])
    result = separation(np.full((5, 3), 0.1), labels)
    assert result.nearest[:, 0].tolist() == [1, 0, 0, 0, 0]
    assert (result.si.value, result.si.tied) == (0.4, 5)
    assert result.centre.per_class == {2: 1.0, 5: 0.0}
    assert result.centre.tied == 5


def test_order_of_samples_does_not_matter():
    features, labels = gaussian(19)
    order = np.random.default_rng(0).permutation(len(labels))
    plain, permuted = separation_index(features, labels), separation_index(features[order], labels[order])
    assert plain.value == permuted.value
    assert order[permuted.nearest].tolist() == plain.nearest[order].tolist()


def test_names_of_classes_and_gaps_between_them_do_not_matter():
    features, labels = gaussian(10)
    spread = separation(features, labels * 10**9 + 5)
    assert list(spread.classes) == [5, 10**9 + 5, 2 * 10**9 + 5, 3 * 10**9 + 5]
    assert list(spread.si.per_class.values()) == list(separation(features, labels).si.per_class.values())
    assert separation_index(features, labels).value == separation_index(features, 10**12 - 7 * labels).value


def test_labels_and_the_scale_of_a_feature_do_matter():
    features, labels = gaussian(21, spread=3.0)
    value = separation_index(features, labels).value
    assert value > 0.99
    assert separation_index(features, np.random.default_rng(0).permutation(labels)).value < 0.5
    features[:, 0] += 1e3 * np.random.default_rng(1).normal(size=len(features))
    assert separation_index(features, labels).value < 0.6


def test_one_class_agrees_with_itself():
    result = separation(gaussian(11)[0], np.full(150, 3))
    assert [result.high[2].value, result.soft[2].value, result.anti[2].value, result.centre.value] == [1, 1, 0, 1]
    assert result.si.bootstrap_error == result.si.standard_error == 0
    one = separation_index(gaussian(22)[0], np.full(150, 3))
    assert (one.value, one.standard_error) == (1.0, 0.0)


def test_the_only_sample_of_a_class_never_finds_itself():
    result = separation(np.array([[0.0], [0.1], [0.3], [0.4]]), np.array([0, 0, 1, 0]), 3)
    assert [scores[3].per_class[1] for scores in (result.high, result.soft, result.anti)] == [0, 0, 1]
    assert result.per_sample[2] == -3
    assert result.centre.per_class[1] == 1.0
    assert separation_index(np.array([[0.0], [0.1], [0.3]]), np.array([0, 0, 1])).value == 2 / 3
    assert separation_index(np.array([[0.0], [5.0]]), np.array([0, 1])).value == 0


def test_labels_that_one_of_the_sets_lacks_are_not_shifted():
    references, reference_labels = np.array([[0.0], [1.0], [2.0]]), np.array([3, 4, 9])
    features, labels = np.array([[0.1], [1.1], [2.1]]), np.array([4, 4, 5])
    before = labels.copy()
    result = separation(features, labels, 1, references=references, reference_labels=reference_labels)
    assert result.si.per_class == result.centre.per_class == {4: 0.5, 5: 0.0}
    assert result.classes == {4: 2, 5: 1}
    assert labels.tolist() == before.tolist()


@pytest.mark.parametrize("value", [1e15, 1e18, -1e150])
@pytest.mark.parametrize("against", ["each other", "references"])
def test_an_extreme_row_spoils_no_centre_but_its_own_wherever_it_stands(value, against):
    rng = np.random.default_rng(3)
    labels = np.arange(90) % 3
    features = rng.normal(size=(90, 5)) + 2 * np.eye(3, 5)[labels]
    features[0] = value
    first_is_last = np.r_[1:90, 0]
    found = []
    for order in (np.arange(90), first_is_last):
        x, y = features[order], labels[order]
        rows = (x[y != 0], y[y != 0]) if against == "references" else (x, y)
        options = {"references": x, "reference_labels": y} if against == "references" else {}
        found.append(separation(*rows, 1, **options).centre)
    centres = np.stack([features[labels == name].mean(0) for name in range(3)])
    chosen = labels != 0 if against == "references" else labels >= 0
    distances = ((features[chosen, None] - centres) ** 2).sum(2)
    assert found[0].value == found[1].value == (distances.argmin(1) == labels[chosen]).mean()


# What the result holds


def test_the_result_of_five_points():
    result = separation(np.array([[0.0], [1.0], [4.0], [6.0], [6.5]]), np.array([0, 0, 0, 3, 3]))
    assert (result.n, result.classes, result.order, result.references) == (5, {0: 3, 3: 2}, 2, None)
    assert result.si.per_class == {0: 2 / 3, 3: 1.0}
    assert result.nearest.tolist() == [[1, 2], [0, 2], [3, 4], [4, 2], [3, 2]]
    assert result.per_sample.tolist() == [2, 2, -2, 1, 1]
    assert result.si.standard_error == pytest.approx((0.8 * 0.2 / 5) ** 0.5)
    assert result.soft[2].standard_error == pytest.approx(np.std([1, 1, 0, 0.5, 0.5]) / 5**0.5)
    index = separation_index(np.array([[0.0], [1.0], [4.0], [6.0], [6.5]]), np.array([0, 0, 0, 1, 1]))
    assert (index.value, index.n, index.nearest.dtype) == (0.8, 5, torch.int64)
    assert index.standard_error == pytest.approx(math.sqrt(0.8 * 0.2 / 5))


def test_single_scores_are_those_of_the_whole_result():
    features, labels = gaussian(9)
    options = {"metric": "cosine", "normalize": True, "per_class": 12, "seed": 3}
    whole = separation(features, labels, 3, **options)
    single = {
        "high": high_order_si(features, labels, 3, **options),
        "soft": soft_si(features, labels, 3, **options),
        "anti": anti_si(features, labels, 3, **options),
    }
    assert {name: score.to_dict() for name, score in single.items()} == {
        name: whole.to_dict()[name]["3"] for name in single
    }
    assert centre_si(features, labels, **options).to_dict() == whole.centre.to_dict()


def test_the_public_door_has_them():
    assert zoo.separation is separation
    assert zoo.soft_si is soft_si
