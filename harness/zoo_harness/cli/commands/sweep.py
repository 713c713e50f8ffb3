"""``zoo sweep PLAN``: many runs by one plan, on one machine or a cluster."""

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

PlanFile = Annotated[
    Path | None, typer.Argument(metavar="[PLAN]", help="A TOML file, such as sweeps/malpure2021.toml.")
]


def _sweep(plan: PlanFile = None, *, given: Given, quiet: Quiet = False, as_json: AsJson = False) -> None:
    """Run every combination of backbones, datasets, recipes, seeds and options of a plan.

    The same command again continues: finished runs are skipped, begun ones resumed, failed ones tried again. A run
    that fails leaves error.json, and the others continue; the exit status is then 1.
    """
    from zoo_harness.sweeps.sweep import run_sweep

    with ended_in_order():
        found = run_sweep(plan, given, shown=True, quiet=quiet)  # type: ignore[arg-type]
    if as_json:
        print_json(found.to_dict())
    elif given.get("dry_run"):
        _print_forecast(found)
    else:
        _print_end(found)
    if found.failed:
        raise typer.Exit(1)


sweep_command = command(SweepOptions, _sweep)


def _print_forecast(found: Sweep) -> None:
    rows = [
        [run.key, forecast.state, "no estimate" if forecast.seconds is None else durations.in_words(forecast.seconds)]
        for run in found.plan.runs
        for forecast in [found.forecasts[run.key]]
    ]
    print_table(["run", "state", "time"], rows, right=["time"])
    sizes = [
        f"{name} ({'size not known' if size is None else f'{size / 1e6:,.0f} MB'})"
        for name, size in found.downloads.items()
    ]
    done = sum(forecast.state == "finished" for forecast in found.forecasts.values())
    lacking = f"no estimate for {found.without_estimate} of the runs" if found.without_estimate else ""
    measured = f"{durations.in_words(found.seconds)} with one run at a time" if found.seconds or not lacking else ""
    print_lines("")
    print_facts(
        [
            ("runs", f"{len(rows)}, {done} finished already"),
            ("time", "; ".join(filter(None, (measured, lacking)))),
            ("weights", f"to download: {', '.join(sizes)}" if sizes else "nothing to download"),
            ("data", ", ".join(dict.fromkeys(run.dataset for run in found.plan.runs))),
            ("folder", str(found.plan.out)),
        ]
    )
    tell(*(f"error: {key} cannot start: {each.fault}" for key, each in found.forecasts.items() if each.fault))


def _print_end(found: Sweep) -> None:
    print_facts(
        [
            ("finished", f"{len(found.finished)} of {len(found.plan.runs)} runs"),
            ("folder", str(found.plan.out)),
            *(("next", line.replace("{out}", str(found.plan.out))) for line in found.plan.next),
        ]
    )
    tell(*(f"error: {key} failed: {error['message']}" for key, error in found.failed.items()))
