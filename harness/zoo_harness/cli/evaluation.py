"""``zoo eval NAME --dataset D``: fine-tune one block, score, write the run down."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from zoo_harness.cli.options import AsJson, BackboneName, Debug, Quiet, RecipeName, complete_dataset
from zoo_harness.cli.table import print_lines, print_table, tell, warn_of

if TYPE_CHECKING:
    from zoo_harness.cli.progress import TerminalProgress
    from zoo_harness.evaluate import Request
    from zoo_harness.run_directory import RunDirectory
    from zoo_harness.run_record import Measurement, RunRecord, ScoreMeasurement


def evaluate(
    name: BackboneName,
    dataset: Annotated[
        str,
        typer.Option(metavar="D", help="A data set; zoo datasets names them.", autocompletion=complete_dataset),
    ],
    recipe: RecipeName = "default",
    weights: Annotated[str, typer.Option(help="'pretrained', 'random', or the path of a weight file.")] = "pretrained",
    unfreeze: Annotated[
        list[str] | None,
        typer.Option(metavar="MODULE", help="Train this module instead of the recipe's; repeatable."),
    ] = None,
    layer: Annotated[
        str | None,
        typer.Option(help="Feature layer to score with SI; the one the classifier sees unless given."),
    ] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Folder that holds the data set's files.")] = None,
    per_class: Annotated[int | None, typer.Option(help="Use this many images of each class, chosen by seed.")] = None,
    limit: Annotated[int | None, typer.Option(help="Use at most this many images of each split.")] = None,
    val_fraction: Annotated[
        float | None, typer.Option(help="Evaluate on this part of the training split, held out, instead.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs; the recipe's (20) unless given. 0 only scores.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Adam's learning rate; the recipe's (1e-4).")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images per step; the recipe's (32).")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the head, the order of the images and the subset.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    precision: Annotated[str, typer.Option(help="fp32, or bf16 (autocast, CUDA only).")] = "fp32",
    predict: Annotated[str, typer.Option(help="With two heads: predict from 'cls', or from their 'mean'.")] = "cls",
    out: Annotated[Path | None, typer.Option(help="Run directory; runs/NAME-DATASET-TIME unless given.")] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    _debug: Debug = False,
) -> None:
    """Fine-tune one block of a backbone on a data set, score it, and write checkpoint, card and plots."""
    from zoo.errors import one_of
    from zoo.registry import load_registry
    from zoo_harness import choices
    from zoo_harness.run_directory import RunDirectory

    registry = load_registry()
    warn_of(registry.problems)
    backbone = registry.backbone(name)
    found, argument = registry.dataset(dataset)
    tuning = backbone.tuning(recipe)
    scored = choices.choose_layer(backbone.name, tuning, layer)
    source = choices.choose_source(backbone, weights)
    training = choices.apply_overrides(
        tuning.training, epochs=epochs, learning_rate=learning_rate, batch_size=batch_size
    )
    subset = choices.Subset(per_class=per_class, limit=limit, val_fraction=val_fraction, seed=choices.check_seed(seed))
    prediction = choices.choose_prediction(predict, tuning, registry.backbones.values())
    choices.check_device_name(device)
    one_of("--precision", precision, choices.PRECISIONS)
    folder = data_dir.expanduser() if data_dir else None
    choices.check_folders(found, argument, folder)
    if out is not None:
        RunDirectory(out).check()

    # From here on torch is imported, which takes seconds; what could be checked without it has been.
    from zoo_harness.allocator import keep_freed_memory
    from zoo_harness.cli.progress import TerminalProgress
    from zoo_harness.device import check_precision, choose_device
    from zoo_harness.evaluate import Request
    from zoo_harness.interrupts import Terminated, terminable
    from zoo_harness.train import Conditions

    keep_freed_memory()
    chosen_device = choose_device(device)
    request = Request(
        backbone=backbone,
        dataset=found,
        argument=argument,
        tuning=tuning,
        unfreeze=tuple(unfreeze) if unfreeze else None,
        layer=scored,
        weights=source,
        training=training,
        subset=subset,
        conditions=Conditions(
            device=chosen_device,
            precision=check_precision(precision, chosen_device),
            predict=prediction,
            seed=seed,
        ),
        data_dir=folder,
        command=("zoo", *sys.argv[1:]),
    )
    try:
        with TerminalProgress(quiet=quiet) as progress, terminable():
            record, directory = _run(request, out, progress)
    except Terminated as error:
        raise typer.Exit(error.exit_code) from error
    _report(record, directory, as_json=as_json, quiet=quiet)


def _run(request: Request, out: Path | None, progress: TerminalProgress) -> tuple[RunRecord, RunDirectory]:
    from zoo_harness.evaluate import plan
    from zoo_harness.run_directory import claim_directory
    from zoo_harness.session import run
    from zoo_harness.surgery import outermost

    planned = plan(request, progress)
    for warning in planned.data.warnings:
        progress.warn(warning)
    parameters = planned.record.parameters
    data = planned.record.dataset
    progress.say(
        f"{request.backbone.name} on {data.title}: {data.train.images:,} training and {data.evaluation.images:,} "
        f"{data.evaluation.split} images, {len(data.classes)} classes, {request.conditions.device}"
    )
    progress.say(
        f"training {parameters.trained:,} of {parameters.total:,} parameters "
        f"({parameters.trained_without_head:,} without the head): {', '.join(outermost(planned.tuned.trained_paths))}"
    )
    directory = claim_directory(out, request.backbone.name, request.dataset.name)
    try:
        return run(planned, directory, progress, progress.announce), directory
    except KeyboardInterrupt:
        tell(_what_is_kept(directory))
        raise


def _what_is_kept(directory: RunDirectory) -> str:
    from zoo_harness.run_record import read_run

    record = read_run(directory.path)
    if record.checkpoint_sha256 is None:
        return f"interrupted before the first epoch ended; there is no checkpoint, only the record in {directory.path}"
    whole = f"{record.results.epochs_done} of {record.settings.training.epochs}"
    return f"interrupted; history and the checkpoint of epoch {whole} are kept in {directory.path}"


def _report(record: RunRecord, directory: RunDirectory, *, as_json: bool, quiet: bool) -> None:
    if as_json:
        print_lines(record.to_json().rstrip())
        return
    if not quiet:
        _print_accuracy(record)
        print_lines("")
        _print_separation(record)
        print_lines("")
    print_lines(
        f"checkpoint  {directory.path / 'model.safetensors'}",
        f"card        {directory.path / 'README.md'}",
        f"plots       {', '.join(str(directory.path / name) for name in record.plots)}",
    )


def _print_accuracy(record: RunRecord) -> None:
    results = record.results
    measured = (("evaluation accuracy", results.accuracy), ("training accuracy", results.train_accuracy))
    rows = [[name, _percent(accuracy), _count(accuracy)] for name, accuracy in measured]
    print_table(["measure", "value", "images"], rows, right=["value", "images"])


def _print_separation(record: RunRecord) -> None:
    from zoo_harness.run_separation import pixels_in_words, scored_layer, separation_notes, separation_rows

    columns = ["split", "features", "SI", "high-order", "soft", "anti", "centre"]
    rows = []
    for title, split in (("evaluation", "evaluation"), ("training", "train")):
        found = separation_rows(record, "train" if split == "train" else "evaluation")
        for place, row in enumerate(found):
            first, *others = row.scores
            cells = [_fraction(first), *(f"{score.value:.4f}" if score else "-" for score in others)]
            rows.append(["" if place else title, row.name, *cells])
    print_table(columns, rows, right=columns[2:])
    print_lines(
        "",
        f"before and after training: outputs of layer {scored_layer(record)}",
        f"raw pixels: images {pixels_in_words(record)}",
        "SI looks at the nearest other image of the split, high-order, soft and anti SI",
        "at the nearest two (order 2), centre SI at class means. Of anti, less is better.",
        "± is one standard error, of SI by bootstrap; the card has all errors.",
        *separation_notes(record),
    )


def _percent(measurement: Measurement | None) -> str:
    if measurement is None:
        return "-"
    return f"{100 * measurement.value:.2f} ± {100 * measurement.standard_error:.2f} %"


def _fraction(score: ScoreMeasurement | None) -> str:
    return f"{score.value:.4f} ± {score.bootstrap_error:.4f}" if score else "-"


def _count(measurement: Measurement | None) -> str:
    return f"{measurement.n:,}" if measurement else "-"
