"""All scores of the Separation Index family against brute force, their identities, scikit-learn, and bad input."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from pydantic import ValidationError
from sklearn.datasets import load_digits
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid

import zoo
from zoo.errors import DataError, UsageError
from zoo_harness.cli.main import run
from zoo_harness.evaluation.split_scores import recorded
from zoo_harness.records.run import SplitSeparation, read_run
from zoo_harness.separation.index import anti_si, centre_si, high_order_si, separation, separation_index, soft_si
from zoo_harness.separation.scores import SCORES, ScoreDefinition

BUDGETS = (1, 20_000, 512 * 2**20)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def gaussian(seed, n=150, width=8, classes=4, spread=1.0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    return spread * rng.normal(size=(classes, width))[labels] + rng.normal(size=(n, width)), labels


# The definitions, written once more: all distances at once, in numpy


def agreement_by_brute_force(features, labels, references=None, reference_labels=None):
    """Whether each neighbour, from the nearest to the farthest, bears the sample's label; and all distances."""
    own = np.asarray(features, dtype=np.float64)
    others = own if references is None else np.asarray(references, dtype=np.float64)
    other_labels = labels if references is None else reference_labels
    distances = ((own[:, None] - others[None]) ** 2).sum(2)
    if references is None:
        np.fill_diagonal(distances, np.inf)
    order = np.argsort(distances, axis=1, kind="stable")
    if references is None:
        order = order[:, :-1]
    return np.asarray(other_labels)[order] == np.asarray(labels)[:, None], np.take_along_axis(distances, order, 1)


def points_by_definition(alike, r):
    near = alike[:, :r]
    return {"high": near.all(1) * 1.0, "soft": near.mean(1), "anti": 1.0 - near.any(1)}


def dependent_by_trying(alike, distances, r):
    """How many samples' high, soft and anti numbers differ between choices of the tied neighbours."""
    counts = dict.fromkeys(("high", "soft", "anti"), 0)
    for row, distance in zip(alike, distances, strict=True):
        inner = list(row[distance < distance[r - 1]])
        tied = sorted(row[distance == distance[r - 1]])
        places = r - len(inner)
        # Sorted, so that these have every possible number of agreeing ones.
        choices = [inner + tied[i : i + places] for i in range(len(tied) - places + 1)]
        for family, values in {
            "high": {all(choice) for choice in choices},
            "soft": {sum(choice) for choice in choices},
            "anti": {not any(choice) for choice in choices},
        }.items():
            counts[family] += len(values) > 1
    return counts


def check_against_brute_force(result, alike, distances, labels):
    assert result.order <= alike.shape[1]
    for r in range(1, result.order + 1):
        tied = dependent_by_trying(alike, distances, r)
        for family, points in points_by_definition(alike, r).items():
            score = getattr(result, family)[r]
            np.testing.assert_allclose(score.per_sample, points, rtol=1e-12)
            assert score.value == pytest.approx(points.mean(), abs=1e-12)
            by_class = {int(name): points[labels == name].mean() for name in np.unique(labels)}
            assert score.per_class == pytest.approx(by_class, abs=1e-12)
            assert score.tied == tied[family], (family, r)


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


@settings(deadline=None, max_examples=150)
@given(clouds(), st.integers(1, 6), st.sampled_from(BUDGETS))
def test_scores_are_those_of_the_definitions(cloud, order, budget):
    features, labels = cloud
    order = min(order, len(labels) - 1)
    result = separation(features, labels, order, memory_budget=budget)
    alike, distances = agreement_by_brute_force(squarable(features), labels)
    check_against_brute_force(result, alike, distances, labels)
    equal = distances[:, 0] == 0
    assert result.duplicates == equal.sum()
    assert result.duplicates_unlike == (((distances == 0) & ~alike).any(1)).sum()
    assert result.ties == ((distances == distances[:, :1]).sum(1) > 1).sum()


@settings(deadline=None, max_examples=100)
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
    alike, distances = agreement_by_brute_force(both[:9], labels, both[9:], reference_labels)
    check_against_brute_force(result, alike, distances, labels)
    assert result.duplicates == (distances[:, 0] == 0).sum()
    assert (result.n, result.references) == (9, len(references))


@settings(deadline=None, max_examples=150)
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


@settings(deadline=None, max_examples=60)
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


