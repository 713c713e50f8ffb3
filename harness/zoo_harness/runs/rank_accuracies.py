"""Fine-tune the best backbones of a ranking, and compare the ranking's scores with these and other runs' accuracies."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from zoo.backbone import Backbone
from zoo.errors import UsageError, ZooError
from zoo.registry import load_registry
from zoo.text import one_line
from zoo_harness.ranking.foresight import foresight
from zoo_harness.records.option import declared
from zoo_harness.records.options import EvalOptions, RankOptions
from zoo_harness.records.rank import TOP_1, Failure, Foresight, KnownAccuracy, RankedBackbone, RankRecord
from zoo_harness.records.run import RUN, RunRecord, read_run
from zoo_harness.records.stored_options import OPTIONS
from zoo_harness.runs.fine_tune import fine_tune
from zoo_harness.runs.rank_request import RankRequest
from zoo_harness.runs.reporter import Reporter
from zoo_harness.runs.request import RunCall
from zoo_harness.runs.run import Run, open_run

TUNED = "tuned"
HELD_OUT_FRACTION = 0.2


def with_accuracies(record: RankRecord, request: RankRequest, folder: Path, reporter: Reporter) -> RankRecord:
    """Fine-tune the best backbones, collect the accuracies of runs, and measure how well each score predicts them."""
    found, failures = _tuned(record, request, folder, reporter)
    runs, left_out = _of_runs(record, request.against)
    accuracies = _joined(record, found, runs)
    for line in left_out:
        reporter.warn(line)
    return record.model_copy(
        update={
            "accuracies": accuracies,
            "foresight": tuple(_foresight(record, accuracies)),
            "failures": (*record.failures, *failures),
            "left_out_runs": tuple(left_out),
        }
    )


def _tuned(
    record: RankRecord, request: RankRequest, folder: Path, reporter: Reporter
) -> tuple[dict[str, RunRecord], list[Failure]]:
    """Fine-tune the best backbones; return the run record of each, by backbone name, and the failures.

    A resumed ranking reuses the runs that have finished.
    """
    backbones = {each.name: each for each in request.backbones}
    best = [row for row in record.backbones if not row.control and row.name in backbones][: request.tune]
    found, failures = {}, []
    for place, row in enumerate(best, 1):
        reporter.log(f"fine-tuning {row.name}, {place} of {len(best)}")
        try:
            found[row.name] = _fine_tuned(backbones[row.name], request, folder, reporter).record
        except ZooError as error:
            failures.append(Failure(name=row.name, code=error.code, message=f"fine-tuning: {error}"))
            reporter.warn(f"{row.name} could not be fine-tuned: {one_line(str(error))}")
    return found, failures


def tuned_folder(folder: Path, name: str) -> Path:
    """Return the folder of the run in which a ranking fine-tuned a backbone; ``folder`` is that of the ranking.

    >>> tuned_folder(Path("runs/rank"), "timm:resnet18").as_posix()
    'runs/rank/tuned/timm-resnet18'
    """
    return folder / TUNED / re.sub(r"[^A-Za-z0-9._-]", "-", name)


def _fine_tuned(backbone: Backbone, request: RankRequest, folder: Path, reporter: Reporter) -> Run:
    """Fine-tune a backbone in a subfolder of the ranking, or resume the unfinished run there.

    If the dataset has no test split, a fifth of the training split is held out to measure the accuracy.
    """
    place = tuned_folder(folder, backbone.name)
    if (place / RUN).is_file() and read_run(place).status == "finished":
        return open_run(place)
    options = _run_options(request)
    if (place / OPTIONS).is_file():
        options = {**options, "resume": place}
    else:
        shutil.rmtree(place, ignore_errors=True)  # an earlier run was interrupted before it wrote its options
        options = {**options, "out": place}
    registry, dataset = load_registry(), request.stored.dataset or request.dataset
    named = registry.knows(backbone.name) and registry.backbone(backbone.name) == backbone
    call = RunCall(backbone.name if named else backbone, dataset, options, request.command)
    try:
        return fine_tune(call, reporter)
    except UsageError as error:
        if error.code != "split-missing":
            raise
        held_out: EvalOptions = {**options, "val_fraction": HELD_OUT_FRACTION}
        return fine_tune(replace(call, given=held_out), reporter)


def _run_options(request: RankRequest) -> EvalOptions:
    """Return the given options of the ranking that ``zoo eval`` has too."""
    common = declared(EvalOptions).keys() & declared(RankOptions).keys() - {"out", "resume", "cache"}
    values: dict[str, Any] = dict(request.options)
    return {name: values[name] for name in sorted(common) if values[name] is not None}  # type: ignore[return-value]


def _of_runs(record: RankRecord, folders: Sequence[Path]) -> tuple[dict[str, list[tuple[str, RunRecord]]], list[str]]:
    """Map each ranked backbone to the names and records of its finished runs, and explain which runs are excluded."""
    found: dict[str, list[tuple[str, RunRecord]]] = {}
    left_out = []
    for folder in folders:
        try:
            run = read_run(folder)
            rows = _rows_of(record, run)
        except ZooError as error:
            left_out.append(f"{folder.name} is left out of --against: {one_line(str(error))}")
            continue
        for row in rows:
            found.setdefault(row.name, []).append((folder.name, run))
    return found, left_out


def _rows_of(record: RankRecord, run: RunRecord) -> list[RankedBackbone]:
    """Return the ranking's rows for a run: the run's checkpoint, or its backbone with the run's initial weights."""
    name = record.dataset.partition(":")[0]
    if run.dataset.name != name or run.dataset.classes != record.classes:
        message = f"its dataset is {run.dataset.title}; expected {record.title} with the same classes"
        raise UsageError(message, code="other-dataset")
    if run.status != "finished" or run.headline[0] is None:
        raise UsageError(f"the run is {run.status}; expected a finished run", code="run-unfinished")
    rows = [row for row in record.backbones if not row.control and _is_of(row, run)]
    if not rows:
        message = f"backbone {run.backbone.name!r} with these weights is not in the ranking"
        raise UsageError(message, code="backbone-not-ranked", name=run.backbone.name)
    return rows


