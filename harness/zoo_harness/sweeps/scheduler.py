"""Schedule the runs of a sweep: submit them, follow their progress, and submit a run again if its worker is lost."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field

from zoo.errors import ZooError
from zoo_harness.runs.found_runs import read_found
from zoo_harness.sweeps.attempt import Outcome, failure, is_finished, latest_attempt, progress_of
from zoo_harness.sweeps.display import SweepDisplay
from zoo_harness.sweeps.estimates import Estimate
from zoo_harness.sweeps.plan import Plan, PlannedRun
from zoo_harness.sweeps.pools import ThisProcess
from zoo_harness.util import durations

_POLL_SECONDS, _LOCKED_SECONDS = 0.5, 5.0  # between two readings of the run folders; before locked runs are retried
_MOST_LOSSES = 3  # lost workers of a run without a new epoch, after which the run has failed


@dataclass
class SubmittedRun:
    """A run that was submitted to the pool and has not ended.

    ``progressed`` is the time of the last new epoch, or of the start; ``None`` if no worker has started the run.
    """

    run: PlannedRun
    epochs: int
    attempt_id: str = field(default_factory=lambda: secrets.token_hex(4))
    future: Future[Outcome] | None = None  # None while ThisProcess.submit executes the run
    progressed: float | None = None
    line: str = ""


class Scheduler:
    """Executes the runs of a plan in a pool; ``outcomes`` maps the keys of finished and failed runs to outcomes.

    A run that ends no epoch in ``timeout`` seconds is cancelled and submitted again.
    """

    def __init__(
        self,
        plan: Plan,
        estimates: Mapping[str, Estimate],
        pool: ThisProcess,
        display: SweepDisplay,
        timeout: float | None,
    ) -> None:
        self._plan, self._estimates, self._pool, self._display = plan, estimates, pool, display
        self._timeout = timeout
        self.outcomes = {run.key: Outcome("finished") for run in plan.runs if is_finished(run)}
        self._waiting = [run for run in plan.runs if run.key not in self.outcomes]
        self._submitted: list[SubmittedRun] = []
        self._locked: list[PlannedRun] = []
        self._nodes = {run.group: "" for run in plan.runs if run.key in self.outcomes}  # nodes with cached outputs
        self._losses: dict[str, tuple[int, int]] = {}  # lost workers in a row, and the epochs at the last loss
        self._started, self._ended = time.monotonic(), 0
        pool.on_epoch = self._follow

    def run(self) -> None:
        """Submit runs and follow them until every run has an outcome."""
        while self._waiting or self._submitted or self._locked:
            while len(self._submitted) < self._pool.slots and (run := self._next()) is not None:
                self._submitted.append(submitted := SubmittedRun(run, progress_of(run.path)[0]))
                node = run.group and self._nodes.get(run.group, "")
                submitted.future = self._pool.submit(run, submitted.attempt_id, node)
            wait([each.future for each in self._submitted if each.future], _POLL_SECONDS, FIRST_COMPLETED)
            for each in [each for each in self._submitted if each.future and each.future.done()]:
                self._submitted.remove(each)
                self._complete(each.run, each.future)  # type: ignore[arg-type]
            self._follow()
            if self._locked and not self._submitted and not self._startable():
                self._display.update([f"waiting for {len(self._locked)} runs of other processes", self._summary()])
                time.sleep(_LOCKED_SECONDS)
                self._waiting, self._locked = [*self._locked, *self._waiting], []

    def _startable(self) -> list[PlannedRun]:
        """Return the waiting runs that may start now.

        A run waits for the run that it depends on, and for the first epoch of a run that computes the same frozen part.
        """
        computing = {each.run.group for each in self._submitted} - self._nodes.keys() - {""}
        ended = {"", *self.outcomes}
        return [run for run in self._waiting if run.group not in computing and (run.depends_on or "") in ended]

    def _next(self) -> PlannedRun | None:
        for run in self._startable():
            self._waiting.remove(run)
            if run.depends_on is None or self.outcomes[run.depends_on].status == "finished":
                return run
            message = f"the run whose layers are to be scored has failed: {run.depends_on}"
            self._end(run, failure(run, ZooError(message, code="needs-run", run=run.depends_on)))
        return None

    def _follow(self) -> None:
        """Read the progress of the submitted runs, show it, and restart runs that exceed the timeout."""
        for each in list(self._submitted):
            started = latest_attempt(each.run)
            if started.get("attempt_id") == each.attempt_id:
                self._update(each, started, time.monotonic())
        if lines := [each.line for each in self._submitted if each.line]:
            self._display.update([*lines, self._summary()])

    def _update(self, submitted: SubmittedRun, started: Mapping[str, str], now: float) -> None:
        run, before = submitted.run, submitted.epochs
        submitted.epochs, accuracy = progress_of(run.path.parent / started["folder"])
        if submitted.progressed is None or submitted.epochs != before:
            submitted.progressed = now
        if submitted.epochs:
            self._nodes.setdefault(run.group, started["node"])
        epochs = f"epoch {submitted.epochs} of {self._estimates[run.key].epochs or '?'}{_percent(accuracy, ', ')}"
        age = now - submitted.progressed
        submitted.line = f"{run.key}  {epochs}, {durations.in_words(age)} ago, on {started['host']}"
        if self._timeout is not None and age > self._timeout:
            self._submitted.remove(submitted)
            self._pool.cancel(submitted.attempt_id)
            self._restart(run, TimeoutError(f"no epoch ended in {durations.in_words(self._timeout)}"))

    def _complete(self, run: PlannedRun, future: Future[Outcome]) -> None:
        try:
            outcome = future.result()
        except Exception as error:  # the pool raises different errors if a worker is lost
            self._restart(run, error)
            return
        if outcome.status == "locked":
            self._locked.append(run)
            return
        if outcome.status == "finished":
            self._nodes[run.group] = latest_attempt(run).get("node", "")
        self._end(run, outcome)

    def _restart(self, run: PlannedRun, error: Exception) -> None:
        """Submit a run again whose worker was lost; after several losses without a new epoch the run has failed."""
        epochs = progress_of(run.path)[0]
        losses, before = self._losses.get(run.key, (0, epochs))
        losses = losses + 1 if epochs <= before else 1
        self._losses[run.key] = losses, epochs
        if losses < _MOST_LOSSES:
            self._display.log(f"restarted {run.key}  after epoch {epochs}: {error}")
            self._waiting.insert(0, run)
        else:
            message = f"the worker of the run was lost {losses} times without a new epoch: {error}"
            self._end(run, failure(run, ZooError(message, code="worker-lost", losses=losses)))

    def _end(self, run: PlannedRun, outcome: Outcome) -> None:
        self.outcomes[run.key] = outcome
        self._ended += 1
        for warning in outcome.warnings:
            self._display.log(f"warning: {run.key}: {warning}", always=True)
        if outcome.error:
            self._display.log(f"failed    {run.key}  {outcome.error['message']}", always=True)
        else:
            accuracy = _percent(read_found(run.path).accuracy, "  ")
            self._display.log(f"finished  {run.key}{accuracy}  ({self._summary()})")

    def _summary(self) -> str:
        """Return the number of finished runs and the time left, estimated from the runs of this sweep that ended."""
        finished, total = sum(each.status == "finished" for each in self.outcomes.values()), len(self._plan.runs)
        left = (time.monotonic() - self._started) / max(self._ended, 1) * (total - len(self.outcomes))
        time_left = f", {durations.in_words(left)} left" if self._ended and left else ""
        return f"{finished} of {total} finished{time_left}"


def _percent(accuracy: float | None, separator: str) -> str:
    return "" if accuracy is None else f"{separator}{accuracy:.2%}"