@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.uint8, torch.int64]
)
def test_dtypes_are_taken_as_given(dtype):
    features, labels = gaussian(1, n=60)
    given = torch.from_numpy(features * 20).abs().to(dtype)
    alike, distances = agreement_by_brute_force(given.double().numpy(), labels)
    check_against_brute_force(separation(given, torch.from_numpy(labels), 4), alike, distances, labels)


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


# Scaling


def test_z_scores_come_from_the_references():
    features, labels = gaussian(2, n=80)
    features[:, 1] *= 1e3
    references, reference_labels = features[:50] + 7, labels[:50]
    mean, deviation = references.mean(0), references.std(0)
    alike, _ = agreement_by_brute_force(
        (features[50:] - mean) / deviation, labels[50:], (references - mean) / deviation, reference_labels
    )
    options = {"references": references, "reference_labels": reference_labels}
    normalized = separation(features[50:], labels[50:], 3, normalize=True, **options)
    np.testing.assert_allclose(normalized.soft[3].per_sample, alike[:, :3].mean(1))
    assert normalized.si.value != separation(features[50:], labels[50:], 3, **options).si.value


@pytest.mark.parametrize("scale", [1e-320, 1e-200, 1.0, 1e200, 1e300])
def test_z_scores_do_not_depend_on_scale_nor_offset(scale):
    features, labels = gaussian(3)
    units = np.full(8, 1.0)
    units[2:] = scale
    plain = separation((features * 64).round() * 1e-3, labels, 3, normalize=True)
    scaled = separation((features * 64).round() * units + np.eye(8)[0] * 1e4, labels, 3, normalize=True)
    assert scaled.to_dict()["soft"] == plain.to_dict()["soft"]


@pytest.mark.parametrize("constant", [0.1, 0.0, -1e300])
def test_a_constant_feature_becomes_zero_for_all(constant):
    features, labels = gaussian(4, n=90)
    with_constant = np.column_stack([features, np.full(90, constant)])
    strange = np.column_stack([features[60:], np.full(30, 1e5)])
    options = {"normalize": True, "reference_labels": labels[:60]}
    plain = separation(features[60:], labels[60:], references=features[:60], **options)
    result = separation(strange, labels[60:], references=with_constant[:60], **options)
    assert result.to_dict() == plain.to_dict()


def test_all_features_constant_leaves_nothing_but_ties():
    result = separation(np.full((6, 2), 0.1), np.array([0, 0, 1, 1, 1, 0]), normalize=True)
    assert (result.ties, result.duplicates, result.duplicates_unlike) == (6, 6, 6)
    assert result.nearest[:3].tolist() == [[1, 2], [0, 2], [0, 1]]


def test_all_points_equal_go_to_the_lowest_index_and_the_lowest_class():
    labels = np.array([5, 5, 2, 2, 2])
    result = separation(np.full((5, 3), 0.1), labels)
    assert result.nearest[:, 0].tolist() == [1, 0, 0, 0, 0]
    assert (result.si.value, result.si.tied) == (0.4, 5)
    assert result.centre.per_class == {2: 1.0, 5: 0.0}
    assert result.centre.tied == 5


def test_cosine_ignores_the_length_of_rows():
    features, labels = gaussian(5)
    lengths = 2.0 ** np.random.default_rng(0).integers(-900, 900, (150, 1))
    plain, scaled = (separation(x, labels, metric="cosine") for x in (features, features * lengths))
    assert scaled.to_dict() == plain.to_dict()
    assert plain.si.value != separation(features, labels).si.value


# What the record tells


def test_the_record_of_five_points():
    result = separation(np.array([[0.0], [1.0], [4.0], [6.0], [6.5]]), np.array([0, 0, 0, 3, 3]))
    assert (result.n, result.classes, result.order, result.references) == (5, {0: 3, 3: 2}, 2, None)
    assert result.si.per_class == {0: 2 / 3, 3: 1.0}
    assert result.nearest.tolist() == [[1, 2], [0, 2], [3, 4], [4, 2], [3, 2]]
    assert result.per_sample.tolist() == [2, 2, -2, 1, 1]
    assert result.si.standard_error == pytest.approx((0.8 * 0.2 / 5) ** 0.5)
    assert result.soft[2].standard_error == pytest.approx(np.std([1, 1, 0, 0.5, 0.5]) / 5**0.5)


