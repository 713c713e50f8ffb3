"""Carry out a sweep as a caller asks: read the plan, foresee, choose where to compute, conduct."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from zoo.errors import UsageError
from zoo_harness.records.option import with_defaults
from zoo_harness.records.options import SweepOptions
from zoo_harness.runs.found_runs import read_found
from zoo_harness.sweeps.attempt import Outcome, is_finished
from zoo_harness.sweeps.conductor import Conductor
from zoo_harness.sweeps.display import SweepDisplay
from zoo_harness.sweeps.forecast import Forecast, downloads, foresee
from zoo_harness.sweeps.plan import AXES, Plan, PlannedRun, changes_of, read_plan
from zoo_harness.sweeps.pools import LocalWorkers, RayTasks, ThisProcess
from zoo_harness.util.durations import parse_duration


@dataclass(frozen=True)
class Sweep:
    """A sweep, or with ``dry_run`` what it would do.

    ``outcomes`` has the runs that are finished or failed, by the names of their folders. ``downloads`` names the
    backbones to fetch, with the estimated bytes.
    """

    plan: Plan
    forecasts: dict[str, Forecast]
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    downloads: dict[str, int | None] = field(default_factory=dict)

    @property
    def failed(self) -> dict[str, dict[str, Any]]:
        """The contents of ``error.json`` of the runs that failed, by the names of their folders."""
        return {key: outcome.error for key, outcome in self.outcomes.items() if outcome.error}

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
        row |= {"state": outcome.status if outcome else forecast.state, "accuracy": read_found(run.path).accuracy}
        return {**row, "seconds": forecast.seconds, "error": self.failed.get(run.key)}


def run_sweep(
    source: str | Path | Mapping[str, Any] | None, given: SweepOptions, *, shown: bool, quiet: bool = False
) -> Sweep:
    """Carry out a sweep, or with ``dry_run`` say what it would do; progress goes to standard error if ``shown``.

    A ``KeyboardInterrupt`` interrupts all runs, and has a note of what is finished.
    """
    options = with_defaults(SweepOptions, given)
    _refuse_contradictions(options)
    timeout = parse_duration("--task-timeout", options["task_timeout"]) if options["task_timeout"] else None
    changes = changes_of(options["set"] or ()) | {name: given[name] for name in AXES if name in given}  # type: ignore[literal-required]
    plan = read_plan(source, changes, options["out"])
    forecasts = foresee(plan)
    if options["dry_run"]:
        return Sweep(plan, forecasts, downloads=downloads(forecasts))
    with SweepDisplay(shown=shown, quiet=quiet) as display:
        if not options["address"]:
            _tell_faults(forecasts, display)
        where = f"Ray, {options['address']}" if options["address"] else f"{options['workers']} at a time"
        display.log(f"{len(plan.runs)} runs in {plan.out}; {where}, CPU threads of each: {options['threads']}")
        pool = _pool(plan, options)
        conductor = Conductor(plan, forecasts, pool, display, timeout)
        try:
            conductor.run()
        except KeyboardInterrupt as error:
            done = f"{sum(map(is_finished, plan.runs))} of {len(plan.runs)} runs are finished"
            error.__notes__ = [f"interrupted: {done}; the same command continues the sweep in {plan.out}"]
            raise
        finally:
            pool.close()
    return Sweep(plan, forecasts, conductor.outcomes)


def _refuse_contradictions(options: SweepOptions) -> None:
    on_ray, local = options["address"] is not None, options["workers"] != 1
    contradictions = {
        "workers": (on_ray and local, "is for this machine; leave it out with --address, which starts as many as fit"),
        "gpus_per_run": (options["gpus_per_run"] and not on_ray, "is for Ray; give --address too, such as local"),
        "task_timeout": (options["task_timeout"] and not (on_ray or local), "needs --workers 2 or more, or --address"),
    }
    for name, (wrong, advice) in contradictions.items():
        if wrong:
            raise UsageError(f"--{name.replace('_', '-')} {advice}", code="option-conflict", option=name)


def _tell_faults(forecasts: dict[str, Forecast], display: SweepDisplay) -> None:
    """Name the runs that cannot start; if none can, raise the first error."""
    faults = {key: forecast.fault for key, forecast in forecasts.items() if forecast.fault}
    if faults and len(faults) == len(forecasts):
        raise next(iter(faults.values()))
    for key, fault in faults.items():
        display.log(f"warning: {key} cannot start: {fault}", always=True)


def _pool(plan: Plan, options: SweepOptions) -> ThisProcess:
    if options["address"]:
        return RayTasks(options["address"], options["threads"], options["gpus_per_run"] or 0.0)
    if options["workers"] > 1:
        return LocalWorkers(options["workers"], options["threads"], plan.out / ".sweep")
    return ThisProcess(options["threads"])
