"""Show the progress of a sweep on standard error: a line for each running run at a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

from rich.console import Console
from rich.live import Live
from rich.text import Text

from zoo.text import escaped
from zoo_harness.runs.reporter import LOGGER
from zoo_harness.sweeps.attempt import Outcome, progress_of
from zoo_harness.sweeps.conductor import Flight
from zoo_harness.sweeps.forecast import Forecast
from zoo_harness.sweeps.plan import Plan, PlannedRun
from zoo_harness.util import durations

_PLAIN_EVERY = 60.0  # seconds between the lines of running runs that are no terminal's


class SweepDisplay:
    """Show running runs, ends and messages; a context manager. Without ``shown`` they go to the logger ``zoo``."""

    def __init__(self, plan: Plan, forecasts: dict[str, Forecast], *, shown: bool = True, quiet: bool = False) -> None:
        self._runs, self._forecasts, self._shown, self._quiet = len(plan.runs), forecasts, shown, quiet
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

    def update(self, flights: Sequence[Flight], finished: int, seconds_left: float | None) -> None:
        """Show the running runs; in a pipe once a minute."""
        rows = [self._row(flight) for flight in flights if flight.changed is not None]
        lines = [*rows, self._count(finished, seconds_left)]
        if self._at_terminal:
            self._live.update(Text("\n".join(lines), no_wrap=True, overflow="ellipsis"), refresh=True)
        elif rows and time.monotonic() - self._printed > _PLAIN_EVERY:
            self._printed = time.monotonic()
            for line in lines:
                self.log(line)

    def ended(self, run: PlannedRun, outcome: Outcome, finished: int, seconds_left: float | None) -> None:
        """Print how a run ended, and its warnings."""
        for warning in outcome.warnings:
            self._print(f"warning: {run.key}: {warning}", always=True)
        count = self._count(finished, seconds_left)
        if outcome.error is not None:
            self._print(f"failed    {run.key}  {outcome.error['message']}", always=True)
        else:
            accuracy = progress_of(run.path)[1]
            self.log(f"finished  {run.key}{'' if accuracy is None else f'  {accuracy:.2%}'}  ({count})")

    def log(self, line: str) -> None:
        """Print a message."""
        self._print(line, always=False)

    def warn(self, line: str) -> None:
        """Print a warning, also in quiet mode."""
        self._print(f"warning: {line}", always=True)

    def _print(self, line: str, *, always: bool) -> None:
        if not self._shown:
            LOGGER.log(30 if always else 20, "%s", line)
        elif always or not self._quiet:
            self._console.print(escaped(line), soft_wrap=True)

    def _row(self, flight: Flight) -> str:
        epochs = self._forecasts[flight.run.key].epochs
        place = "" if epochs is None else f"epoch {flight.epochs} of {epochs}"
        accuracy = "" if flight.accuracy is None else f"  {flight.accuracy:.2%}"
        age = durations.in_words(time.monotonic() - (flight.changed or 0.0))
        return f"{flight.run.key}  {place}{accuracy}  {age} since then, on {flight.host}"

    def _count(self, finished: int, seconds_left: float | None) -> str:
        left = "" if seconds_left is None or finished == self._runs else f", {durations.in_words(seconds_left)} left"
        return f"{finished} of {self._runs} finished{left}"
