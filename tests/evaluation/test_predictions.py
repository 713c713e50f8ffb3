"""The predictions for each image: their file, and the measures made from them, against scikit-learn."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from sklearn.metrics import f1_score, roc_auc_score

from zoo import DataError
from zoo_harness.evaluation.predictions import (
    Predictions,
    describe_predictions,
    parse_predictions,
    read_predictions,
    write_predictions,
)


def made_up(classes: int, images: int = 400) -> tuple[Predictions, np.ndarray]:
    """Predictions from random logits that favour the label, and their probabilities (N, C)."""
    draws = np.random.default_rng(classes)
    label = draws.integers(classes, size=images).astype(np.int32)
    logits = draws.normal(size=(images, classes))
    logits[np.arange(images), label] += 1
    shares = np.exp(logits)
    shares /= shares.sum(1, keepdims=True)
    own, rows = shares[np.arange(images), label], np.arange(images)
    predicted = shares.argmax(1).astype(np.int32)
    rank = (shares >= own[:, None]).sum(1).astype(np.int32)
    likely = shares[rows, predicted].astype(np.float32)
    found = Predictions("test", "0" * 64, classes, label, predicted, rank, own.astype(np.float32), likely)
    return found, shares


def test_other_programs_read_the_file(tmp_path: Path) -> None:
    found, _shares = made_up(7)
    write_predictions(found, tmp_path)
    with safe_open(tmp_path / "predictions.safetensors", "numpy") as file:
        about = file.metadata()
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    assert (about["split"], about["fingerprint"], about["classes"]) == ("test", "0" * 64, "7")
    assert {name: array.dtype.name for name, array in arrays.items()} == {
        "label": "int32",
        "predicted": "int32",
        "label_rank": "int32",
        "label_probability": "float32",
        "predicted_probability": "float32",
    }
    read = read_predictions(tmp_path)
    assert read is not None
    assert all(np.array_equal(array, getattr(read, name)) for name, array in arrays.items())
    assert read.to_bytes() == (tmp_path / "predictions.safetensors").read_bytes()
    assert read_predictions(tmp_path / "nowhere") is None


def test_the_measures_are_those_of_scikit_learn() -> None:
    found, shares = made_up(7)
    measured = describe_predictions(found)
    assert measured.macro_f1.value == pytest.approx(f1_score(found.label, found.predicted, average="macro"))
    assert measured.top5 is not None
    five = np.argsort(-shares, 1)[:, :5]
    assert measured.top5.value == np.mean([label in row for label, row in zip(found.label, five, strict=True)])
    assert measured.auroc is None
    # Other draws of as many images vary by about as much as the bootstrap says.
    spread = np.std([describe_predictions(_drawn(found, seed)).macro_f1.value for seed in range(40)])
    assert 0.7 < measured.macro_f1.standard_error / spread < 1.4
    two, shares = made_up(2)
    area = describe_predictions(two)
    assert area.top5 is None
    assert area.auroc is not None
    assert area.auroc.value == pytest.approx(roc_auc_score(two.label, shares[:, 1]))
    assert 0.01 < area.auroc.standard_error < 0.03


def _drawn(found: Predictions, seed: int) -> Predictions:
    draw = np.random.default_rng(seed).integers(len(found), size=len(found))
    names = ("label", "predicted", "label_rank", "label_probability", "predicted_probability")
    return replace(found, **{name: getattr(found, name)[draw] for name in names})


def test_the_calibration_error_by_hand() -> None:
    """Three bins: (.6, .667] two of three right at .62; (.9333, 1] right at 1; (.5333, .6] wrong at .6, its edge."""
    likely = np.float32([0.62, 0.62, 0.62, 1, 0.6 - 1e-7])
    label, predicted = np.int32([0, 0, 1, 1, 0]), np.int32([0, 0, 0, 1, 1])
    own = np.where(label == predicted, likely, 1 - likely)
    found = Predictions("test", "", 2, label, predicted, 1 + (label != predicted).astype(np.int32), own, likely)
    expected = (3 * abs(2 / 3 - 0.62) + 0 + 0.6) / 5
    assert describe_predictions(found).calibration_error.value == pytest.approx(expected, abs=1e-6)


def test_a_class_of_one_image_has_no_area() -> None:
    found, _shares = made_up(2)
    one = np.flatnonzero(found.label == 1)[:1]
    keep = np.concatenate([one, np.flatnonzero(found.label == 0)])
    names = ("label", "predicted", "label_rank", "label_probability", "predicted_probability")
    assert describe_predictions(replace(found, **{name: getattr(found, name)[keep] for name in names})).auroc is None


@pytest.mark.parametrize(
    "changed",
    [
        {"predicted": 7},
        {"label": -1},
        {"label_rank": 8},
        {"label_rank": 0},
        {"label_probability": 1.5},
        {"predicted_probability": float("nan")},
    ],
)
def test_values_that_no_run_writes_are_refused(changed: dict[str, float]) -> None:
    found, _shares = made_up(7, 20)
    arrays = {name: getattr(found, name).copy() for name in changed}
    for name, value in changed.items():
        arrays[name][3] = value
    with pytest.raises(DataError) as refused:
        parse_predictions(replace(found, **arrays).to_bytes(), Path("x"))
    assert refused.value.code == "predictions-invalid"


def test_a_rank_that_contradicts_the_prediction_is_refused() -> None:
    found, _shares = made_up(7, 20)
    other = replace(found, label_rank=np.where(found.hits, 2, found.label_rank).astype(np.int32))
    with pytest.raises(DataError):
        parse_predictions(other.to_bytes(), Path("x"))


def test_bytes_that_are_no_predictions_are_refused() -> None:
    content = made_up(7, 20)[0].to_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    header["__metadata__"]["more"] = "x"
    more = json.dumps(header, separators=(",", ":")).encode()
    more += b" " * (-len(more) % 8)
    smuggled = len(more).to_bytes(8, "little") + more + content[8 + size :]
    huge = (2**63).to_bytes(8, "little") + content[8:]
    for wrong in (b"", b"x", content[:-1], content + b"more", content[:30], smuggled, huge, b"[" * 200_000):
        with pytest.raises(DataError) as refused:
            parse_predictions(wrong, Path("x"))
        assert refused.value.code == "predictions-invalid"
