"""Run a sweep for ``zoo sweep`` and ``zoo.sweep``: read the plan, check its runs, and execute the runs in a pool."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from zoo.errors import UsageError
from zoo_harness.records.option import with_defaults
from zoo_harness.records.options import SweepOptions
from zoo_harness.runs.found_runs import read_found
from zoo_harness.sweeps.attempt import is_finished
from zoo_harness.sweeps.display import SweepDisplay
from zoo_harness.sweeps.estimates import Estimate, downloads, estimate_runs
from zoo_harness.sweeps.plan import AXES, Plan, PlannedRun, changes_of, read_plan
from zoo_harness.sweeps.pools import LocalWorkers, RayTasks, ThisProcess
from zoo_harness.sweeps.scheduler import Scheduler
from zoo_harness.util.durations import parse_duration


@dataclass(frozen=True)
class Sweep:
    """The result of a sweep; with ``dry_run`` the sweep has executed no run.

    ``failed`` maps the folder names of failed runs to the content of ``error.json``. ``estimates`` describes each run
    before the sweep. ``downloads`` maps backbones to the estimated bytes of their weights; it is filled by ``dry_run``.
    """

    plan: Plan
    estimates: dict[str, Estimate]
    failed: dict[str, dict[str, Any]] = field(default_factory=dict)
    downloads: dict[str, int | None] = field(default_factory=dict)

    @property
    def finished(self) -> list[Path]:
        """The folders of the finished runs."""
        return [run.path for run in self.plan.runs if is_finished(run)]

    @property
    def seconds(self) -> float:
        """The estimated seconds that one worker needs for the runs that have an estimate."""
        return sum(estimate.seconds or 0.0 for estimate in self.estimates.values())

    @property
    def without_estimate(self) -> int:
        """The number of runs for which no run of the same backbone and data has been measured."""
        return sum(estimate.seconds is None for estimate in self.estimates.values())

    def to_dict(self) -> dict[str, Any]:
        """Return the sweep as a dictionary that JSON can represent."""
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
        estimate, error = self.estimates[run.key], self.failed.get(run.key)
        state = "finished" if is_finished(run) else "failed" if error else estimate.state
        row = {name: value for name, value in asdict(run).items() if name != "group"}
        row |= {"state": state, "accuracy": read_found(run.path).accuracy}
        return {**row, "seconds": estimate.seconds, "error": error}


def run_sweep(
    source: str | Path | Mapping[str, Any] | None, given: SweepOptions, *, shown: bool, quiet: bool = False
) -> Sweep:
    """Execute the runs of a plan; with the option ``dry_run`` only check the runs and estimate their time.

    ``shown`` prints progress to standard error. A ``KeyboardInterrupt`` interrupts all runs; a note on the exception
    has the number of finished runs.
    """
    options = with_defaults(SweepOptions, given)
    _check_combinations(options)
    timeout = parse_duration("--task-timeout", options["task_timeout"]) if options["task_timeout"] else None
    changes = changes_of(options["set"] or ()) | {name: given[name] for name in AXES if name in given}  # type: ignore[literal-required]
    plan = read_plan(source, changes, options["out"])
    estimates = estimate_runs(plan)
    if options["dry_run"]:
        return Sweep(plan, estimates, downloads=downloads(estimates))
    with SweepDisplay(shown=shown, quiet=quiet) as display, redirect_stdout(sys.stderr):  # libraries and Ray print
        if not options["address"]:  # the nodes of a cluster may have data that this machine lacks
            _report_faults(estimates, display)
        where = f"on Ray at {options['address']}" if options["address"] else f"{options['workers']} at a time"
        display.log(f"{len(plan.runs)} runs in {plan.out}, {where}; CPU threads of each run: {options['threads']}")
        pool = _pool(plan, options)
        scheduler = Scheduler(plan, estimates, pool, display, timeout)
        try:
            scheduler.run()
        except KeyboardInterrupt as error:
            finished = f"{sum(map(is_finished, plan.runs))} of {len(plan.runs)} runs are finished"
            error.__notes__ = [f"interrupted: {finished}; the same command continues the sweep in {plan.out}"]
            raise
        finally:
            pool.close()
    failed = {key: outcome.error for key, outcome in scheduler.outcomes.items() if outcome.error}
    return Sweep(plan, estimates, failed)


def _check_combinations(options: SweepOptions) -> None:
    """Raise :class:`~zoo.errors.UsageError` for an option that another option makes useless."""
    on_ray, several = options["address"] is not None, options["workers"] != 1
    conflicts = {
        "workers": (on_ray and several, "is for this machine; remove it, because Ray starts as many runs as fit"),
        "gpus_per_run": (options["gpus_per_run"] and not on_ray, "is for Ray; add --address, for example local"),
        "task_timeout": (options["task_timeout"] and not (on_ray or several), "needs --workers 2 or --address"),
    }
    for name, (conflict, advice) in conflicts.items():
        if conflict:
            raise UsageError(f"--{name.replace('_', '-')} {advice}", code="option-conflict", option=name)


def _report_faults(estimates: Mapping[str, Estimate], display: SweepDisplay) -> None:
    """Warn of runs that cannot start; if no run can start, raise the error of the first run."""
    faults = {key: estimate.fault for key, estimate in estimates.items() if estimate.fault}
    if faults and len(faults) == len(estimates):
        raise next(iter(faults.values()))
    for key, fault in faults.items():
        display.log(f"warning: {key} cannot start: {fault}", always=True)


def _pool(plan: Plan, options: SweepOptions) -> ThisProcess:
    if options["address"]:
        return RayTasks(options["address"], options["threads"], options["gpus_per_run"] or 0.0)
    if options["workers"] > 1:
        return LocalWorkers(options["workers"], options["threads"], plan.out / ".sweep")
    return ThisProcess(options["threads"])
