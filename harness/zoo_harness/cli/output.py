"""Print tables and JSON on stdout: ruled tables at a terminal, plain columns in a pipe; control characters escaped."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from zoo.text import escaped

if TYPE_CHECKING:
    from rich.console import JustifyMethod


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str] = ()) -> None:
    """Print rows under column names; the columns named in ``right`` are aligned to the right."""
    rows = [[escaped(cell) for cell in row] for row in rows]
    if sys.stdout.isatty():
        _print_ruled(columns, rows, right)
    else:
        _print_plain(columns, rows, right)


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
    """Print one line on stderr for each problem with a plugin."""
    tell(*(f"warning: plugin: {problem}" for problem in problems))


def _print_ruled(columns: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for column in columns:
        # The first column names the row, and a name that is cut in two cannot be copied.
        justify: JustifyMethod = "right" if column in right else "left"
        table.add_column(column, justify=justify, overflow="fold", no_wrap=column == columns[0])
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))  # Text: brackets in a cell are no markup
    Console().print(table)


def _print_plain(columns: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str]) -> None:
    widths = [max(len(row[index]) for row in [columns, *rows]) for index in range(len(columns))]
    for row in [columns, *rows]:
        cells = [
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, cell, width in zip(columns, row, widths, strict=True)
        ]
        print_lines("  ".join(cells).rstrip())
