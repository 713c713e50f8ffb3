"""Show the progress of a run at the terminal, and print its results."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from zoo_harness.cli.output import print_facts, print_lines, print_notes, print_table, tell, warn_of
from zoo_harness.compute.distributed import Processes
from zoo_harness.records.file_names import STEPS

if TYPE_CHECKING:
    from pathlib import Path

    from zoo_harness.records.run import Measurement, RunRecord, ScoreMeasurement
    from zoo_harness.runs.display import ProgressDisplay
    from zoo_harness.runs.run import Run

_LOGS = (STEPS, "tensorboard")
_MOST_CHECKPOINTS = 12  # rows in the table of checkpoints below the results


@contextmanager
def ended_in_order() -> Iterator[None]:
    """Context manager that warns of broken plugins, and prints how to resume a run that Ctrl-C or SIGTERM interrupts.

    SIGTERM ends the body as Ctrl-C does, but with exit status 143.
    """
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
    """Return a progress display; if there are several processes, only the first process shows progress."""
    from zoo_harness.runs.display import ProgressDisplay

    return ProgressDisplay(quiet=quiet or not Processes.launched().is_main)


def print_run(run: Run, *, as_json: bool, quiet: bool, verbose: bool = False) -> None:
    """Print a summary of a run, and with ``verbose`` all scores; with ``quiet`` print only the run's folder.

    If there are several processes, only the first process prints.
    """
    if not Processes.launched().is_main:
        return
    record, directory = run.record, run.directory
    if as_json:
        print_lines(record.to_json().rstrip())
        return
    if quiet:
        print_lines(str(directory))
        return
    from zoo_harness.reports.accuracy_tables import accuracy_notes, accuracy_rows, detail_rows

    averages = detail_rows(record)
    accuracies = [row for row in accuracy_rows(record) if row not in averages]
    print_lines("")
    print_facts([*_measured(accuracies, record), *_summary(record, directory)])
    if notes := accuracy_notes(record):
        print_lines("")
        print_facts(_measured(averages))
        print_notes(*notes)
    if verbose:
        _print_details(run)


def _measured(
    accuracies: list[tuple[str, Measurement | None]], record: RunRecord | None = None
) -> list[tuple[str, str]]:
    """Return names and formatted values of accuracies, followed by SI if a record is given, aligned as a column."""
    rows = [(name, _percent(value), f"of {value.n:,} images") for name, value in accuracies if value is not None]
    rows += _separation(record) if record is not None else []
    width = max((len(value) for _name, value, _note in rows), default=0)
    return [(name, f"{value:>{width}}  {note}".rstrip()) for name, value, note in rows]


def _separation(record: RunRecord) -> list[tuple[str, str, str]]:
    """Return SI before and after training on the split whose accuracy zoo reports; a test split has only SI after."""
    from zoo_harness.reports.separation_tables import scored_layer, separation_tables

    first, *_others = separation_tables(record)
    found = {row.name: row.scores[0] for row in first.rows}
    rows = [(f"SI {when} training", score) for when in ("before", "after") if (score := found.get(when))]
    if not record.results.epochs_done:
        rows = [("SI", score) for _name, score in rows[-1:]]
    settings = record.settings.separation.in_words()
    where = f"{record.dataset.name_of(record.headline[1])} split, layer {scored_layer(record)}"
    notes = [f"{where}; {settings}" if settings else where, ""]
    return [(name, _fraction(score), note) for (name, score), note in zip(rows, notes, strict=False)]


def _summary(record: RunRecord, directory: Path) -> list[tuple[str, str]]:
    publish = ", zoo publish RUN --to OWNER/NAME" if record.results.epochs_done else ""
    facts = [
        ("trained", _trained(record)),
        ("weights", _epoch(record)),
        ("time", _time(record)),
        ("run", str(directory)),
        ("details", "zoo card RUN"),
        ("next", f"zoo compare RUN OTHER{publish}"),
    ]
    return [(name, value) for name, value in facts if value]


def _trained(record: RunRecord) -> str:
    counts, settings = record.parameters, record.settings
    if not record.results.epochs_done:
        return "nothing, 0 epochs"
    if counts.trained == counts.total:
        return f"all {counts.total:,} parameters"
    head = settings.head
    heads = [part.path for part in getattr(head, "parts", [head])]
    modules = ", ".join(dict.fromkeys([*settings.unfreeze, *heads]))
    return f"{counts.trained:,} of {counts.total:,} parameters: {modules}"


def _time(record: RunRecord) -> str:
    """Describe the total time and the mean time of an epoch; a resumed run has no total time for all its epochs."""
    from zoo_harness.util import durations

    results = record.results
    if results.mean_train_seconds is None or results.mean_evaluation_seconds is None:
        return ""
    train, evaluation = results.mean_train_seconds, results.mean_evaluation_seconds
    total, epoch = results.total_seconds, train + evaluation
    whole = total is not None and total >= epoch * results.epochs_done
    spent = f"{durations.in_words(total)}; " if whole and total is not None else ""
    epochs = "1 epoch" if results.epochs_done == 1 else f"{results.epochs_done:,} epochs"
    return f"{spent}{epochs} of {epoch:,.2f} s ({train:,.2f} training + {evaluation:,.2f} evaluation)"


def _print_details(run: Run) -> None:
    """Print the scores of every split with their definitions, the best layer, the checkpoints and the file names."""
    record = run.record
    print_lines("")
    _print_separation(record)
    curve = record.results.layer_curve
    if curve is not None:
        best = curve.best
        words = record.settings.separation.in_words()
        settings = f" ({words})" if words else ""
        print_lines(
            "",
            f"The layer with the highest SI after training is {best.path}: {_fraction(best.separation.si)}{settings}",
        )
    print_checkpoints(record, _MOST_CHECKPOINTS)
    logs = [log for log in _LOGS if (run.directory / log).exists()]
    print_lines("")
    print_facts([("files", ", ".join(["model.safetensors", "README.md", *logs, *record.plots]))])


def print_checkpoints(record: RunRecord, most: int | None = None) -> None:
    """Print the accuracy, SI and total size of the checkpoints in ``checkpoints/``; print nothing if there are none."""
    from zoo_harness.reports.checkpoint_table import checkpoint_rows, scored_splits
    from zoo_harness.util.byte_sizes import bytes_in_words

    shown, left_out = checkpoint_rows(record, most), ""
    if not shown:
        return
    if len(shown) < len(record.checkpoints):
        left_out = "; the table shows the latest, and zoo show RUN shows all"
    rows = [[str(row.epoch), row.name, _percent(row.scores[0][0]), _fraction(row.scores[0][1])] for row in shown]
    split = scored_splits(record)[0]
    print_lines("")
    print_table(["epoch", "weights", f"{split} accuracy", f"{split} SI"], rows, right=["epoch"])
    disk = bytes_in_words(sum(kept.bytes for kept in record.checkpoints))
    files = f"{len(record.checkpoints):,} file{'s' if len(record.checkpoints) > 1 else ''}"
    print_lines(f"checkpoints/ has {files}, {disk}{left_out}")


def _epoch(record: RunRecord) -> str:
    if not record.results.epochs_done or record.main_epoch is None:
        return ""
    last = record.main_epoch == record.results.epochs_done
    which = "best" if not last else "best and the last" if record.keeps_best else "last"
    return f"of epoch {record.main_epoch:,}, the {which}"


def _print_separation(record: RunRecord) -> None:
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
        f"before and after training: scores of the outputs of layer {scored_layer(record)}",
        f"raw pixels: images {pixels_in_words(record)}",
        *(f"{title}: {definition}" for title, definition in score_definitions(settings.order)),
        "± is one standard error, for SI by bootstrap; the card has the errors of all scores.",
        *separation_notes(record),
    ]
    print_lines("")
    print_notes(*notes)


def _percent(measurement: Measurement | None) -> str:
    if measurement is None:
        return "-"
    return f"{100 * measurement.value:.2f} ± {100 * measurement.standard_error:.2f} %"


def _fraction(score: ScoreMeasurement | None) -> str:
    return f"{score.value:.4f} ± {score.bootstrap_error:.4f}" if score else "-"
