"""Carry out a run that was asked for, from names and options to a finished run directory."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from zoo_harness.runs.request import Asked, CheckedRun, check_run

if TYPE_CHECKING:
    from zoo_harness.compute.distributed import Processes
    from zoo_harness.runs.plan import RunPlan
    from zoo_harness.runs.reporter import Reporter
    from zoo_harness.runs.run import Run
    from zoo_harness.runs.writer import RunWriter


def fine_tune(asked: Asked, reporter: Reporter) -> Run:
    """Check a request, execute or resume the run, and return it.

    Mistakes are found before torch is imported. A ``KeyboardInterrupt`` leaves a run that can be resumed; a note on the
    exception says how.
    """
    checked = check_run(asked)

    # From here on torch is imported, which takes seconds; whatever can be checked without it has been.
    from zoo_harness.compute.allocator import keep_freed_memory
    from zoo_harness.compute.distributed import joined
    from zoo_harness.compute.isolation import isolated
    from zoo_harness.runs.plan import prepare_run
    from zoo_harness.runs.run import open_run
    from zoo_harness.runs.session import execute_run, resume_run

    keep_freed_memory()
    with isolated(), joined() as processes:
        planned = prepare_run(checked.request(processes), reporter)
        _announce(planned, reporter)
        writer = _writer(checked, planned, processes)
        go = execute_run if checked.resume is None else resume_run
        with _note_how_to_resume(writer, asked):
            go(planned, writer, checked.cache, reporter, tensorboard=checked.tensorboard)
    return open_run(writer.path)


def _writer(checked: CheckedRun, planned: RunPlan, processes: Processes) -> RunWriter:
    """The first process makes the folder; the others hear of it, and write nothing."""
    from zoo_harness.runs.directory import claim_directory
    from zoo_harness.runs.writer import NoWriter, RunWriter

    if checked.resume is not None:
        return (RunWriter if processes.is_main else NoWriter)(checked.resume)
    if not processes.is_main:
        return NoWriter(processes.broadcast(Path()))
    directory = claim_directory(checked.out, checked.backbone.name, planned.request.dataset.name)
    checked.options.write(directory.path)
    return RunWriter(processes.broadcast(directory.path))


def _announce(planned: RunPlan, reporter: Reporter) -> None:
    from zoo_harness.models.modules import outermost

    parameters, data, processes = planned.record.parameters, planned.record.dataset, planned.request.compute.processes
    for line in data.reading:
        reporter.log(line)
    for warning in planned.warnings if processes.is_main else ():
        reporter.warn(warning)
    together = f", {processes.count} processes" if processes.is_distributed else ""
    reporter.log(
        f"{planned.request.backbone.name} on {data.title}: {data.train.images:,} training and "
        f"{data.evaluation.images:,} {data.evaluation.split} images, {len(data.classes)} classes, "
        f"{planned.request.compute.device}{together}"
    )
    whole = parameters.trained == parameters.total
    what = "all of the network" if whole else ", ".join(outermost(planned.tuned.trained_paths))
    reporter.log(
        f"training {parameters.trained:,} of {parameters.total:,} parameters "
        f"({parameters.trained_without_head:,} without the head): {what}"
    )
    if data.test is not None:
        reporter.log(f"kept for the end: split {data.test.split}, {data.test.images:,} images")


@contextmanager
def _note_how_to_resume(writer: RunWriter, asked: Asked) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt as error:
        error.add_note(_what_is_kept(writer.path, asked))
        raise


def _what_is_kept(directory: Path, asked: Asked) -> str:
    from zoo_harness.records.run import read_run

    record = read_run(directory)
    again = f"{_resuming_call(directory, asked)} resumes it"
    if record.checkpoint_sha256 is None:
        return (
            f"interrupted before the first epoch ended; there is no checkpoint, only the record in {directory}; {again}"
        )
    epochs = f"{record.results.epochs_done} of {record.settings.training.epochs}"
    return f"interrupted; the history and the checkpoint of epoch {epochs} are kept in {directory}; {again}"


def _resuming_call(directory: Path, asked: Asked) -> str:
    needed = asked.stored.in_python
    if needed:
        function = "train" if asked.from_scratch else "evaluate"
        return f"zoo.{function}({', '.join(f'{name}={name}' for name in needed)}, resume={str(directory)!r})"
    return f"zoo {'train' if asked.from_scratch else 'eval'} --resume {shlex.quote(str(directory))}"
