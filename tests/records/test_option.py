"""Options are converted to their declared types, or refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from zoo import UsageError
from zoo_harness.records.option import checked, choices_of, declared, with_defaults
from zoo_harness.records.options import EvalOptions, LayersOptions


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"epochs": np.int64(3), "milestones": [np.int32(1), 2]}, {"epochs": 3, "milestones": [1, 2]}),
        (
            {"learning_rate": np.float32(0.5), "tensorboard": np.bool_(True)},
            {"learning_rate": 0.5, "tensorboard": True},
        ),
        ({"seed": np.int64(4)}, {"seed": 4}),
        ({"learning_rate": 1}, {"learning_rate": 1.0}),
        ({"data_dir": "photos", "out": "~/run"}, {"data_dir": Path("photos"), "out": Path.home() / "run"}),
        ({"unfreeze": ("a", "b")}, {"unfreeze": ("a", "b")}),
        ({"milestones": "1,2"}, {"milestones": "1,2"}),
        ({"layer": None}, {}),
    ],
)
def test_values_are_converted(given: dict[str, Any], expected: dict[str, Any]) -> None:
    assert checked(EvalOptions, given) == expected


@pytest.mark.parametrize(("given", "value"), [(True, "zscore"), (False, "none"), ("none", "none"), (None, None)])
def test_an_option_that_was_a_flag_takes_true_and_false(given: object, value: str | None) -> None:
    assert checked(LayersOptions, {"normalize": given}).get("normalize") == value


@pytest.mark.parametrize(
    ("given", "code", "near"),
    [
        ({"epoch": 3}, "option-unknown", ["epochs"]),
        ({"optimizer": "sdg"}, "option-choice", ["sgd"]),
        ({"optimizer": 3}, "option-choice", []),
        ({"epochs": 1.5}, "option-value", None),
        ({"epochs": "2"}, "option-value", None),
        ({"epochs": True}, "option-value", None),
        ({"epochs": 2.0}, "option-value", None),
        ({"learning_rate": "0.1"}, "option-value", None),
        ({"learning_rate": True}, "option-value", None),
        ({"milestones": ["1"]}, "option-value", None),
        ({"layer_curve": 1}, "option-value", None),
        ({"layer": 3}, "option-value", None),
        ({"out": 3}, "option-value", None),
        ({"layer_curve": "perhaps"}, "option-value", None),
        ({"limit": -1}, "option-range", None),
        ({"normalize": True}, "option-choice", []),  # it never was a flag of zoo eval
        ({"normalize": "zscor"}, "option-choice", ["zscore"]),
        ({"order": 0}, "option-range", None),
    ],
)
def test_wrong_values_are_refused(given: dict[str, Any], code: str, near: list[str] | None) -> None:
    with pytest.raises(UsageError) as refused:
        checked(EvalOptions, given)
    assert (refused.value.code, refused.value.facts.get("near")) == (code, near)


def test_options_that_are_not_given_have_their_defaults() -> None:
    values = with_defaults(EvalOptions, {"epochs": 3})
    assert values.keys() == declared(EvalOptions).keys()
    assert (values["epochs"], values["recipe"], values["layer_curve"], values["momentum"]) == (3, "default", True, None)


def test_choices_are_those_of_the_type() -> None:
    assert choices_of(declared(EvalOptions)["optimizer"][0]) == ("adam", "adamw", "sgd")
    assert choices_of(declared(EvalOptions)["epochs"][0]) == ()
