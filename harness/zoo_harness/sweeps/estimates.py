"""Check the runs of a sweep before they start: the state of each run, downloads, and the estimated time."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from zoo.errors import ZooError
from zoo.registry import load_registry
from zoo_harness.models.weight_source import find_local
from zoo_harness.records.option import checked, declared
from zoo_harness.records.options import DataOptions
from zoo_harness.records.run import RUN
from zoo_harness.records.stored_options import read_options
from zoo_harness.reports.backbone_figures import figures_of
from zoo_harness.runs.found_runs import is_running
from zoo_harness.runs.request import RunCall, check_layers, check_run
from zoo_harness.sweeps.attempt import ERROR, is_finished, progress_of
from zoo_harness.sweeps.plan import OPTIONS_OF, Plan, PlannedRun


@dataclass(frozen=True)
class Estimate:
    """What is known about a run before it starts.

    ``state`` is ``finished``, ``running``, ``begun``, ``failed`` or ``new``. ``epochs`` is the total number of epochs.
    ``seconds`` is the estimated time that the run still needs, or ``None`` without a finished run of the same backbone
    and data. ``fault`` is the error with which the run would fail on this machine. ``download`` is the name of the
    backbone if its weights must be downloaded.
    """

    state: str
    epochs: int | None = None
    seconds: float | None = None
    fault: ZooError | None = None
    download: str | None = None


def estimate_runs(plan: Plan) -> dict[str, Estimate]:
    """Check the options of every unfinished run of a plan, and estimate its time from the finished runs in the folder.

    The keys of the result are the keys of the runs.
    """
    measured = defaultdict(list)
    for path in plan.out.glob(f"*/{RUN}"):
        with suppress(ZooError, OSError, ValueError, LookupError, TypeError):  # unfinished, or of another version
            stored, seconds = read_options(path.parent), _measured_seconds(path)
            measured[_data_key(stored.name, stored.dataset, stored.given)].append(seconds)
    return {run.key: _estimate(run, measured[_data_key(run.backbone, run.dataset, run.options)]) for run in plan.runs}


def downloads(estimates: Mapping[str, Estimate]) -> dict[str, int | None]:
    """Return the backbones whose weights must be downloaded, with the estimated number of bytes."""
    names = dict.fromkeys(estimate.download for estimate in estimates.values() if estimate.download)
    return {name: figures_of(load_registry().backbone(name))["weights_bytes"] for name in names}


def _data_key(backbone: str | None, dataset: str | None, options: Mapping[str, Any]) -> str:
    """Return a text that is equal for two runs if they use the same backbone and the same images."""
    selection = {name: options[name] for name in declared(DataOptions) if options.get(name)}
    return json.dumps([backbone, dataset, selection], sort_keys=True, default=str)


def _measured_seconds(record: Path) -> tuple[float, float]:
    """Return the seconds of one epoch of a finished run, and the seconds that the run took apart from its epochs."""
    content = json.loads(record.read_bytes())
    if content["status"] != "finished":
        raise ValueError(f"{record} is not finished")
    results = content["results"]
    epoch = (results["mean_train_seconds"] or 0.0) + (results["mean_evaluation_seconds"] or 0.0)
    # A resumed run has no total time, so its time apart from the epochs counts as zero.
    return epoch, max((results["total_seconds"] or 0.0) - epoch * results["epochs_done"], 0.0)


def _estimate(run: PlannedRun, measured: Sequence[tuple[float, float]]) -> Estimate:
    if is_finished(run):
        return Estimate("finished", seconds=0.0)
    state = "begun" if (run.path / RUN).is_file() else "new"
    state = "failed" if (run.path / ERROR).is_file() else "running" if is_running(run.path) else state
    try:
        epochs, download = _check(run)
    except ZooError as error:
        return Estimate(state, fault=error)
    seconds = None
    if measured and epochs is not None:
        of_epoch, apart = map(fmean, zip(*measured, strict=True))
        seconds = apart + of_epoch * (epochs - progress_of(run.path)[0])
    return Estimate(state, epochs, seconds, download=download)


def _check(run: PlannedRun) -> tuple[int | None, str | None]:
    """Return the epochs of a run, and its backbone if the weights must be downloaded; raise an error for bad options.

    The options for the layers of another run are checked later, because that run may not exist yet.
    """
    given: Any = checked(OPTIONS_OF[run.command], {**run.options, "seed": run.seed, "out": run.path / "new"})
    if run.depends_on:
        return None, None
    if run.command == "layers":
        (backbone, source), epochs = check_layers([run.backbone], [], run.dataset, given, ()).backbones[0], None
    else:
        settings = check_run(RunCall(run.backbone, run.dataset, given, (), run.command == "train")).settings
        backbone, source, epochs = settings.backbone, settings.weights, settings.training.epochs
    pretrained = source.kind != "random" and source == backbone.weights
    return epochs, backbone.name if pretrained and find_local(backbone) is None else None
