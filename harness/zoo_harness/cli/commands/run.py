"""What ``zoo eval`` and ``zoo train`` have in common: check what was asked, run it, report it."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import typer

from zoo_harness.cli.output import print_lines, print_table, tell, warn_of
from zoo_harness.compute.distributed import Processes

if TYPE_CHECKING:
    from zoo_harness.cli.progress import TerminalProgress
    from zoo_harness.frozen.cache.placement import CachePolicy
    from zoo_harness.records.option_checks import CacheDtype
    from zoo_harness.records.options import RunOptions
    from zoo_harness.records.run import Measurement, RunRecord, ScoreMeasurement
    from zoo_harness.runs.directory import RunDirectory
    from zoo_harness.runs.plan import Request, RunPlan


@dataclass(frozen=True)
class Manner:
    """How a run is carried out, which changes nothing of its results."""

    out: Path | None
    resume: Path | None
    cache: str
    cache_budget: str | None
    tensorboard: bool
    as_json: bool
    quiet: bool


def chosen_options(context: typer.Context, asked: Mapping[str, Any], resume: Path | None) -> RunOptions:
    """The options of a run: as given, or those of the run to resume, which what is given must not contradict."""
    from zoo.errors import UsageError
    from zoo_harness.records.options import RunOptions
    from zoo_harness.runs.resume import resumed

    options = RunOptions.model_validate(dict(asked))
    if resume is not None:
        given = [name for name in asked if is_given(context, name)]
        return resumed(resume.expanduser(), options, given)
    if options.name is None:
        raise UsageError("which backbone? zoo list names them; --resume RUN goes on with a run")
    if options.dataset is None:
        raise UsageError(f"which data set shall {options.name} see? give --dataset; zoo datasets names them")
    return options


def is_given(context: typer.Context, name: str) -> bool:
    """Whether an option was given on the command line, be it with its default value."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def carry_out(options: RunOptions, manner: Manner) -> None:
    """Do what was asked and report it; what is wrong with it is told before anything heavy is imported."""
    request_of = _checked(options)
    out = manner.out if manner.resume is None else _to_go_on_in(manner)
    if manner.resume is None and out is not None and Processes.launched().is_main:
        from zoo_harness.runs.directory import RunDirectory

        RunDirectory(out).check()

    from zoo_harness.frozen.cache.placement import CachePolicy  # imports numpy

    policy = CachePolicy.of(manner.cache, manner.cache_budget)
    if manner.cache == "off" and options.cache_dtype != "exact":
        from zoo.errors import UsageError

        raise UsageError(f"--cache-dtype {options.cache_dtype} is for what is kept, and --cache off keeps nothing")
    if manner.tensorboard:
        from zoo_harness.runs.tensorboard import check_tensorboard

        check_tensorboard()

    # From here on torch is imported, which takes seconds; what could be checked without it has been.
    from zoo_harness.cli.progress import TerminalProgress
    from zoo_harness.compute.allocator import keep_freed_memory
    from zoo_harness.compute.distributed import joined
    from zoo_harness.util.signals import Terminated, raise_on_sigterm

    keep_freed_memory()
    try:
        with (
            raise_on_sigterm(),
            joined() as processes,
            TerminalProgress(quiet=manner.quiet or not processes.is_main) as progress,
        ):
            record, directory = _run(request_of(processes), options, manner, policy, out, progress)
    except Terminated as error:
        raise typer.Exit(error.exit_code) from error
    if processes.is_main:
        _report(record, directory, as_json=manner.as_json, quiet=manner.quiet)


def _to_go_on_in(manner: Manner) -> Path | None:
    from zoo.errors import UsageError
    from zoo_harness.runs.resume import refuse_finished

    if manner.out is not None:
        raise UsageError(f"--resume {manner.resume} goes on in its own folder; leave --out out")
    if manner.resume is not None and Processes.launched().is_main:
        refuse_finished(manner.resume.expanduser())  # here too, before torch is imported
    return manner.resume


