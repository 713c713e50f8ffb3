"""Conduct a sweep: submit runs, watch their folders, and submit lost runs again."""

from __future__ import annotations

import secrets
import time
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field

from zoo.errors import ZooError
from zoo_harness.runs.found_runs import read_found
from zoo_harness.sweeps.attempt import Outcome, failure, is_finished, progress_of, read_mark
from zoo_harness.sweeps.display import SweepDisplay
from zoo_harness.sweeps.forecast import Forecast
from zoo_harness.sweeps.plan import Plan, PlannedRun
from zoo_harness.sweeps.pools import ThisProcess
from zoo_harness.util import durations

_TICK, _HELD_PAUSE = 0.5, 5.0  # seconds between looks at the folders, and at runs of other processes
_ATTEMPTS = 3  # of a run whose worker is lost each time before another epoch ends


@dataclass
class Flight:
    """A submitted run; ``changed`` is when its progress last changed, ``None`` before it runs."""

    run: PlannedRun
    epochs: int
    token: str = field(default_factory=lambda: secrets.token_hex(4))
    future: Future[Outcome] | None = None  # while ``submit`` of the pool computes the run
    changed: float | None = None
    line: str = ""


class Conductor:
    """The state of a sweep while it runs.

    ``timeout``: seconds after which a run without a new epoch is cancelled and submitted again. ``outcomes`` has the
    runs that are finished or failed, by their keys.
    """

    def __init__(
        self,
        plan: Plan,
        forecasts: dict[str, Forecast],
        pool: ThisProcess,
        display: SweepDisplay,
        timeout: float | None,
    ) -> None:
        self._plan, self._forecasts, self._pool, self._display = plan, forecasts, pool, display
        self._timeout = timeout
        self.outcomes = {run.key: Outcome("finished") for run in plan.runs if is_finished(run)}
        self._waiting = [run for run in plan.runs if run.key not in self.outcomes]
        self._flights: list[Flight] = []
        self._held: list[PlannedRun] = []
        self._nodes = {run.group: "" for run in plan.runs if run.key in self.outcomes}  # of groups with a cached part
        self._lost: dict[str, tuple[int, int]] = {}  # losses in a row, and the epochs before them
        self._started, self._ended = time.monotonic(), 0
        pool.on_epoch = self._watch

    def run(self) -> None:
        """Submit and watch until every run has an outcome."""
        while self._waiting or self._flights or self._held:
            while len(self._flights) < self._pool.slots and (run := self._next()) is not None:
                flight = Flight(run, progress_of(run.path)[0])
                self._flights.append(flight)
                flight.future = self._pool.submit(run, flight.token, run.group and self._nodes.get(run.group, ""))
            wait([flight.future for flight in self._flights if flight.future], _TICK, FIRST_COMPLETED)
            for flight in [each for each in self._flights if each.future and each.future.done()]:
                self._flights.remove(flight)
                self._land(flight)
            self._watch()
            if self._held and not self._flights and not self._startable():
                self._display.update([f"waiting for {len(self._held)} runs of other processes", self._count()])
                time.sleep(_HELD_PAUSE)
                self._waiting, self._held = [*self._held, *self._waiting], []

    def _startable(self) -> list[PlannedRun]:
        """Return the runs that can start; of runs that share a frozen part, one computes it before the others start."""
        cold = {flight.run.group for flight in self._flights} - self._nodes.keys() - {""}
        return [run for run in self._waiting if run.group not in cold and (not run.after or run.after in self.outcomes)]

    def _next(self) -> PlannedRun | None:
        for run in self._startable():
            self._waiting.remove(run)
            if not run.after or self.outcomes[run.after].status == "finished":
                return run
            fault = ZooError(f"the run whose layers it scores has failed: {run.after}", code="needs-run", run=run.after)
            self._end(run, failure(run, fault))
        return None

    def _watch(self) -> None:
        """Look at the folders of the runs, show their progress, and submit those again that hang."""
        now = time.monotonic()
        for flight in list(self._flights):
            mark = read_mark(flight.run)
            if mark.get("token") == flight.token:
                self._look(flight, mark, now)
        rows = [flight.line for flight in self._flights if flight.line]
        if rows:
            self._display.update([*rows, self._count()])

    def _look(self, flight: Flight, mark: dict[str, str], now: float) -> None:
        run, before = flight.run, flight.epochs
        flight.epochs, accuracy = progress_of(run.path.parent / mark["folder"])
        if flight.changed is None or flight.epochs != before:
            flight.changed = now
        if flight.epochs:
            self._nodes.setdefault(run.group, mark["node"])
        age = durations.in_words(now - flight.changed)
        figures = "" if accuracy is None else f", {accuracy:.2%}"
        epochs = f"epoch {flight.epochs} of {self._forecasts[run.key].epochs or '?'}"
        flight.line = f"{run.key}  {epochs}{figures}, {age} ago, on {mark['host']}"
        if self._timeout is not None and now - flight.changed > self._timeout:
            self._flights.remove(flight)
            self._pool.cancel(flight.token)
            self._lose(run, TimeoutError(f"no epoch ended in {durations.in_words(self._timeout)}"))

    def _land(self, flight: Flight) -> None:
        try:
            outcome = flight.future.result()  # type: ignore[union-attr]
        except Exception as error:  # whatever a lost worker raises
            self._lose(flight.run, error)
            return
        if outcome.status == "held":
            self._held.append(flight.run)
            return
        if outcome.status == "finished":
            self._nodes[flight.run.group] = outcome.node
        self._end(flight.run, outcome)

    def _lose(self, run: PlannedRun, error: Exception) -> None:
        """Submit a run again whose worker is lost, unless it was lost too often since its last epoch."""
        epochs = progress_of(run.path)[0]
        losses, before = self._lost.get(run.key, (0, epochs))
        losses = losses + 1 if epochs <= before else 1
        self._lost[run.key] = losses, epochs
        if losses < _ATTEMPTS:
            self._display.log(f"lost      {run.key}  after epoch {epochs}, starts again: {error}")
            self._waiting.insert(0, run)
        else:
            fault = ZooError(f"its worker was lost {losses} times: {error}", code="worker-lost", losses=losses)
            self._end(run, failure(run, fault))

    def _end(self, run: PlannedRun, outcome: Outcome) -> None:
        self.outcomes[run.key] = outcome
        self._ended += 1
        for warning in outcome.warnings:
            self._display.log(f"warning: {run.key}: {warning}", always=True)
        if outcome.error:
            self._display.log(f"failed    {run.key}  {outcome.error['message']}", always=True)
        else:
            accuracy = read_found(run.path).accuracy
            figures = "" if accuracy is None else f"  {accuracy:.2%}"
            self._display.log(f"finished  {run.key}{figures}  ({self._count()})")

    def _count(self) -> str:
        done = sum(outcome.status == "finished" for outcome in self.outcomes.values())
        left = len(self._plan.runs) - len(self.outcomes)
        seconds = (time.monotonic() - self._started) / self._ended * left if self._ended else 0
        return f"{done} of {len(self._plan.runs)} finished" + (
            f", {durations.in_words(seconds)} left" if seconds else ""
        )
