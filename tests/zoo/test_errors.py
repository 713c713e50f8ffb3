"""Errors: their messages, codes and exit statuses."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import pytest

import zoo
from zoo import errors
from zoo.errors import UnknownNameError, UnreachableError, UsageError, ZooError, check_choice, near_misses

KINDS = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, ZooError)]


def test_every_error_is_public() -> None:
    assert len(KINDS) >= 8
    for kind in KINDS:
        assert getattr(zoo, kind.__name__) is kind


def test_wrong_usage_exits_with_2_and_failure_with_1() -> None:
    assert {kind.__name__ for kind in KINDS if kind.exit_code == 2} == {"UsageError", "UnknownNameError"}
    assert {kind.exit_code for kind in KINDS} == {1, 2}


@pytest.mark.parametrize(
    ("given", "known", "message"),
    [
        ("resnet", ["resnet18"], "unknown backbone 'resnet'; did you mean 'resnet18'? (1 known: resnet18)"),
        ("vgg", ["resnet18", "cait"], "unknown backbone 'vgg' (2 known: cait, resnet18)"),
        ("vgg", [], "unknown backbone 'vgg' (0 known: none)"),
        ("b1", ["b3", "b2"], "unknown backbone 'b1' (2 known: b2, b3)"),
        (
            "net_c",
            ["net_b", "net_a"],
            "unknown backbone 'net_c'; did you mean 'net_b' or 'net_a'? (2 known: net_a, net_b)",
        ),
    ],
)
def test_an_unknown_name_is_told_with_near_misses_and_all_that_is_known(
    given: str, known: list[str], message: str
) -> None:
    assert str(UnknownNameError("backbone", given, iter(known))) == message
    assert str(UnknownNameError("backbone", given, known, "look elsewhere")) == f"{message}; look elsewhere"


def test_a_long_list_of_known_names_is_cut_short() -> None:
    message = str(UnknownNameError("layer", "zzz", [f"b{index:02}" for index in range(30)]))
    assert "(30 known: b00, b01," in message
    assert message.endswith("b11, ...)")


def test_an_unreachable_thing_is_told_with_every_place_looked_in() -> None:
    error = UnreachableError(
        "weights of 'x'", [("a.pth", "no such file"), ("Hub", "no network")], "pass --weights PATH"
    )
    assert str(error) == (
        "weights of 'x' not found; looked in: a.pth (no such file), Hub (no network); pass --weights PATH"
    )
    assert error.tried == (("a.pth", "no such file"), ("Hub", "no network"))
    assert (error.code, error.facts["what"]) == ("unreachable", "weights of 'x'")


@pytest.mark.parametrize(
    "error",
    [
        UsageError("given x"),
        UnknownNameError("backbone", "cait", ["cait_s24"], "see zoo list"),
        UnreachableError("weights of 'x'", [("a.pth", "no such file")], "pass --weights PATH"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_survive_the_way_back_from_another_process(error: ZooError) -> None:
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error)):  # noqa: S301 - our own bytes
        assert type(again) is type(error)
        assert str(again) == str(error)
        assert vars(again) == vars(error)


@pytest.mark.parametrize(
    ("given", "near"),
    [
        ("RESNET18", ["ResNet18", "resnet50"]),
        ("resnet_18", ["ResNet18", "resnet50"]),
        ("blocks.23.norm", []),
        ("", []),
    ],
)
def test_near_misses_ignore_case_and_come_nearest_first(given: str, near: list[str]) -> None:
    assert near_misses(given, ["digits", "resnet50", "ResNet18"]) == near


def test_paths_among_the_facts_are_text() -> None:
    """So that a program compares and prints them alike, whoever raises the error."""
    for path in (Path("a/b"), "a/b"):
        error = zoo.DataError("damaged", code="file-unreadable", path=path, count=2)
        assert error.facts == {"path": "a/b", "count": 2}


def test_one_of_several_returns_the_allowed_and_refuses_the_rest() -> None:
    assert check_choice("--precision", "fp32", ("fp32", "bf16")) == "fp32"
    with pytest.raises(UsageError) as caught:
        check_choice("--precision", "fp16", ("fp32", "bf16"))
    assert caught.value.code == "option-choice"
    assert caught.value.facts == {"option": "precision", "given": "fp16", "near": ["bf16"]}
