"""Carry out a sweep as a caller asks: read the plan, foresee, choose where to compute, conduct."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zoo.errors import UsageError
from zoo_harness.records.option import with_defaults
from zoo_harness.records.options import SweepOptions
from zoo_harness.sweeps.conductor import Sweep, conduct
from zoo_harness.sweeps.display import SweepDisplay
from zoo_harness.sweeps.forecast import downloads, foresee
from zoo_harness.sweeps.plan import Plan, changes_of, read_plan
from zoo_harness.sweeps.pools import LocalWorkers, Pool, RayTasks, ThisProcess
from zoo_harness.util.durations import parse_duration

_LISTS = ("backbones", "datasets", "recipes", "seeds")
_SHOWN = 3  # faults of runs that cannot start


def run_sweep(
    source: str | Path | Mapping[str, Any] | None, given: SweepOptions, *, shown: bool, quiet: bool = False
) -> Sweep:
    """Carry out a sweep, or with ``dry_run`` say what it would do; progress goes to standard error if ``shown``."""
    options = with_defaults(SweepOptions, given)
    timeout = parse_duration("--task-timeout", options["task_timeout"]) if options["task_timeout"] else None
    _refuse_contradictions(options)
    changes = changes_of(options["set"] or ())
    changes |= {name: _parts(name, options[name]) for name in _LISTS if options[name] is not None}  # type: ignore[literal-required]
    plan = read_plan(source, changes, options["out"])
    forecasts = foresee(plan)
    if options["dry_run"]:
        return Sweep(plan, forecasts, {}, downloads(plan, forecasts))
    with SweepDisplay(plan, forecasts, shown=shown, quiet=quiet) as display:
        faults = {key: forecast.fault for key, forecast in forecasts.items() if forecast.fault is not None}
        if not options["address"]:
            if len(faults) == len(forecasts):
                raise next(iter(faults.values()))
            for key in [*faults][:_SHOWN]:
                display.warn(f"{key} cannot start: {faults[key]}")
            if len(faults) > _SHOWN:
                display.warn(f"{len(faults)} runs cannot start; --dry-run lists them")
        display.log(_heading(plan, options))
        outcomes = conduct(plan, forecasts, _pool(plan, options), display, timeout)
    return Sweep(plan, forecasts, outcomes)


def _refuse_contradictions(options: SweepOptions) -> None:
    if options["address"] is not None and options["workers"] != 1:
        message = "--workers is for this machine; leave it out with --address, whose nodes have as many as fit"
        raise UsageError(message, code="option-conflict", option="workers")
    if options["gpus_per_run"] is not None and options["address"] is None:
        message = "--gpus-per-run is for Ray; give --address local too, to share the GPUs of this machine"
        raise UsageError(message, code="option-unused", option="gpus_per_run")
    if options["task_timeout"] and options["workers"] == 1 and options["address"] is None:
        message = "--task-timeout needs runs in other processes; give --workers 2 or --address too"
        raise UsageError(message, code="option-unused", option="task_timeout")


def _parts(name: str, value: Any) -> list[Any]:
    parts = [part.strip() for part in value.split(",")] if isinstance(value, str) else [*value]
    if name != "seeds":
        return parts
    try:
        return [int(part) for part in parts]
    except ValueError as error:
        message = f"--seeds is wrong: {value!r:.80}; expected whole numbers, such as 0,1,2"
        raise UsageError(message, code="option-value", option="seeds") from error


def _heading(plan: Plan, options: SweepOptions) -> str:
    if options["address"]:
        where = f"Ray at {options['address']}"
    else:
        where = f"{options['workers']} worker{'s' if options['workers'] > 1 else ''}"
    threads = f"{options['threads']} thread{'s' if options['threads'] > 1 else ''} a run"
    return f"{len(plan.runs)} runs in {plan.out}; {where}, {threads}"


def _pool(plan: Plan, options: SweepOptions) -> Pool:
    if options["address"]:
        return RayTasks(options["address"], options["threads"], options["gpus_per_run"] or 0.0)
    if options["workers"] > 1:
        return LocalWorkers(options["workers"], options["threads"], plan.out / ".sweep")
    return ThisProcess(options["threads"])