def _checked(options: RunOptions) -> Callable[[Processes], Request]:
    """What makes the request, once all that can be checked without torch has been."""
    from zoo.errors import check_choice
    from zoo.registry import load_registry
    from zoo_harness.records import option_checks as choices, overrides as choices_overrides
    from zoo_harness.records.subset import Subset

    registry = load_registry()
    warn_of(registry.problems)
    backbone = registry.backbone(options.name or "")
    dataset, argument = registry.dataset(options.dataset or "")
    tuning = backbone.tuning(options.recipe)
    layer = choices.choose_layer(backbone.name, tuning, options.layer)
    source = choices.choose_source(backbone, options.weights)
    training = choices_overrides.apply_overrides(tuning.training, options.training)
    subset = Subset(
        per_class=options.per_class,
        limit=options.limit,
        val_fraction=options.val_fraction,
        seed=choices.check_seed(options.seed),
    )
    predict = choices.choose_prediction(options.predict, tuning, registry.backbones.values())
    choices.check_device_name(options.device)
    check_choice("--precision", options.precision, choices.PRECISIONS)
    cache_dtype = cast("CacheDtype", check_choice("--cache-dtype", options.cache_dtype, choices.CACHE_DTYPES))
    folder = options.data_dir.expanduser() if options.data_dir else None
    choices.check_folders(dataset, argument, folder)

    def request(processes: Processes) -> Request:
        from zoo_harness.compute.context import ComputeContext
        from zoo_harness.compute.device import choose_device
        from zoo_harness.compute.precision import check_precision
        from zoo_harness.runs.plan import Request

        device = choose_device(options.device, processes)
        return Request(
            backbone=backbone,
            dataset=dataset,
            argument=argument,
            tuning=tuning,
            unfreeze=options.unfreeze or None,
            layer=layer,
            weights=source,
            training=training,
            subset=subset,
            compute=ComputeContext(
                device=device,
                precision=check_precision(options.precision, device),
                predict=predict,
                seed=options.seed,
                deterministic=options.deterministic,
                compiled=options.compile,
                cache_dtype=cache_dtype,
                processes=processes,
            ),
            data_dir=folder,
            command=("zoo", *sys.argv[1:]),
            with_test=options.from_scratch,
            layer_curve=options.layer_curve,
        )

    return request


def _run(
    request: Request,
    options: RunOptions,
    manner: Manner,
    policy: CachePolicy,
    out: Path | None,
    progress: TerminalProgress,
) -> tuple[RunRecord, RunDirectory]:
    from zoo_harness.runs.plan import prepare_run
    from zoo_harness.runs.session import RunCallbacks, resume, run

    processes = request.compute.processes
    callbacks = RunCallbacks(progress, progress.announce, progress.say, tensorboard=manner.tensorboard)
    planned = prepare_run(request, progress)
    if processes.is_main:
        for warning in planned.warnings:
            progress.warn(warning)
    _say_what_begins(planned, progress)
    directory = _directory(request, options, manner, out)
    go_on = partial(run if manner.resume is None else resume, planned, directory, policy, callbacks)
    try:
        return go_on(), directory
    except KeyboardInterrupt:
        if processes.is_main:
            tell(_what_is_kept(directory, "train" if options.from_scratch else "eval"))
        raise


def _directory(request: Request, options: RunOptions, manner: Manner, out: Path | None) -> RunDirectory:
    """The run's folder: the first process makes it, and the others are told which it is."""
    from zoo_harness.runs.directory import RunDirectory, WatchedDirectory, claim_directory

    processes = request.compute.processes
    if manner.resume is not None:
        path = manner.resume.expanduser()
        return RunDirectory(path) if processes.is_main else WatchedDirectory(path)
    if not processes.is_main:
        return WatchedDirectory(processes.broadcast(Path()))
    directory = claim_directory(out, request.backbone.name, request.dataset.name)
    options.write(directory.path)
    processes.broadcast(directory.path)
    return directory


