"""Conduct a sweep: submit runs, watch their folders, and submit lost runs again."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from zoo.errors import ZooError
from zoo_harness.sweeps.attempt import Outcome, failure, is_finished, progress_of, read_mark
from zoo_harness.sweeps.forecast import Forecast
from zoo_harness.sweeps.plan import Plan, PlannedRun
from zoo_harness.sweeps.pools import Pool

_TICK, _HELD_PAUSE = 0.5, 5.0  # seconds between looks at the folders, and at runs of other processes
_ATTEMPTS = 3  # of a run whose worker is lost each time before another epoch ends


@dataclass
class Flight:
    """A submitted run; ``changed`` is when its progress last changed, ``None`` before it runs."""

    run: PlannedRun
    epochs: int
    token: str = field(default_factory=lambda: secrets.token_hex(4))
    future: Future[Outcome] | None = None  # while ``submit`` of the pool computes the run
    accuracy: float | None = None
    host: str = ""
    changed: float | None = None


class Watcher(Protocol):
    """Shows the progress of a sweep."""

    def update(self, flights: Sequence[Flight], finished: int, seconds_left: float | None) -> None:
        """Show the running runs."""

    def ended(self, run: PlannedRun, outcome: Outcome, finished: int, seconds_left: float | None) -> None:
        """Show the end of a run."""

    def log(self, line: str) -> None:
        """Show a message."""


@dataclass(frozen=True)
class Sweep:
    """A sweep, or with ``dry_run`` what it would do.

    ``outcomes`` has the runs that are finished or failed, by the names of their folders. ``downloads`` names the
    backbones to fetch, with the estimated bytes.
    """

    plan: Plan
    forecasts: dict[str, Forecast]
    outcomes: dict[str, Outcome]
    downloads: dict[str, int | None] = field(default_factory=dict)

    @property
    def failed(self) -> dict[str, dict[str, Any]]:
        """The contents of ``error.json`` of the runs that failed, by the names of their folders."""
        return {key: outcome.error or {} for key, outcome in self.outcomes.items() if outcome.status == "failed"}

    @property
    def finished(self) -> list[Path]:
        """The folders of the finished runs."""
        return [run.path for run in self.plan.runs if is_finished(run)]

    @property
    def seconds(self) -> float:
        """The estimated seconds of one worker for all runs that have an estimate."""
        return sum(forecast.seconds or 0.0 for forecast in self.forecasts.values())

    @property
    def without_estimate(self) -> int:
        """The number of runs whose time was never measured on the same backbone and data."""
        return sum(forecast.seconds is None for forecast in self.forecasts.values())

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain data, for JSON."""
        return {
            "out": str(self.plan.out),
            "runs": [self._row(run) for run in self.plan.runs],
            "finished": len(self.finished),
            "failed": len(self.failed),
            "downloads": [{"backbone": name, "bytes": size} for name, size in self.downloads.items()],
            "seconds": self.seconds,
            "without_estimate": self.without_estimate,
            "next": list(self.plan.next),
        }

    def _row(self, run: PlannedRun) -> dict[str, Any]:
        forecast, outcome = self.forecasts[run.key], self.outcomes.get(run.key)
        row = {name: value for name, value in asdict(run).items() if name not in ("group", "data")}
        row["state"] = outcome.status if outcome else forecast.state
        row["accuracy"] = progress_of(run.path)[1]
        return {**row, "seconds": forecast.seconds, "error": outcome.error if outcome else None}


def conduct(
    plan: Plan, forecasts: dict[str, Forecast], pool: Pool, watcher: Watcher, timeout: float | None
) -> dict[str, Outcome]:
    """Compute every run that is not finished; return the outcomes.

    ``timeout``: seconds after which a run without a new epoch is cancelled and submitted again. A ``KeyboardInterrupt``
    interrupts all runs, and has a note of what is finished.
    """
    conductor = Conductor(plan, forecasts, pool, watcher, timeout)
    try:
        conductor.run()
    except KeyboardInterrupt as error:
        done = f"{conductor.finished} of {len(plan.runs)} runs are finished"
        error.__notes__ = [f"interrupted: {done}; the same command continues the sweep in {plan.out}"]
        raise
    finally:
        pool.close()
    return conductor.outcomes


