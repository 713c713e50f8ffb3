"""The options that choose mean and standard deviation: what is taken, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from zoo import UsageError
from zoo_harness.records.normalization import OF_WEIGHTS, Normalization

MEAN, STD = "0.5071,0.4865,0.4409", (0.2673, 0.2564, 0.2762)


def test_text_and_numbers_are_taken() -> None:
    found = Normalization.of({"mean": MEAN, "std": STD, "normalization": "weights"})
    assert found == Normalization("given", (0.5071, 0.4865, 0.4409), STD)
    assert Normalization.of({"normalization": "dataset"}) == Normalization("dataset")
    assert Normalization.of({}) == Normalization.of({"mean": None}) == OF_WEIGHTS


@pytest.mark.parametrize(
    ("values", "code", "facts"),
    [
        ({"mean": MEAN}, "option-missing", {"option": "std"}),
        ({"std": STD}, "option-missing", {"option": "mean"}),
        ({"mean": MEAN, "std": STD, "normalization": "dataset"}, "option-conflict", {}),
        ({"mean": "0.5", "std": STD}, "channel-count", {"option": "mean", "given": 1}),
        ({"mean": MEAN, "std": (0.2,) * 4}, "channel-count", {"option": "std", "given": 4}),
        ({"mean": MEAN, "std": (0.2, 0.0, 0.2)}, "option-range", {"option": "std", "given": 0}),
        ({"mean": MEAN, "std": "0.2,inf,0.2"}, "option-range", {"option": "std", "given": float("inf")}),
        ({"mean": "0.5,-0.1,0.5", "std": STD}, "option-range", {"option": "mean", "given": -0.1}),
        ({"mean": "129.3,124.1,112.4", "std": STD}, "option-range", {"option": "mean", "given": 129.3}),
        ({"mean": "red,green,blue", "std": STD}, "option-value", {"option": "mean", "given": "red,green,blue"}),
    ],
)
def test_what_cannot_be_right_is_refused(values: dict[str, Any], code: str, facts: dict[str, Any]) -> None:
    with pytest.raises(UsageError) as caught:
        Normalization.of(values)
    assert caught.value.code == code
    assert {name: caught.value.facts[name] for name in facts} == facts
    assert ("255" in str(caught.value)) == (facts.get("given") == 129.3)


def test_a_value_that_is_not_a_number_is_refused() -> None:
    with pytest.raises(UsageError) as caught:
        Normalization.of({"mean": "nan,0,0", "std": STD})
    assert caught.value.code == "option-range"