def _is_of(row: RankedBackbone, run: RunRecord) -> bool:
    if row.weights is None:
        return False
    if row.weights.kind == "run":
        return row.weights.sha256 == run.checkpoint_sha256
    return row.name == run.backbone.name and row.weights.sha256 == run.weights.sha256


def _joined(
    record: RankRecord, tuned: dict[str, RunRecord], runs: dict[str, list[tuple[str, RunRecord]]]
) -> tuple[KnownAccuracy, ...]:
    """Return the mean accuracy of each ranked backbone that has runs, in the order of the ranking's table."""
    found = []
    for row in record.backbones:
        named = [(f"{TUNED}/{row.name}", tuned[row.name])] if row.name in tuned else []
        named += runs.get(row.name, [])
        measured = [(accuracy, split) for _name, run in named for accuracy, split in [run.headline] if accuracy]
        if not measured:
            continue
        accuracy, split = measured[0]
        seconds = [run.results.total_seconds for _name, run in named if run.results.total_seconds is not None]
        found.append(
            KnownAccuracy(
                name=row.name,
                accuracy=sum(each.value for each, _split in measured) / len(measured),
                standard_error=accuracy.standard_error,
                split=split.split,
                images=accuracy.n,
                fingerprint=split.fingerprint,
                runs=tuple(name for name, _run in named),
                tuned=row.name in tuned,
                seconds=sum(seconds) / len(seconds) if seconds else None,
            )
        )
    return tuple(found)


def _foresight(record: RankRecord, accuracies: Sequence[KnownAccuracy]) -> Iterator[Foresight]:
    """Yield how well each score, and ImageNet top-1 as a baseline, predicts the accuracies of two or more backbones."""
    reached = {each.name: each.accuracy for each in accuracies}
    rows = [row for row in record.backbones if row.name in reached and row.images == record.images_seen]
    for key in [*(rows[0].scores if rows else ()), TOP_1]:
        values = {row.name: row.imagenet_top1 if key == TOP_1 else row.scores[key].value for row in rows}
        pairs = [(value, reached[name]) for name, value in values.items() if value is not None]
        if len(pairs) >= 2:
            yield foresight(key, [value for value, _ in pairs], [accuracy for _, accuracy in pairs], record.seed)