def test_the_record_is_ready_for_json_and_survives_pickling():
    features, labels = gaussian(6)
    result = separation(features, labels, 3, per_class=20, seed=4)
    told = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert told == result.to_dict()
    assert told["classes"] == {"0": 20, "1": 20, "2": 20, "3": 20}
    assert told["high"]["3"]["value"] == result.high[3].value
    again = pickle.loads(pickle.dumps(result))  # noqa: S301 - our own
    assert again.to_dict() == told
    assert torch.equal(again.soft[2].per_sample, result.soft[2].per_sample)


def test_the_table():
    features, labels = gaussian(7, n=40)
    features[1] = features[0]
    labels[:2] = 0, 1
    result = separation(features, labels)
    lines = str(result).splitlines()
    assert lines[0] == f"SI {result.si}  (40 samples of 4 classes against each other, euclidean distance)"
    assert lines[2].split("  ")[-1] == "decided by a tie"
    assert lines[4].split()[1:4] == [f"{result.high[2].value:.4f}", "±", f"{result.high[2].bootstrap_error:.4f}"]
    assert lines[5].split()[:2] == ["centre", f"{result.centre.value:.4f}"]
    assert len({len(line) for line in lines[2:6]}) == 1
    assert lines[-1].endswith("2 samples equal another sample, 2 of them one of another class.")


def test_a_balanced_subset_is_chosen_by_seed():
    features, labels = gaussian(8)
    first, again, other = (separation(features, labels, per_class=9, seed=seed) for seed in (1, 1, 2))
    assert first.rows.tolist() == again.rows.tolist() != other.rows.tolist()
    assert first.rows.tolist() == sorted(set(first.rows.tolist()))
    assert first.classes == dict.fromkeys(range(4), 9)
    plain = separation(features[first.rows], labels[first.rows], seed=1)
    assert {**first.to_dict(), "per_class": None} == plain.to_dict()


def test_a_balanced_subset_leaves_the_references_alone():
    features, labels = gaussian(8)
    result = separation(features, labels, 1, references=features, reference_labels=labels, per_class=9)
    assert (result.n, result.references, result.duplicates, result.si.value) == (36, 150, 36, 1.0)


def test_single_scores_are_those_of_the_record():
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


# Labels


def test_gaps_in_labels_do_not_matter():
    features, labels = gaussian(10)
    spread = separation(features, labels * 10**9 + 5)
    assert list(spread.classes) == [5, 10**9 + 5, 2 * 10**9 + 5, 3 * 10**9 + 5]
    assert list(spread.si.per_class.values()) == list(separation(features, labels).si.per_class.values())


def test_one_class_agrees_with_itself():
    result = separation(gaussian(11)[0], np.full(150, 3))
    assert [result.high[2].value, result.soft[2].value, result.anti[2].value, result.centre.value] == [1, 1, 0, 1]
    assert result.si.bootstrap_error == result.si.standard_error == 0


def test_the_only_sample_of_a_class_never_finds_itself():
    result = separation(np.array([[0.0], [0.1], [0.3], [0.4]]), np.array([0, 0, 1, 0]), 3)
    assert [scores[3].per_class[1] for scores in (result.high, result.soft, result.anti)] == [0, 0, 1]
    assert result.per_sample[2] == -3
    assert result.centre.per_class[1] == 1.0


def test_labels_that_one_of_the_sets_lacks_are_not_shifted():
    references, reference_labels = np.array([[0.0], [1.0], [2.0]]), np.array([3, 4, 9])
    features, labels = np.array([[0.1], [1.1], [2.1]]), np.array([4, 4, 5])
    before = labels.copy()
    result = separation(features, labels, 1, references=references, reference_labels=reference_labels)
    assert result.si.per_class == result.centre.per_class == {4: 0.5, 5: 0.0}
    assert result.classes == {4: 2, 5: 1}
    assert labels.tolist() == before.tolist()


# Layouts and devices


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
def test_references_and_labels_on_another_device():
    features, labels = (torch.from_numpy(given) for given in gaussian(14))
    here = separation(features, labels, references=features[::2], reference_labels=labels[::2])
    there = separation(features.cuda(), labels, references=features[::2], reference_labels=labels[::2].cuda())
    assert there.nearest.is_cuda
    assert there.to_dict() == here.to_dict()


# Bad input

FINE = np.arange(12.0).reshape(6, 2)
CLASSES = np.array([0, 1, 0, 1, 0, 1])


