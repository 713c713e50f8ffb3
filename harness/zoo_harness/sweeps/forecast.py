"""Say before a sweep what it would do: the state of each run, downloads, and the time, as far as it was measured."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from zoo.errors import ZooError
from zoo.registry import load_registry
from zoo_harness.models.weight_source import find_local
from zoo_harness.records.option import checked
from zoo_harness.records.run import RUN
from zoo_harness.records.stored_options import OPTIONS, read_options
from zoo_harness.reports.backbone_figures import figures_of
from zoo_harness.runs.found_runs import is_running
from zoo_harness.runs.request import RunCall, check_layers, check_run
from zoo_harness.sweeps.attempt import ERROR, is_finished, progress_of, status_of
from zoo_harness.sweeps.plan import OPTIONS_OF, Plan, PlannedRun, same_data


@dataclass(frozen=True)
class Forecast:
    """One run before it starts.

    ``state``: ``finished``, ``running``, ``begun``, ``failed`` or ``new``. ``epochs``: their number in the plan.
    ``seconds``: still needed, by the finished runs of the same backbone and data; ``None`` without any. ``fault``: why
    the run cannot start on this machine. ``fetches``: the backbone, if its weights are not on this machine.
    """

    state: str
    epochs: int | None = None
    seconds: float | None = None
    fault: ZooError | None = None
    fetches: str | None = None


def foresee(plan: Plan) -> dict[str, Forecast]:
    """Look at every run of a plan, and check the options of those to do as their commands would."""
    measured = defaultdict(list)
    for path in plan.out.glob(f"*/{OPTIONS}"):
        if status_of(path.parent / RUN) == "finished":
            with suppress(ZooError, LookupError, TypeError):  # of another version
                stored, times = read_options(path.parent), _times(path.parent)
                measured[same_data(stored.name, stored.dataset, stored.given)].append(times)
    return {run.key: _foreseen(run, measured[run.data]) for run in plan.runs}


def _foreseen(run: PlannedRun, measured: Sequence[tuple[float, float]]) -> Forecast:
    if is_finished(run):
        return Forecast("finished", seconds=0.0)
    state = "begun" if (run.path / RUN).is_file() else "new"
    state = "failed" if (run.path / ERROR).is_file() else "running" if is_running(run.path) else state
    try:
        epochs, fetches = _check(run)
    except ZooError as error:
        return Forecast(state, fault=error)
    if not measured or epochs is None:
        return Forecast(state, epochs, fetches=fetches)
    fixed, of_epoch = (fmean(values) for values in zip(*measured, strict=True))
    return Forecast(state, epochs, fixed + of_epoch * (epochs - progress_of(run.path)[0]), fetches=fetches)


def _check(run: PlannedRun) -> tuple[int | None, str | None]:
    """Return the epochs of a run, and the backbone to fetch; raise the error that the run would end with."""
    given: Any = checked(OPTIONS_OF[run.command], {**run.options, "seed": run.seed, "out": run.path / "new"})
    if run.after:
        return None, None  # the run to read does not exist yet
    if run.command == "layers":
        (backbone, source), epochs = check_layers([run.backbone], [], run.dataset, given, ()).backbones[0], None
    else:
        settings = check_run(RunCall(run.backbone, run.dataset, given, (), run.command == "train")).settings
        backbone, source, epochs = settings.backbone, settings.weights, settings.training.epochs
    is_own = source.kind != "random" and source == backbone.weights
    return epochs, backbone.name if is_own and find_local(backbone) is None else None


def _times(folder: Path) -> tuple[float, float]:
    """Return the seconds of a finished run beside its epochs, and of an epoch; a resumed run has its epochs alone."""
    results = json.loads((folder / RUN).read_bytes())["results"]
    of_epoch = (results["mean_train_seconds"] or 0.0) + (results["mean_evaluation_seconds"] or 0.0)
    return max((results["total_seconds"] or 0.0) - of_epoch * results["epochs_done"], 0.0), of_epoch


def downloads(forecasts: dict[str, Forecast]) -> dict[str, int | None]:
    """Return the backbones to fetch, with the estimated bytes of their weights."""
    names = dict.fromkeys(forecast.fetches for forecast in forecasts.values() if forecast.fetches)
    return {name: figures_of(load_registry().backbone(name))["weights_bytes"] for name in names}
