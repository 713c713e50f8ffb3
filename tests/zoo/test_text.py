"""What is printed of a stranger's text controls no terminal, and stays readable."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, strategies as st

from zoo.text import breaks_line, escaped, one_line

UNSAFE = ["\x1b", "\x07", "\x9b", "\x00", "\x7f", "\r", "\u2028", "\u202e", "\u2066", "\u200f", "\u061c", "\ud800"]


@pytest.mark.parametrize("char", UNSAFE)
def test_characters_that_control_a_terminal_are_cleaned(char: str) -> None:
    assert one_line(f"a{char}b") == ("a\\ud800b" if char == "\ud800" else "a b")
    assert char not in escaped(json.dumps(char, ensure_ascii=False))


@pytest.mark.parametrize(
    "text", ["Größe", "\u0645\u06cc\u200c\u0634\u0648\u062f", "\U0001f469\u200d\U0001f4bb", "猫", "a|b`c"]
)
def test_text_of_any_script_stays(text: str) -> None:
    assert one_line(text) == escaped(text) == text
    assert not any(map(breaks_line, text))


@given(st.text(st.characters(exclude_categories=[])))
def test_whatever_the_text_nothing_unsafe_is_left(text: str) -> None:
    assert not any(map(breaks_line, one_line(text)))
    assert {char for char in escaped(text) if breaks_line(char)} <= {"\n", "\t"}
    one_line(text).encode()
    encoded = json.dumps(text, ensure_ascii=False)
    assert json.loads(escaped(encoded)) == text
    escaped(encoded).encode()