@pytest.mark.parametrize("order", [0, -1, True, False, 1.0, 2.5, "2", None])
def test_orders_that_are_no_number_of_neighbours(order):
    with pytest.raises(UsageError, match=r"order .* is not a number of neighbours: expected an integer from 1"):
        separation(FINE, CLASSES, order)


def test_orders_with_too_few_neighbours():
    assert separation(FINE, CLASSES, np.int64(5)).order == 5
    with pytest.raises(UsageError, match=r"order 6 .* the 5 other samples there are; the largest order is 5"):
        separation(FINE, CLASSES, 6)
    with pytest.raises(UsageError, match=r"order 3 .* the 2 references there are; the largest order is 2"):
        soft_si(FINE, CLASSES, 3, references=FINE[:2], reference_labels=CLASSES[:2])


BAD_OPTIONS = [
    ({"references": FINE}, UsageError, "give both or neither"),
    ({"reference_labels": CLASSES}, UsageError, "give both or neither"),
    ({"references": np.ones((3, 5)), "reference_labels": CLASSES[:3]}, UsageError, "5 features a sample; expected 2"),
    ({"references": FINE, "reference_labels": CLASSES[:3]}, UsageError, r"reference_labels have shape \(3,\).*\(6,\)"),
    ({"references": FINE, "reference_labels": -CLASSES}, DataError, "3 of 6 reference_labels are negative"),
    ({"references": FINE * np.nan, "reference_labels": CLASSES}, DataError, r"references hold NaN .* in 6 of 6 rows"),
    ({"references": FINE[:0], "reference_labels": CLASSES[:0]}, DataError, "references hold 0 samples"),
    ({"metric": "manhattan"}, UsageError, "metric 'manhattan' is not one of euclidean, cosine"),
    ({"metric": "cosine", "references": np.eye(3)[:, :2], "reference_labels": CLASSES[:3]}, DataError,
     r"references are zero throughout in 1 of 3 rows \(2\)"),
    ({"normalize": 1}, UsageError, "normalize 1"),
    ({"per_class": 0}, UsageError, "per_class 0"),
    ({"per_class": True}, UsageError, "per_class True"),
    ({"per_class": 4}, UsageError, "per_class 4: class 0 has 3 samples; 3 is the most"),
    ({"seed": -1}, UsageError, "seed -1 is not an integer from 0"),
    ({"memory_budget": 0}, UsageError, "memory_budget 0"),
    ({"normalize": True, "references": FINE * 1e-290, "reference_labels": CLASSES}, DataError,
     "z-scores of rows 0, 1, 2, 3, 4, ... leave the range"),
]  # fmt: skip


@pytest.mark.parametrize(("options", "error", "message"), BAD_OPTIONS)
@pytest.mark.parametrize("function", [separation, anti_si, centre_si])
def test_bad_options(function, options, error, message):
    features = FINE + 1e20 if "leave the range" in message else FINE
    with pytest.raises(error, match=message):
        function(features, CLASSES, **options)


def test_rows_of_zeros_have_no_cosine():
    features = FINE.copy()
    features[[2, 5]] = 0
    with pytest.raises(DataError, match=r"features are zero throughout in 2 of 6 rows \(2, 5\)"):
        separation(features, CLASSES, metric="cosine")


@pytest.mark.parametrize(
    ("features", "labels", "error", "message"),
    [
        (FINE[:0], CLASSES[:0], DataError, "0 samples"),
        (FINE[:1], CLASSES[:1], DataError, "1 samples; a nearest other sample"),
        (FINE, CLASSES[:5], UsageError, r"labels have shape \(5,\); expected \(6,\)"),
        (FINE, CLASSES.astype(float), UsageError, "labels are float64; expected integers"),
        (FINE, -CLASSES, DataError, "3 of 6 labels are negative"),
        (np.where(FINE == 7, np.inf, FINE), CLASSES, DataError, r"1 of 6 rows \(3\)"),
    ],
)
def test_bad_features_and_labels(features, labels, error, message):
    with pytest.raises(error, match=message):
        separation(features, labels, 1)


# What a stranger found


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
        found.append(zoo.separation(*rows, 1, **options).centre)
    centres = np.stack([features[labels == name].mean(0) for name in range(3)])
    chosen = labels != 0 if against == "references" else labels >= 0
    distances = ((features[chosen, None] - centres) ** 2).sum(2)
    assert found[0].value == found[1].value == (distances.argmin(1) == labels[chosen]).mean()


