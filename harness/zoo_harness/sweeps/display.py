"""Show the progress of a sweep on standard error: a line for each running run at a terminal, plain lines elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Sequence

from rich.console import Console
from rich.live import Live
from rich.text import Text

from zoo.text import escaped
from zoo_harness.runs.reporter import LOGGER

_PLAIN_EVERY = 60.0  # seconds between the lines of running runs where there is no terminal


class SweepDisplay:
    """Show running runs and messages; a context manager. Without ``shown`` messages go to the logger ``zoo``."""

    def __init__(self, *, shown: bool = True, quiet: bool = False) -> None:
        self._shown, self._quiet = shown, quiet
        self._console = Console(stderr=True, highlight=False, markup=False)
        self._live = Live(console=self._console, transient=True, auto_refresh=False)
        self._at_terminal = shown and not quiet and sys.stderr.isatty()
        self._printed = time.monotonic()

    def __enter__(self) -> SweepDisplay:
        if self._at_terminal:
            self._live.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._live.stop()

    def update(self, lines: Sequence[str]) -> None:
        """Show the lines of the running runs; without a terminal once a minute."""
        if self._at_terminal:
            text = Text(escaped("\n".join(lines)), no_wrap=True, overflow="ellipsis")
            self._live.update(text, refresh=True)
        elif time.monotonic() - self._printed > _PLAIN_EVERY:
            self._printed = time.monotonic()
            for line in lines:
                self.log(line)

    def log(self, line: str, *, always: bool = False) -> None:
        """Print a message; in quiet mode only if it must be seen ``always``."""
        if not self._shown:
            LOGGER.log(logging.WARNING if always else logging.INFO, "%s", line)
        elif always or not self._quiet:
            self._console.print(escaped(line), soft_wrap=True)
