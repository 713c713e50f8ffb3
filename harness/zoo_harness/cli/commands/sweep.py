"""``zoo sweep PLAN`` executes many runs from one plan, on one machine or a cluster."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from zoo_harness.cli.command import Given, command
from zoo_harness.cli.options import AsJson, Quiet
from zoo_harness.cli.output import print_facts, print_json, print_lines, print_table, tell
from zoo_harness.cli.run_output import ended_in_order
from zoo_harness.records.options import SweepOptions
from zoo_harness.util import durations

if TYPE_CHECKING:
    from zoo_harness.sweeps.sweep import Sweep

PlanFile = Annotated[Path | None, typer.Argument(metavar="PLAN", help="A TOML file, such as sweeps/malpure2021.toml.")]


def _sweep(plan: PlanFile = None, *, given: Given, quiet: Quiet = False, as_json: AsJson = False) -> None:
    """Run every combination of settings in a plan.

    The same command continues a sweep: it skips finished runs, resumes begun runs, and tries failed runs again. A
    failed run gets a file error.json, and the other runs continue; the exit status is then 1.
    """
    from zoo_harness.sweeps.sweep import run_sweep

    with ended_in_order():
        found = run_sweep(plan, given, shown=True, quiet=quiet)  # type: ignore[arg-type]
    if as_json:
        print_json(found.to_dict())
    elif given.get("dry_run"):
        _print_estimates(found)
    else:
        _print_end(found)
    if found.failed or (given.get("dry_run") and any(each.fault for each in found.estimates.values())):
        raise typer.Exit(1)


sweep_command = command(SweepOptions, _sweep)


def _print_estimates(found: Sweep) -> None:
    estimates, sizes = found.estimates, found.downloads
    times = ["no estimate" if each.seconds is None else durations.in_words(each.seconds) for each in estimates.values()]
    rows = [[key, each.state, time] for (key, each), time in zip(estimates.items(), times, strict=True)]
    print_table(["run", "state", "time"], rows, right=["time"])
    done = sum(each.state == "finished" for each in estimates.values())
    missing = [f"no estimate for {found.without_estimate} of the runs"] if found.without_estimate else []
    measured = [f"{durations.in_words(found.seconds)} with one run at a time"] if found.seconds or not missing else []
    weights = [f"{name} ({f'{size / 1e6:,.0f} MB' if size else 'unknown size'})" for name, size in sizes.items()]
    print_lines("")
    print_facts(
        [
            ("runs", f"{len(rows)}, {done} finished already"),
            ("time", "; ".join([*measured, *missing])),
            ("weights", f"to download: {', '.join(weights)}" if weights else "nothing to download"),
            ("data", ", ".join(dict.fromkeys(run.dataset for run in found.plan.runs))),
            ("folder", str(found.plan.out)),
        ]
    )
    tell(*(f"error: {key} cannot start: {each.fault}" for key, each in estimates.items() if each.fault))


def _print_end(found: Sweep) -> None:
    out = str(found.plan.out)
    commands = [("next", line.replace("{out}", out)) for line in found.plan.next if found.finished]
    print_facts([("finished", f"{len(found.finished)} of {len(found.plan.runs)} runs"), ("folder", out), *commands])
    tell(*(f"error: {key} failed: {error['message']}" for key, error in found.failed.items()))
