"""Show the progress of a run and print its results."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from zoo_harness.cli.output import print_lines, print_table, tell, warn_of
from zoo_harness.compute.distributed import Processes
from zoo_harness.records.file_names import STEPS

if TYPE_CHECKING:
    from zoo_harness.records.run import Measurement, RunRecord, ScoreMeasurement
    from zoo_harness.runs.display import ProgressDisplay
    from zoo_harness.runs.run import Run

_LOGS = {"steps": STEPS, "events": "tensorboard"}
_WIDTH = 80  # of the notes below the tables
_MOST_CHECKPOINTS = 12  # rows of a table below the results


@contextmanager
def ended_in_order() -> Iterator[None]:
    """Report broken plugins; let SIGTERM end the body as Ctrl-C does, and print how to resume an interrupted run."""
    from zoo.registry import load_registry
    from zoo_harness.util.signals import Terminated, raise_on_sigterm

    warn_of(load_registry().problems)
    try:
        with raise_on_sigterm():
            yield
    except KeyboardInterrupt as error:
        if Processes.launched().is_main:
            tell(*getattr(error, "__notes__", ()))
        if isinstance(error, Terminated):
            raise typer.Exit(error.exit_code) from error
        raise


def display_for(*, quiet: bool) -> ProgressDisplay:
    """Return a display of progress; of several processes only the first one shows it."""
    from zoo_harness.runs.display import ProgressDisplay

    return ProgressDisplay(quiet=quiet or not Processes.launched().is_main)


def print_run(run: Run, *, as_json: bool, quiet: bool) -> None:
    """Print the results of a run and the paths of its files; of several processes only the first one prints."""
    if not Processes.launched().is_main:
        return
    record, directory = run.record, run.directory
    if as_json:
        print_lines(record.to_json().rstrip())
        return
    if not quiet:
        _print_accuracy(record)
        print_lines("")
        _print_separation(record)
        curve = record.results.layer_curve
        if curve is not None:
            best = curve.best
            words = record.settings.separation.in_words()
            settings = f" ({words})" if words else ""
            print_lines(
                "", f"layer with the highest SI after training: {best.path}, {_fraction(best.separation.si)}{settings}"
            )
        print_checkpoints(record, _MOST_CHECKPOINTS)
        print_lines("")
    from zoo_harness.reports.accuracy_tables import seconds_in_words

    seconds = seconds_in_words(record)
    print_lines(
        *([f"seconds     {seconds}"] if seconds and not quiet else []),
        f"checkpoint  {directory / 'model.safetensors'}{_epoch(record)}",
        f"card        {directory / 'README.md'}",
        *(f"{name:<11} {directory / log}" for name, log in _LOGS.items() if (directory / log).exists()),
        f"plots       {', '.join(str(directory / name) for name in record.plots)}",
    )


def print_checkpoints(record: RunRecord, most: int | None = None) -> None:
    """Print accuracy and SI of the checkpoints of other epochs, and the disk that they take; nothing without any."""
    from zoo_harness.reports.checkpoint_table import checkpoint_rows, scored_splits
    from zoo_harness.util.byte_sizes import bytes_in_words

    shown, left_out = checkpoint_rows(record, most), ""
    if not shown:
        return
    if len(shown) < len(record.checkpoints):
        left_out = "; the table shows the latest, zoo show RUN prints all"
    rows = [[str(row.epoch), row.name, _percent(row.scores[0][0]), _fraction(row.scores[0][1])] for row in shown]
    split = scored_splits(record)[0]
    print_lines("")
    print_table(["epoch", "weights", f"{split} accuracy", f"{split} SI"], rows, right=["epoch"])
    disk = bytes_in_words(sum(kept.bytes for kept in record.checkpoints))
    print_lines(f"checkpoints/ has {len(record.checkpoints):,} files, {disk}{left_out}")


def _epoch(record: RunRecord) -> str:
    if not record.results.epochs_done or record.main_epoch is None:
        return ""
    last = record.main_epoch == record.results.epochs_done
    which = "best" if not last else "best and the last" if record.keeps_best else "last"
    return f" (epoch {record.main_epoch}, the {which})"


def _print_accuracy(record: RunRecord) -> None:
    from zoo_harness.reports.accuracy_tables import accuracy_rows

    rows = [
        [name, _percent(accuracy), f"{accuracy.n:,}" if accuracy else "-"] for name, accuracy in accuracy_rows(record)
    ]
    print_table(["measure", "value", "images"], rows, right=["value", "images"])


def _print_separation(record: RunRecord) -> None:
    from zoo_harness.reports.accuracy_tables import accuracy_notes
    from zoo_harness.reports.separation_tables import (
        pixels_in_words,
        score_definitions,
        scored_layer,
        separation_notes,
        separation_tables,
    )
    from zoo_harness.separation.scores import SCORES

    columns = ["split", "features", *(each.heading for each in SCORES)]
    rows = []
    settings = record.settings.separation
    if settings.in_words():
        print_lines(f"separation: {settings.in_words()}")
    for title, _images, split in separation_tables(record):
        for index, row in enumerate(split):
            first, *others = row.scores
            cells = [_fraction(first), *(f"{score.value:.4f}" if score else "-" for score in others)]
            rows.append(["" if index else title.removesuffix(" split").lower(), row.name, *cells])
    print_table(columns, rows, right=columns[2:])
    notes = [
        f"before and after training: outputs of layer {scored_layer(record)}",
        f"raw pixels: images {pixels_in_words(record)}",
        *(f"{title}: {definition}" for title, definition in score_definitions(settings.order)),
        "± is one standard error, of SI by bootstrap; the card has all errors.",
        *separation_notes(record),
        *accuracy_notes(record),
    ]
    print_lines("", *(line for note in notes for line in textwrap.wrap(note, _WIDTH, subsequent_indent="  ")))


def _percent(measurement: Measurement | None) -> str:
    if measurement is None:
        return "-"
    return f"{100 * measurement.value:.2f} ± {100 * measurement.standard_error:.2f} %"


def _fraction(score: ScoreMeasurement | None) -> str:
    return f"{score.value:.4f} ± {score.bootstrap_error:.4f}" if score else "-"
