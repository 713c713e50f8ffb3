"""Print tables, facts, notes and JSON on stdout, with control characters escaped.

At a terminal, tables have a line below their headings and text is wrapped to the width of the terminal. In a pipe,
tables have no lines and long text is not wrapped. The only text attribute is bold, because bold text is readable on
light and on dark terminals; the environment variable ``NO_COLOR`` turns bold off.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import textwrap
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from zoo.text import escaped

if TYPE_CHECKING:
    from rich.console import JustifyMethod

_WIDTH = 80  # longest line of a note: sentences in longer lines are hard to read


def print_table(
    columns: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str] = (), whole: Sequence[str] = ()
) -> None:
    """Print rows below column names; columns that ``right`` names are aligned to the right.

    Cells of the first column, and of the columns that ``whole`` names, are never broken into two lines.
    """
    rows = [[escaped(cell) for cell in row] for row in rows]
    if sys.stdout.isatty():
        _print_ruled(columns, rows, right, {columns[0], *whole})
    else:
        _print_plain(columns, rows, right)


def print_narrow_tables(columns: Sequence[str], rows: Sequence[Sequence[str]], widths: Sequence[int] = ()) -> None:
    """Print a table whose columns are aligned to the right, in several tables if one is wider than the terminal.

    Every table starts with the first column. ``widths`` gives the number of columns of the first tables at most.
    """
    room = shutil.get_terminal_size().columns
    sizes = [max(len(row[index]) for row in [columns, *rows]) for index in range(len(columns))]
    breaks = {sum(widths[: place + 1]) + 1 for place in range(len(widths))}
    groups: list[list[int]] = [[]]
    for index in range(1, len(columns)):
        wide = sizes[0] + sum(sizes[each] + 2 for each in [*groups[-1], index])
        if groups[-1] and (wide > room or index in breaks):
            groups.append([])
        groups[-1].append(index)
    for place, group in enumerate(groups):
        if place:
            print_lines("")
        chosen = [columns[0], *(columns[index] for index in group)]
        print_table(chosen, [[row[0], *(row[index] for index in group)] for row in rows], right=chosen[1:])


def print_facts(facts: Iterable[tuple[str, str]], indent: str = "", gap: int = 2) -> None:
    """Print one name with its value per line; a value without a name continues the value in the line above.

    At a terminal, names are bold and values are wrapped to the width of the terminal.
    """
    shown = [(escaped(name), escaped(value)) for name, value in facts]
    width = max((len(name) for name, _value in shown), default=0)
    at_terminal = sys.stdout.isatty()
    on, off = ("\x1b[1m", "\x1b[0m") if at_terminal and is_styled() else ("", "")
    room = shutil.get_terminal_size().columns - len(indent) - width - gap
    for name, value in shown:
        wrapped = textwrap.wrap(value, max(room, 20), break_long_words=False, break_on_hyphens=False)
        first, *others = (wrapped if at_terminal else None) or [value]
        sys.stdout.write(f"{indent}{on}{name:<{width}}{off}{'':{gap}}{first}\n")
        sys.stdout.write("".join(f"{indent}{'':{width + gap}}{line}\n" for line in others))


def print_notes(*notes: str) -> None:
    """Print sentences, each wrapped to 80 columns or to a narrower terminal, with a hanging indent."""
    width = min(_WIDTH, shutil.get_terminal_size().columns)
    for note in notes:
        print_lines(*textwrap.wrap(note, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False))


def is_styled() -> bool:
    """Return whether the environment variables ``NO_COLOR`` and ``TERM`` allow bold text."""
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def print_json(value: object) -> None:
    """Print a value as indented JSON."""
    print_lines(json.dumps(value, indent=2, ensure_ascii=False))


def print_lines(*lines: str) -> None:
    """Print lines on stdout."""
    sys.stdout.write("".join(f"{escaped(line)}\n" for line in lines))


def tell(*lines: str) -> None:
    """Print lines on stderr."""
    sys.stderr.write("".join(f"{escaped(line)}\n" for line in lines))


def warn_of(problems: Sequence[str]) -> None:
    """Print a warning on stderr for each plugin that is broken."""
    tell(*(f"warning: plugin: {problem}" for problem in problems))


def _print_ruled(columns: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str], whole: set[str]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    style = "bold" if is_styled() else "not bold"
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0), header_style=style)
    for column in columns:
        # A name that is broken into two lines cannot be copied.
        justify: JustifyMethod = "right" if column in right else "left"
        table.add_column(column, justify=justify, overflow="fold", no_wrap=column in whole)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))  # Text, because rich reads brackets in a str as markup
    Console().print(table)


def _print_plain(columns: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str]) -> None:
    widths = [max(len(row[index]) for row in [columns, *rows]) for index in range(len(columns))]
    for row in [columns, *rows]:
        cells = [
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, cell, width in zip(columns, row, widths, strict=True)
        ]
        print_lines("  ".join(cells).rstrip())
