"""Spans of time as a user writes them."""

from __future__ import annotations

import pytest

from zoo import UsageError
from zoo_harness.util.durations import in_words, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("10m", 600), ("1h30m", 5400), ("1.5h", 5400), ("0.25s", 0.25)]
)
def test_a_span_is_parsed(text: str, seconds: float) -> None:
    assert parse_duration("--budget", text) == seconds


@pytest.mark.parametrize("text", ["", "0", "0s", "-3m", "m", "10 m", "3d", "1e9", "9999999999h", "nan", "1m30"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(UsageError) as raised:
        parse_duration("--budget", text)
    assert (raised.value.code, raised.value.facts["option"]) == ("option-value", "budget")


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.2, "0 s"), (59.6, "1 min 0 s"), (95, "1 min 35 s"), (3599.7, "1 h 0 min"), (5432, "1 h 31 min")],
)
def test_a_span_is_written_without_sixty_seconds_or_minutes(seconds: float, words: str) -> None:
    assert in_words(seconds) == words
