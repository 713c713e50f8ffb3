"""The inputs of scores: scaling, the balanced subset, and options that are refused."""

from __future__ import annotations

import numpy as np
import pytest

from zoo.errors import DataError, UsageError
from zoo_harness.separation.index import anti_si, centre_si, separation, soft_si

from .brute_force import agreement_by_brute_force, gaussian


def test_z_scores_come_from_the_references():
    features, labels = gaussian(2, n=80)
    features[:, 1] *= 1e3
    references, reference_labels = features[:50] + 7, labels[:50]
    mean, deviation = references.mean(0), references.std(0)
    same_label, _ = agreement_by_brute_force(
        (features[50:] - mean) / deviation, labels[50:], (references - mean) / deviation, reference_labels
    )
    options = {"references": references, "reference_labels": reference_labels}
    normalized = separation(features[50:], labels[50:], 3, normalize=True, **options)
    np.testing.assert_allclose(normalized.soft[3].per_sample, same_label[:, :3].mean(1))
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


def test_cosine_ignores_the_length_of_rows():
    features, labels = gaussian(5)
    lengths = 2.0 ** np.random.default_rng(0).integers(-900, 900, (150, 1))
    plain, scaled = (separation(x, labels, metric="cosine") for x in (features, features * lengths))
    assert scaled.to_dict() == plain.to_dict()
    assert plain.si.value != separation(features, labels).si.value


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


# Options that are refused

FINE = np.arange(12.0).reshape(6, 2)
CLASSES = np.array([0, 1, 0, 1, 0, 1])
AGAINST = {"references": FINE, "reference_labels": CLASSES}
REFUSED = [
    ({"references": FINE}, UsageError, "missing-labels", {}),
    ({"reference_labels": CLASSES}, UsageError, "option-unused", {}),
    ({**AGAINST, "references": np.ones((6, 5))}, UsageError, "array-shape", {"array": "references", "shape": (6, 5)}),
    ({**AGAINST, "reference_labels": CLASSES[:3]}, UsageError, "array-shape", {"array": "reference_labels"}),
    ({**AGAINST, "reference_labels": -CLASSES}, DataError, "label-range", {"rows": [1, 3, 5]}),
    ({**AGAINST, "references": FINE * np.nan}, DataError, "not-finite", {"rows": list(range(6))}),
    ({"references": FINE[:0], "reference_labels": CLASSES[:0]}, DataError, "array-too-small", {"array": "references"}),
    ({"metric": "manhattan"}, UsageError, "option-choice", {"option": "metric", "given": "manhattan"}),
    ({"metric": None}, UsageError, "option-choice", {"option": "metric", "given": None}),
    ({**AGAINST, "metric": "cosine", "references": FINE * (FINE[:, :1] != 4)}, DataError, "zero-rows", {"rows": [2]}),
    ({"normalize": 1}, UsageError, "option-value", {"option": "normalize"}),
    ({"per_class": 0}, UsageError, "option-range", {"option": "per_class", "given": 0}),
    ({"per_class": True}, UsageError, "option-range", {"option": "per_class", "given": True}),
    ({"per_class": 4}, UsageError, "option-range", {"option": "per_class", "given": 4, "most": 3}),
    ({"seed": -1}, UsageError, "option-range", {"option": "seed", "given": -1}),
    *(
        ({"memory_budget": budget}, UsageError, "option-range", {"given": budget})
        for budget in (0, -1, 1e9, True, "1G")
    ),
    ({"normalize": True, **AGAINST, "references": FINE * 1e-290}, DataError, "z-score-range", {"rows": list(range(6))}),
]


@pytest.mark.parametrize(("options", "error", "code", "facts"), REFUSED)
@pytest.mark.parametrize("function", [separation, anti_si, centre_si])
def test_options_are_refused(function, options, error, code, facts):
    with pytest.raises(error) as caught:
        function(FINE + 1e20 * (code == "z-score-range"), CLASSES, **options)
    assert caught.value.code == code
    assert facts.items() <= caught.value.facts.items()


@pytest.mark.parametrize("order", [0, -1, True, False, 1.0, 2.5, "2", None])
def test_orders_that_are_no_number_of_neighbours(order):
    with pytest.raises(UsageError) as caught:
        separation(FINE, CLASSES, order)
    assert (caught.value.code, caught.value.facts["option"]) == ("option-range", "order")


def test_orders_with_too_few_neighbours():
    assert separation(FINE, CLASSES, np.int64(5)).order == 5
    with pytest.raises(UsageError, match="from 1 to 5, the number of other samples"):
        separation(FINE, CLASSES, 6)
    with pytest.raises(UsageError, match="from 1 to 2, the number of references"):
        soft_si(FINE, CLASSES, 3, references=FINE[:2], reference_labels=CLASSES[:2])


def test_rows_of_zeros_have_no_cosine():
    with pytest.raises(DataError, match=r"in 2 of 6 rows \(2, 5\)") as caught:
        separation(FINE * np.array([1, 1, 0, 1, 1, 0])[:, None], CLASSES, metric="cosine")
    assert caught.value.code == "zero-rows"