def _say_what_begins(planned: RunPlan, progress: TerminalProgress) -> None:
    from zoo_harness.models.modules import outermost

    parameters, data = planned.record.parameters, planned.record.dataset
    progress.say(
        f"{planned.request.backbone.name} on {data.title}: {data.train.images:,} training and "
        f"{data.evaluation.images:,} {data.evaluation.split} images, {len(data.classes)} classes, "
        f"{planned.request.compute.device}{_in_how_many(planned.request.compute.processes)}"
    )
    whole = parameters.trained == parameters.total
    what = "all of the network" if whole else ", ".join(outermost(planned.tuned.trained_paths))
    progress.say(
        f"training {parameters.trained:,} of {parameters.total:,} parameters "
        f"({parameters.trained_without_head:,} without the head): {what}"
    )
    if data.test is not None:
        progress.say(f"kept for the end: split {data.test.split}, {data.test.images:,} images")


def _in_how_many(processes: Processes) -> str:
    return f", {processes.count} processes" if processes.is_distributed else ""


def _what_is_kept(directory: RunDirectory, command: str) -> str:
    from zoo_harness.records.run import read_run

    record = read_run(directory.path)
    again = f"zoo {command} --resume {shlex.quote(str(directory.path))} goes on"
    if record.checkpoint_sha256 is None:
        return (
            f"interrupted before the first epoch ended; there is no checkpoint, only the record in {directory.path}; "
            f"{again}"
        )
    whole = f"{record.results.epochs_done} of {record.settings.training.epochs}"
    return f"interrupted; history and the checkpoint of epoch {whole} are kept in {directory.path}; {again}"


def _report(record: RunRecord, directory: RunDirectory, *, as_json: bool, quiet: bool) -> None:
    if as_json:
        print_lines(record.to_json().rstrip())
        return
    if not quiet:
        _print_accuracy(record)
        print_lines("")
        _print_separation(record)
        print_lines(*_best_layer(record), "")
    print_lines(
        f"checkpoint  {directory.path / 'model.safetensors'}",
        f"card        {directory.path / 'README.md'}",
        f"plots       {', '.join(str(directory.path / name) for name in record.plots)}",
    )


def _print_accuracy(record: RunRecord) -> None:
    results = record.results
    measured = [("evaluation accuracy", results.accuracy), ("training accuracy", results.train_accuracy)]
    if record.dataset.test is not None:
        measured.insert(0, ("test accuracy", results.test_accuracy))
    rows = [[name, _percent(accuracy), _count(accuracy)] for name, accuracy in measured]
    print_table(["measure", "value", "images"], rows, right=["value", "images"])


def _print_separation(record: RunRecord) -> None:
    from zoo_harness.reports.separation_tables import (
        pixels_in_words,
        score_definitions,
        scored_layer,
        separation_notes,
        separation_rows,
        splits_scored,
    )
    from zoo_harness.separation.scores import SCORES

    columns = ["split", "features", *(each.heading for each in SCORES)]
    rows = []
    for title, split, _images in splits_scored(record):
        for index, row in enumerate(separation_rows(record, split)):
            first, *others = row.scores
            cells = [_fraction(first), *(f"{score.value:.4f}" if score else "-" for score in others)]
            rows.append(["" if index else title.removesuffix(" split").lower(), row.name, *cells])
    print_table(columns, rows, right=columns[2:])
    print_lines(
        "",
        f"before and after training: outputs of layer {scored_layer(record)}",
        f"raw pixels: images {pixels_in_words(record)}",
        *(f"{title}: {definition}" for title, definition in score_definitions()),
        "± is one standard error, of SI by bootstrap; the card has all errors.",
        *separation_notes(record),
    )


def _best_layer(record: RunRecord) -> list[str]:
    curve = record.results.layer_curve
    if curve is None:
        return []
    best = curve.best
    return ["", f"layer with the highest SI after training: {best.path}, {_fraction(best.separation.si)}"]


def _percent(measurement: Measurement | None) -> str:
    if measurement is None:
        return "-"
    return f"{100 * measurement.value:.2f} ± {100 * measurement.standard_error:.2f} %"


def _fraction(score: ScoreMeasurement | None) -> str:
    return f"{score.value:.4f} ± {score.bootstrap_error:.4f}" if score else "-"


def _count(measurement: Measurement | None) -> str:
    return f"{measurement.n:,}" if measurement else "-"