def test_a_budget_beyond_any_machine_is_taken():
    features, labels = np.random.default_rng(0).normal(size=(40, 3)), np.arange(40) % 2
    assert zoo.separation(features, labels, memory_budget=2**70).si.value == zoo.separation(features, labels).si.value


def test_labels_that_are_text_are_told_with_what_to_do():
    with pytest.raises(
        zoo.UsageError, match=r"labels are text or objects \(<U3\); expected whole numbers .*numpy.unique"
    ):
        zoo.separation(np.eye(3), np.array(["cat", "cat", "dog"]))


def test_no_metric_is_no_metric():
    with pytest.raises(zoo.UsageError, match="metric None is not one of euclidean, cosine"):
        zoo.separation(np.eye(3), np.array([0, 0, 1]), metric=None)


# New scores: an entry of the list and a pure function each


def above_chance(near):
    """SI, rescaled so that it is 0 if neighbours are drawn at random."""
    hits = near.same_label.to(torch.float64)
    return (hits - near.chance) / (1 - near.chance), 1


def by_majority(near):
    return 2 * near.same_label > near.order, 1


def errors_by_partners(_counts, _max_count, partners, _seed):
    return 0.25, 0.0 if partners is None else len(partners) / 1000


ADJUSTED = ScoreDefinition("adjusted", "adjusted SI", "SI of {sample}s over chance", above_chance)
MAJORITY = ScoreDefinition(
    "majority",
    "majority SI",
    "fraction of {sample}s that have most of {order} neighbours on their side",
    by_majority,
    has_orders=True,
    errors=errors_by_partners,
)


@pytest.fixture
def new_scores():
    SCORES.extend([ADJUSTED, MAJORITY])
    yield
    del SCORES[-2:]


@pytest.mark.usefixtures("new_scores")
def test_new_scores_are_in_the_result_its_json_and_its_table():
    features, labels = gaussian(23)
    result = separation(features, labels, 3)
    sizes = np.bincount(labels)
    chance = (sizes * (sizes - 1)).sum() / (150 * 149)
    adjusted = result.scores["adjusted"][1]
    assert adjusted.value == pytest.approx((result.si.value - chance) / (1 - chance))
    assert adjusted.standard_error == pytest.approx(result.si.standard_error / (1 - chance))
    assert adjusted.bootstrap_error == pytest.approx(result.si.bootstrap_error / (1 - chance), rel=0.05)
    assert adjusted.per_class[2] == pytest.approx((result.si.per_class[2] - chance) / (1 - chance))
    assert adjusted.tied == result.si.tied
    majority = result.scores["majority"]
    assert majority[3].value == ((result.soft[3].per_sample > 0.5).double().mean())
    assert (majority[2].standard_error, majority[2].bootstrap_error) == (0.25, 0.15)
    plain = json.loads(json.dumps(result.to_dict()))
    assert plain["adjusted"]["value"] == adjusted.value
    assert plain["majority"]["2"]["value"] == result.high[2].value
    lines = str(result).splitlines()
    assert "majority SI" in lines[2]
    assert lines[5].split()[-4:-1] == str(majority[3]).split()
    assert lines[7].split()[:2] == ["adjusted", f"{adjusted.value:.4f}"]


@pytest.mark.usefixtures("new_scores")
def test_ties_that_decide_new_scores_are_counted():
    rng = np.random.default_rng(0)
    features, labels = rng.integers(0, 4, (40, 2)), rng.integers(0, 3, 40)
    result = separation(features, labels, 4)
    alike, distances = agreement_by_brute_force(features, labels)
    decided = 0
    for row, distance in zip(alike, distances, strict=True):
        inner, tied = row[distance < distance[3]], np.sort(row[distance == distance[3]])
        slots = 4 - len(inner)
        ends = {2 * (inner.sum() + part.sum()) > 4 for part in (tied[:slots], tied[len(tied) - slots :])}
        decided += len(ends) > 1
    assert result.scores["majority"][4].tied == decided > 0


@pytest.mark.usefixtures("new_scores")
def test_chance_with_references_is_the_share_of_pairs_with_the_same_label():
    features, labels = gaussian(24)
    options = {"references": features[:50], "reference_labels": labels[:50]}
    result = separation(features[50:], labels[50:], **options)
    chance = (labels[50:, None] == labels[:50]).mean()
    assert result.scores["adjusted"][1].value == pytest.approx((result.si.value - chance) / (1 - chance))


