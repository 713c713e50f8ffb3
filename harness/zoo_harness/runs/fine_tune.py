"""Fine-tune a backbone: take the names and options of a call, and write a finished run folder."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.errors import DataError, UsageError
from zoo_harness.compute.distributed import Processes
from zoo_harness.records.run import RunRecord, read_run
from zoo_harness.runs.reporter import report_reading
from zoo_harness.runs.request import CheckedRun, RunCall, check_run
from zoo_harness.util.progress import Silence

if TYPE_CHECKING:
    from zoo_harness.runs.plan import RunPlan
    from zoo_harness.runs.reporter import Reporter
    from zoo_harness.runs.run import Run
    from zoo_harness.runs.writer import RunWriter


def fine_tune(call: RunCall, reporter: Reporter) -> Run:
    """Check the options of a call, execute or resume the run, and return the run.

    Wrong options raise an error before torch is imported. A run that a ``KeyboardInterrupt`` stops can be resumed, and
    a note on the exception names the command. With several processes, only the first process calls its reporter.
    """
    checked = check_run(call)

    from zoo_harness.runs.opening import open_fine_tuning  # imports numpy

    open_fine_tuning(checked, reporter if Processes.launched().is_main else Silence())

    # Importing torch takes seconds, so the modules that need it are imported only now.
    from zoo_harness.compute.allocator import keep_freed_memory
    from zoo_harness.compute.distributed import joined
    from zoo_harness.compute.precision import isolated
    from zoo_harness.runs.plan import Request, compute_context, prepare_run
    from zoo_harness.runs.run import open_run
    from zoo_harness.runs.session import execute_run

    keep_freed_memory()
    with isolated(), joined() as processes:
        if not processes.is_main:
            reporter = Silence()
        request = Request(**vars(checked.settings), compute=compute_context(checked.options.values, processes))
        planned = prepare_run(request, reporter)
        _announce(planned, reporter)
        writer = _writer(checked, processes)
        with _note_how_to_resume(writer.path, call):
            resume = checked.resume is not None
            execute_run(
                *(planned, writer, checked.cache, reporter),
                tensorboard=checked.tensorboard,
                log_steps=checked.log_steps,
                resume=resume,
            )
    return open_run(writer.path)


def _writer(checked: CheckedRun, processes: Processes) -> RunWriter:
    """Return the writer of this process. The first process creates the folder of a new run and broadcasts its path."""
    from zoo_harness.runs.directory import claim_directory
    from zoo_harness.runs.writer import NoWriter, RunWriter

    path = checked.resume
    if path is None and processes.is_main:
        path = claim_directory(checked.out, checked.settings.backbone.name, checked.settings.dataset.name)
        checked.options.write(path)
    path = processes.broadcast(path or Path())
    return RunWriter(path, svg=checked.svg) if processes.is_main else NoWriter(path)


def _announce(planned: RunPlan, reporter: Reporter) -> None:
    from zoo_harness.models.modules import outermost
    from zoo_harness.reports.wording import frozen_batchnorm_in_words, input_size_in_words, normalization_in_words

    parameters, data, processes = planned.record.parameters, planned.record.dataset, planned.request.compute.processes
    report_reading(data.reading, planned.warnings, reporter)
    together = f", {processes.count} processes" if processes.is_distributed else ""
    reporter.log(
        f"{planned.request.backbone.name} on {data.title}: {data.train.images:,} training and "
        f"{data.evaluation.images:,} {data.evaluation_name} images, {len(data.classes)} classes, "
        f"{planned.request.compute.device}{together}"
    )
    settings = planned.record.settings
    if settings.normalization != "weights":
        words = normalization_in_words(settings.preprocessing, settings.normalization)
        reporter.log(f"images are normalised by {words}")
    whole = parameters.trained == parameters.total
    what = "all of the network" if whole else ", ".join(outermost(planned.tuned.trained_paths))
    reporter.log(
        f"training {parameters.trained:,} of {parameters.total:,} parameters "
        f"({parameters.trained_without_head:,} without the head): {what}"
    )
    settings = planned.record.settings
    if settings.default_input_size is not None:
        reporter.log(f"input size: {input_size_in_words(settings)}")
    if settings.frozen_batchnorm == "train":
        reporter.log(f"frozen BatchNorm: {frozen_batchnorm_in_words(parameters)}")
    if data.test is not None:
        reporter.log(f"used only once, after training: split {data.test.split}, {data.test.images:,} images")


@contextmanager
def _note_how_to_resume(directory: Path, call: RunCall) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt as error:
        with suppress(UsageError, DataError):  # the run was interrupted before its record was written
            error.add_note(_what_is_kept(read_run(directory), directory, call))
        raise


def _what_is_kept(record: RunRecord, directory: Path, call: RunCall) -> str:
    if record.status == "finished":
        return f"interrupted, but the run had already finished: {directory}"
    again = f"{_resuming_call(directory, call)} resumes it"
    if record.checkpoint_sha256 is None:
        return f"interrupted before the first epoch ended; {directory} has the run's record, but no checkpoint; {again}"
    epochs = f"{record.results.epochs_done} of {record.settings.training.epochs}"
    return f"interrupted; {directory} has the history and the checkpoint up to epoch {epochs}; {again}"


def _resuming_call(directory: Path, call: RunCall) -> str:
    needed, function = call.stored.in_python, "train" if call.from_scratch else "evaluate"
    if needed:
        return f"zoo.{function}({', '.join(f'{name}={name}' for name in needed)}, resume={str(directory)!r})"
    return f"zoo {function.removesuffix('uate')} --resume {shlex.quote(str(directory))}"
