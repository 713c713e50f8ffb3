"""Sizes that a user writes."""

from __future__ import annotations

import pytest

from zoo import UsageError
from zoo_harness.util.byte_sizes import parse_bytes


@pytest.mark.parametrize(
    ("given", "size"), [("1024", 1024), ("8GiB", 2**33), (" 500 MB ", 5 * 10**8), ("1.5 kib", 1536), ("0", 0)]
)
def test_sizes(given: str, size: int) -> None:
    assert parse_bytes("--cache-budget", given) == size


@pytest.mark.parametrize(
    "given", ["", "8 GIGA", "-1", "1e9", "GiB", "8 Gi B", "nan", "9" * 99, "9" * 9999, "1,5GiB", "1.2.3", "8GiB 5"]
)
def test_other_strings_are_not_sizes(given: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_bytes("--cache-budget", given)
    assert caught.value.code == "option-size"
    assert caught.value.facts == {"option": "--cache-budget", "given": given}