@pytest.mark.usefixtures("new_scores")
def test_new_scores_are_in_the_metric():
    features, labels = gaussian(25)
    metric = zoo.SeparationMetric(order=3)
    metric.update(features, labels)
    result = separation(features, labels, 3)
    found = {name: float(value) for name, value in metric.compute().items()}
    assert list(found)[-2:] == ["adjusted_si", "majority_si"]
    assert found["adjusted_si"] == result.scores["adjusted"][1].value
    assert found["majority_si"] == result.scores["majority"][3].value


@pytest.mark.usefixtures("new_scores")
def test_new_scores_are_in_the_output_of_zoo_si(tmp_path, capsys):
    features, labels = gaussian(26)
    np.savez(tmp_path / "features.npz", features=features, labels=labels)
    result = separation(features, labels)
    assert run(["si", str(tmp_path / "features.npz"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["adjusted"] == result.scores["adjusted"][1].to_dict()
    assert run(["si", str(tmp_path / "features.npz"), "--classes"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"{result}\n")
    assert "centre  adjusted  majority 2\n" in printed


@pytest.mark.usefixtures("new_scores")
def test_new_scores_are_in_a_run_its_card_its_layers_and_its_rescoring(tmp_path, capsys):
    out = tmp_path / "run"
    sample = ["--dataset", "digits", "--per-class", "3"]
    assert run(["eval", "efficientnet_lite0", *sample, "--epochs", "0", "--out", str(out)]) == 0
    printed, card, after = capsys.readouterr().out, (out / "README.md").read_text(), read_run(out).results
    scores = after.separation_after.evaluation.scores
    assert list(scores) == ["si", "high", "soft", "anti", "centre", "adjusted", "majority"]
    assert (
        json.loads((out / "run.json").read_text())["results"]["separation_after"]["evaluation"]["adjusted"]["n"] == 30
    )
    assert "anti  centre  adjusted  majority\n" in printed
    assert f"{scores['adjusted'].value:.4f}    {scores['majority'].value:.4f}\n" in printed
    assert "adjusted SI: SI of images over chance\n" in printed
    assert "| Centre SI | Adjusted SI | Majority SI |\n|---|---|---|---|---|---|---|---|\n" in card
    assert f"| {scores['adjusted'].value:.4f} ± {scores['adjusted'].bootstrap_error:.4f} |" in card
    assert "- **Majority SI**: fraction of images that have most of 2 neighbours on their side.\n" in card
    assert {"adjusted", "majority"} < set(after.layer_curve.layers[3].separation.scores)

    assert run(["eval", str(out), "--epochs", "0", "--quiet"]) == 0
    assert capsys.readouterr().out.count("reproduced: the same count of 30 images") == 8
    layers = ["layers", "efficientnet_lite0", *sample, "--pool", "--quiet", "--out", str(tmp_path / "layers")]
    assert run(layers) == 0
    assert "anti 2  centre  adjusted  majority 2" in capsys.readouterr().out


def test_a_record_keeps_the_scores_that_the_list_no_longer_has(new_scores):
    found = recorded(separation(*gaussian(27)))
    del SCORES[-2:]
    try:
        again = SplitSeparation.model_validate_json(found.model_dump_json())
        assert again == found
        assert again.scores["adjusted"] == found.scores["adjusted"]
    finally:
        SCORES.extend([ADJUSTED, MAJORITY])


def test_a_record_of_the_five_scores_has_the_keys_of_earlier_records():
    plain = recorded(separation(*gaussian(28))).model_dump()
    assert list(plain) == ["order", "si", "high", "soft", "anti", "centre", "duplicates", "duplicates_unlike"]
    assert list(plain["soft"]) == ["value", "standard_error", "n", "bootstrap_error", "tied"]


@pytest.mark.parametrize("change", [{"si": {"value": 1.5}}, {"further": 3}, {"high": {"value": float("nan")}}])
def test_a_record_with_impossible_scores_is_refused(change):
    plain = recorded(separation(*gaussian(29))).model_dump()
    changed = {key: {**plain[key], **value} if isinstance(value, dict) else value for key, value in change.items()}
    with pytest.raises(ValidationError):
        SplitSeparation.model_validate({**plain, **changed})


def test_every_score_is_in_the_documentation():
    text = (Path(__file__).parents[2] / "docs" / "separation.md").read_text()
    for each in SCORES:
        assert f"| {each.title}" in text
        assert each.name in text