class Conductor:
    """The state of a sweep while it runs."""

    def __init__(
        self, plan: Plan, forecasts: dict[str, Forecast], pool: Pool, watcher: Watcher, timeout: float | None
    ) -> None:
        self._plan, self._pool, self._watcher, self._timeout = plan, pool, watcher, timeout
        self.outcomes = {run.key: Outcome("finished") for run in plan.runs if is_finished(run)}
        self._waiting = [run for run in plan.runs if run.key not in self.outcomes]
        self._flights: list[Flight] = []
        self._held: list[PlannedRun] = []
        self._nodes = {run.group: "" for run in plan.runs if run.key in self.outcomes}  # of groups with a cached part
        self._lost: dict[str, tuple[int, int]] = {}  # attempts in vain, and the epochs before them
        self._started, self._ended, self._announced = time.monotonic(), 0, False
        pool.on_epoch = self.watch

    @property
    def finished(self) -> int:
        """The number of finished runs."""
        return sum(outcome.status == "finished" for outcome in self.outcomes.values())

    def run(self) -> None:
        """Submit and watch until every run has an outcome."""
        while self._waiting or self._flights or self._held:
            while len(self._flights) < self._pool.slots and (run := self._next()) is not None:
                self._submit(run)
            if self._flights:
                wait([flight.future for flight in self._flights if flight.future], _TICK, FIRST_COMPLETED)
                for flight in [each for each in self._flights if each.future and each.future.done()]:
                    self._flights.remove(flight)
                    self._land(flight)
                self.watch()
            else:  # all that is left is with other processes, or waits for a run that is
                self._look_at_held()

    def _next(self) -> PlannedRun | None:
        """Take the first run that can start now; runs that share a frozen part start after one has computed it."""
        cold = {flight.run.group for flight in self._flights} - self._nodes.keys() - {""}
        for run in self._waiting:
            needed = self.outcomes.get(run.after) if run.after else Outcome("finished")
            if needed is not None and run.group not in cold:
                self._waiting.remove(run)
                if needed.status == "finished":
                    return run
                self._end(
                    run, failure(run, ZooError(f"{run.after} failed, whose layers it scores", code="needs-run"), [])
                )
                return self._next()
        return None

    def _submit(self, run: PlannedRun) -> None:
        flight = Flight(run, progress_of(run.path)[0])
        self._flights.append(flight)
        flight.future = self._pool.submit(run, flight.token, self._nodes.get(run.group, ""))

    def watch(self) -> None:
        """Look at the folders of the runs, show their progress, and submit those again that hang."""
        now = time.monotonic()
        for flight in list(self._flights):
            mark = read_mark(flight.run)
            if mark.get("token") != flight.token:
                continue
            epochs, accuracy = progress_of(Path(mark["folder"]))
            if flight.changed is None or epochs != flight.epochs:
                flight.changed = now
            flight.epochs, flight.accuracy, flight.host = epochs, accuracy, mark["host"]
            if epochs:
                self._nodes.setdefault(flight.run.group, "")
            if self._timeout is not None and now - flight.changed > self._timeout:
                self._flights.remove(flight)
                self._pool.cancel(flight.token)
                self._lose(flight, TimeoutError(f"no epoch ended in {self._timeout:.0f} s"))
        self._watcher.update(self._flights, self.finished, self._seconds_left)

    def _land(self, flight: Flight) -> None:
        run = flight.run
        try:
            outcome = flight.future.result()  # type: ignore[union-attr]
        except Exception as error:  # whatever a lost worker raises, but no Ctrl-C
            self._lose(flight, error)
            return
        if outcome.status == "held":
            self._held.append(run)
            return
        if outcome.status == "finished":
            self._nodes[run.group] = outcome.node
        self._end(run, outcome)

    def _lose(self, flight: Flight, error: Exception) -> None:
        """Submit a run again whose worker is lost, unless it was lost too often since its last epoch."""
        run, epochs = flight.run, progress_of(flight.run.path)[0]
        attempts, before = self._lost.get(run.key, (0, epochs))
        attempts = attempts + 1 if epochs <= before else 1
        self._lost[run.key] = (attempts, epochs)
        if attempts < _ATTEMPTS:
            self._watcher.log(f"{run.key}: lost after epoch {epochs}, is resumed: {error}")
            self._waiting.insert(0, run)
        else:
            lost = ZooError(f"lost {attempts} times in a row: {error}", code="worker-lost", attempts=attempts)
            self._end(run, failure(run, lost, []))

    def _look_at_held(self) -> None:
        if not self._announced:
            self._watcher.log(f"waiting for {len(self._held)} runs that other processes have")
        self._announced = True
        time.sleep(_HELD_PAUSE)
        self._waiting, self._held = [*self._held, *self._waiting], []

    def _end(self, run: PlannedRun, outcome: Outcome) -> None:
        self.outcomes[run.key] = outcome
        self._ended += 1
        self._watcher.ended(run, outcome, self.finished, self._seconds_left)

    @property
    def _seconds_left(self) -> float | None:
        left = len(self._plan.runs) - len(self.outcomes)
        return (time.monotonic() - self._started) / self._ended * left if self._ended else None
