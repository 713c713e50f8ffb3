"""Write docs/commands.md from the help page of every command; with --check, fail if docs/commands.md is out of date."""

from __future__ import annotations

import argparse
import difflib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PAGE = Path(__file__).resolve().parents[1] / "docs" / "commands.md"
INTRODUCTION = """\
# Commands

This page shows the output of `zoo --help`, and of every command with `--help`. `make docs`
writes this page; do not edit it.
"""


def main() -> int:
    """Write docs/commands.md, or with ``--check`` compare it; return 1 if the page is out of date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--check",
        action="store_true",
        help="write nothing; print the differences and exit with status 1 if the page is out of date",
    )
    checking = parser.parse_args().check
    page = INTRODUCTION + "".join(section(command) for command in commands())
    if not checking:
        PAGE.write_text(page, encoding="utf-8")
        return 0
    old = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
    name = str(PAGE.relative_to(PAGE.parents[1]))
    diff = difflib.unified_diff(old.splitlines(True), page.splitlines(True), name, "what --help prints now")
    sys.stdout.writelines(diff)
    if old != page:
        print(f"{name} is out of date: run make docs", file=sys.stderr)
    return int(old != page)


def commands() -> Iterator[tuple[str, ...]]:
    """Yield the words of every command, beginning with ``("zoo",)``."""
    import typer

    from zoo_harness.cli.app import app

    yield from _below(typer.main.get_command(app), ("zoo",))


def _below(command: Any, words: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    yield words
    for name, child in getattr(command, "commands", {}).items():
        if not child.hidden:
            yield from _below(child, (*words, name))


def section(command: tuple[str, ...]) -> str:
    """Return the heading and help text of one command in Markdown."""
    return f"\n## {' '.join(command)}\n\n```text\n{help_text(command).strip()}\n```\n"


def help_text(command: tuple[str, ...]) -> str:
    """Return the help page of a command, which is the same on every machine and terminal."""
    # These variables make typer print colours even if the output is not a terminal.
    loud = ("FORCE_COLOR", "PY_COLORS", "GITHUB_ACTIONS", "CLICOLOR_FORCE")
    quiet = {key: value for key, value in os.environ.items() if key not in loud}
    quiet |= {"COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb", "PYTHONIOENCODING": "utf-8", "PYTHONUTF8": "1"}
    program, *words = command
    done = subprocess.run(
        [Path(sys.executable).with_name(program), *words, "--help"],
        env=quiet,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)} --help failed with status {done.returncode}:\n{done.stderr}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
