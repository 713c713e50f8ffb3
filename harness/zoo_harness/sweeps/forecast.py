"""Say before a sweep what it would do: the state of each run, downloads, and the time, as far as it was measured."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from zoo.errors import ZooError
from zoo.registry import load_registry
from zoo_harness.models.weight_source import find_local
from zoo_harness.records.option import checked
from zoo_harness.records.run import RUN
from zoo_harness.reports.backbone_figures import figures_of
from zoo_harness.runs.found_runs import is_running
from zoo_harness.runs.request import RunCall, check_layers, check_run
from zoo_harness.sweeps.attempt import ERROR, is_finished, progress_of
from zoo_harness.sweeps.plan import OPTIONS_OF, Plan, PlannedRun


@dataclass(frozen=True)
class Forecast:
    """One run before it starts.

    ``state``: ``finished``, ``running``, ``begun``, ``failed`` or ``new``. ``epochs``: their number in the plan.
    ``seconds``: still needed, by the finished runs of the same backbone and data; ``None`` without any. ``fault``: why
    the run cannot start on this machine. ``pretrained``: whether it reads the backbone's own weights.
    """

    state: str
    epochs: int | None = None
    seconds: float | None = None
    fault: ZooError | None = None
    pretrained: bool = False


def foresee(plan: Plan) -> dict[str, Forecast]:
    """Look at every run of a plan, and check its options as its command would."""
    measured: dict[str, list[tuple[float, float]]] = {}
    for run in plan.runs:
        if is_finished(run) and (times := _times(run.path)) is not None:
            measured.setdefault(run.data, []).append(times)
    return {run.key: _foreseen(run, measured.get(run.data, [])) for run in plan.runs}


def _foreseen(run: PlannedRun, measured: Sequence[tuple[float, float]]) -> Forecast:
    state = _state(run)
    try:
        epochs, pretrained = _check(run)
    except ZooError as error:
        return Forecast(state, fault=error)
    if state == "finished" or not measured or epochs is None:
        return Forecast(state, epochs, 0.0 if state == "finished" else None, None, pretrained)
    fixed, of_epoch = (fmean(values) for values in zip(*measured, strict=True))
    left = epochs - progress_of(run.path)[0]
    return Forecast(state, epochs, fixed + of_epoch * left, None, pretrained)


def _state(run: PlannedRun) -> str:
    folder = run.path
    if is_finished(run):
        return "finished"
    if (folder / ERROR).is_file():
        return "failed"
    if not (folder / RUN).is_file():
        return "new"
    return "running" if is_running(folder) else "begun"


def _check(run: PlannedRun) -> tuple[int | None, bool]:
    """Return the epochs of a run, and whether it reads pretrained weights; raise the error that it would end with."""
    options = {**run.options, "seed": run.seed, "out": run.path / "new"}
    given: Any = checked(OPTIONS_OF[run.command], options)
    if run.command == "layers":
        check_layers(
            [] if run.after else [run.backbone], [Path(run.backbone)] * bool(run.after), run.dataset, given, ()
        )
        return None, not run.after and run.options.get("weights") in (None, "pretrained")
    settings = check_run(RunCall(run.backbone, run.dataset, given, (), run.command == "train")).settings
    return settings.training.epochs, settings.weights == settings.backbone.weights


def _times(folder: Path) -> tuple[float, float] | None:
    """Return the seconds of a finished run beside its epochs, and of an epoch; a resumed run counts its epochs alone."""
    try:
        results = json.loads((folder / RUN).read_bytes())["results"]
        of_epoch = (results["mean_train_seconds"] or 0.0) + (results["mean_evaluation_seconds"] or 0.0)
        return max(results["total_seconds"] - of_epoch * results["epochs_done"], 0.0), of_epoch
    except (OSError, ValueError, LookupError, TypeError):
        return None


def downloads(plan: Plan, forecasts: dict[str, Forecast]) -> dict[str, int | None]:
    """Return the backbones whose weights are not on this machine, with the estimated bytes of the download."""
    registry = load_registry()
    wanted = [run for run in plan.runs if forecasts[run.key].pretrained and forecasts[run.key].state != "finished"]
    found = {name: registry.backbone(name) for name in dict.fromkeys(run.backbone for run in wanted)}
    missing = {name: each for name, each in found.items() if each.weights.kind != "random" and not find_local(each)}
    return {name: figures_of(each)["weights_bytes"] for name, each in missing.items()}
