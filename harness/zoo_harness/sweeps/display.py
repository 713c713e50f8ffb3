"""Show the progress of a sweep on standard error: in a terminal a line for each running run, otherwise messages."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

from rich.console import Console
from rich.live import Live
from rich.text import Text

from zoo.text import escaped
from zoo_harness.runs.reporter import LOGGER

_LOG_SECONDS = 60.0  # the time between two messages about the running runs if there is no terminal


class SweepDisplay:
    """Context manager that shows running runs and messages; unless ``shown``, messages go to the logger ``zoo``."""

    def __init__(self, *, shown: bool = True, quiet: bool = False) -> None:
        self._shown, self._quiet = shown, quiet
        self._console = Console(stderr=True, highlight=False, markup=False)
        self._live = Live(console=self._console, transient=True, auto_refresh=False)
        self._logged = time.monotonic()

    def __enter__(self) -> SweepDisplay:
        if self._shown and not self._quiet and self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._live.stop()

    def update(self, lines: Sequence[str]) -> None:
        """Show the lines about the running runs; without a terminal print them once a minute."""
        if self._live.is_started:
            self._live.update(Text(escaped("\n".join(lines)), no_wrap=True, overflow="ellipsis"), refresh=True)
        elif time.monotonic() - self._logged > _LOG_SECONDS:
            self._logged = time.monotonic()
            for line in lines:
                self.log(line)

    def log(self, line: str, *, always: bool = False) -> None:
        """Print a message; in quiet mode print it only if ``always`` is true."""
        if not self._shown:
            LOGGER.log(logging.WARNING if always else logging.INFO, "%s", line)
        elif always or not self._quiet:
            self._console.print(escaped(line), soft_wrap=True)
