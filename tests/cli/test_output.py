"""Facts and notes fit the terminal; only bold marks names, and NO_COLOR turns it off."""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import redirect_stdout

import pytest

from zoo_harness.cli.output import print_facts, print_notes, print_table

Shown = Callable[[Callable[[], None]], str]
FACTS = [("run", "runs/a"), ("trained", "1,030,410 of 3,383,818 parameters: blocks.6.0, conv_head, bn2"), ("", "more")]


class Terminal(io.StringIO):
    """A terminal that keeps what is printed."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> Shown:
    """Return what a call prints at a terminal of 40 columns."""
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)

    def printed(call: Callable[[], None]) -> str:
        with redirect_stdout(Terminal()) as terminal:
            call()
        return terminal.getvalue()

    return printed


def test_facts_are_whole_lines_in_a_pipe(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    print_facts(FACTS, indent="  ")
    assert capsys.readouterr().out.splitlines() == [
        "  run      runs/a",
        f"  trained  {FACTS[1][1]}",
        "           more",
    ]


def test_facts_are_wrapped_with_bold_names_at_a_terminal(shown: Shown) -> None:
    assert shown(lambda: print_facts(FACTS)).splitlines() == [
        "\x1b[1mrun    \x1b[0m  runs/a",
        "\x1b[1mtrained\x1b[0m  1,030,410 of 3,383,818",
        "         parameters: blocks.6.0,",
        "         conv_head, bn2",
        "\x1b[1m       \x1b[0m  more",
    ]


@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_bold_can_be_turned_off(shown: Shown, monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    table = (["name", "n"], [["a", "1"]])
    assert "\x1b[1m" in shown(lambda: print_facts(FACTS))
    assert "\x1b[1m" in shown(lambda: print_table(*table))
    monkeypatch.setenv(name, value)
    assert "\x1b" not in shown(lambda: print_facts(FACTS))
    assert "\x1b" not in shown(lambda: print_table(*table))


def test_a_strangers_text_does_not_control_the_terminal(shown: Shown) -> None:
    assert "\x1b[2J" not in shown(lambda: print_facts([("class", "\x1b[2Jcat")]))


def test_names_are_whole_in_tables_of_a_narrow_terminal(shown: Shown) -> None:
    rows = [["deit_base_tiny", "ImageNet of many words", "1,024.0 KiB"]]
    columns = ["backbone", "dataset", "size"]
    lines = shown(lambda: print_table(columns, rows, right=["size"], whole=["size"])).splitlines()
    assert max(map(len, lines[1:])) <= 40
    assert "deit_base_tiny" in lines[2]
    assert "1,024.0 KiB" in lines[2]


def test_notes_hang_and_have_80_columns_at_most(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    print_notes("word " * 30, "short")
    first, second, last = capsys.readouterr().out.splitlines()
    assert 70 < len(first) <= 80
    assert second.startswith("  word")
    assert last == "short"
