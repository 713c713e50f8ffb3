"""The five scores a run records: those of ``zoo.separation``, and what is left of them on tiny splits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.metrics.pairwise import euclidean_distances
from sklearn.neighbors import NearestNeighbors

import zoo
from zoo_harness.compute.context import ComputeContext
from zoo_harness.evaluation.split_scores import check_settings, split_separation
from zoo_harness.records.run import DatasetRecord, SeparationSettings, SplitRecord, SplitSeparation

CPU = ComputeContext(torch.device("cpu"))
DIGITS = load_digits()
PIXELS, LABELS = DIGITS.images[:300].reshape(300, -1).astype(np.uint8), DIGITS.target[:300]


def measured(features: np.ndarray, labels: list[int] | np.ndarray) -> SplitSeparation:
    found = split_separation(features, torch.as_tensor(np.asarray(labels)), CPU)
    assert found is not None
    return found


def test_scores_are_those_of_scikit_learns_neighbours() -> None:
    found = measured(PIXELS, LABELS)
    assert found.high and found.soft and found.anti  # noqa: PT018
    search = NearestNeighbors(n_neighbors=2).fit(PIXELS.astype(float))
    alike = LABELS[search.kneighbors(return_distance=False)] == LABELS[:, None]
    centres = np.stack([PIXELS[digit == LABELS].mean(0) for digit in range(10)])
    nearest = euclidean_distances(PIXELS.astype(float), centres).argmin(1)
    assert found.si.value == pytest.approx(alike[:, 0].mean())
    assert found.high.value == pytest.approx(alike.all(1).mean())
    assert found.soft.value == pytest.approx(alike.mean())
    assert found.anti.value == pytest.approx((~alike.any(1)).mean())
    assert found.centre.value == pytest.approx((nearest == LABELS).mean())


def test_record_keeps_errors_ties_and_duplicates() -> None:
    features = np.concatenate([PIXELS, PIXELS[:3]])
    labels = np.concatenate([LABELS, LABELS[:2], LABELS[2:3] + 1])
    found = measured(features, labels)
    expected = zoo.separation(features, labels)
    assert (found.duplicates, found.duplicates_unlike) == (6, 2)
    for ours, theirs in zip(
        found.scores.values(),
        (expected.si, expected.high[2], expected.soft[2], expected.anti[2], expected.centre),
        strict=True,
    ):
        assert (ours.n, ours.value, ours.standard_error, ours.bootstrap_error, ours.tied) == (
            303,
            theirs.value,
            theirs.standard_error,
            theirs.bootstrap_error,
            theirs.tied,
        )


def test_identity_of_the_scores() -> None:
    found = measured(PIXELS, LABELS)
    assert found.high and found.soft and found.anti  # noqa: PT018
    assert found.anti.value == pytest.approx(1 - 2 * found.soft.value + found.high.value, abs=1e-12)


def test_three_images_have_every_score() -> None:
    found = measured(np.array([[0.0], [1.0], [5.0]]), [0, 0, 1])
    assert found.order == 2
    assert [score.value for score in found.scores.values()] == pytest.approx([2 / 3, 0, 1 / 3, 1 / 3, 1])


def test_two_images_have_no_score_of_order_two() -> None:
    found = measured(np.array([[0.0], [1.0]]), [0, 1])
    assert found.order == 1
    assert (found.high, found.soft, found.anti) == (None, None, None)
    assert (found.si.value, found.centre.value) == (0, 1)


def test_one_image_has_no_score() -> None:
    assert split_separation(np.array([[0.0]]), torch.tensor([0]), CPU) is None


def test_scores_with_other_settings_are_those_of_zoo_separation_and_say_so() -> None:
    settings = SeparationSettings(order=5, metric="cosine", normalize="zscore")
    found = split_separation(PIXELS, torch.as_tensor(LABELS), CPU, settings)
    assert found is not None
    assert (found.order, found.metric, found.normalize) == (5, "cosine", "zscore")
    expected = zoo.separation(PIXELS, LABELS, 5, metric="cosine", normalize=True)
    values = [expected.si, expected.high[5], expected.soft[5], expected.anti[5], expected.centre]
    assert [score.value for score in found.scores.values()] == [score.value for score in values]
    plain = measured(PIXELS, LABELS)
    assert plain.si.value != found.si.value


def test_order_one_leaves_out_the_scores_that_repeat_si() -> None:
    found = split_separation(PIXELS, torch.as_tensor(LABELS), CPU, SeparationSettings(order=1))
    assert found is not None
    assert (found.order, found.high, found.soft, found.anti) == (1, None, None, None)
    assert found.si == measured(PIXELS, LABELS).si


def data_of(*per_class: int) -> DatasetRecord:
    split = SplitRecord(
        split="train", images=sum(per_class), per_class=per_class, pixels=(8, 8), resized=False, fingerprint=""
    )
    other = split.model_copy(update={"split": "test", "images": 9, "per_class": (9,) + (0,) * (len(per_class) - 1)})
    return DatasetRecord.model_construct(classes=tuple("abcdef"[: len(per_class)]), train=split, evaluation=other)


@pytest.mark.parametrize(
    ("per_class", "order", "expected"),
    [
        ((3, 4, 0), 2, []),
        ((1, 1, 1), 2, ["3 of 3 classes ('a', 'b', 'c') have 1 image; expected 2 or more"]),
        ((1, 2, 9), 2, ["1 of 3 classes ('a') has 1 image", "order 2: 1 of 3 classes ('b') has 2 images or fewer"]),
        ((5, 6, 0), 5, ["for order 5: 1 of 2 classes ('a') has 5 images or fewer; expected 6 or more"]),
    ],
)
def test_too_few_images_of_a_class_are_named_with_the_number_needed(
    per_class: tuple[int, ...], order: int, expected: list[str]
) -> None:
    warnings = check_settings(SeparationSettings(order=order), data_of(*per_class))
    assert len(warnings) == len(expected)
    for warning, words in zip(warnings, expected, strict=True):
        assert warning.startswith("too few images per class in split 'train'")
        assert words in warning


def test_an_order_above_the_default_needs_more_images_than_it_has_neighbours() -> None:
    assert check_settings(SeparationSettings(order=8), data_of(9)) == []
    with pytest.raises(zoo.UsageError) as refused:
        check_settings(SeparationSettings(order=9), data_of(9))
    assert (refused.value.code, refused.value.facts["split"]) == ("too-few-images", "train")
