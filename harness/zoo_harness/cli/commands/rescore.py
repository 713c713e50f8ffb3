"""``zoo eval REPO|RUN --epochs 0``: score a checkpoint again, and report which recorded results were reproduced."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from zoo_harness.cli.command import Given
from zoo_harness.cli.output import print_facts, print_lines, print_notes, print_table
from zoo_harness.cli.run_output import display_for, ended_in_order
from zoo_harness.records.option import declared
from zoo_harness.records.options import EvalOptions, RescoreOptions

_HEADLINES = ("accuracy", "SI")

if TYPE_CHECKING:
    from zoo_harness.records.run import Measurement
    from zoo_harness.runs.rescore import Figure, RescoreRecord


def rescore_checkpoint(
    name: str, dataset: str | None, given: Given, *, as_json: bool, quiet: bool, verbose: bool = False
) -> None:
    """Score a checkpoint with its recorded settings; exit with status 1 if a recorded result is not reproduced."""
    options = _options_for(name, given)

    from zoo_harness.api import rescore

    with ended_in_order(), display_for(quiet=quiet or as_json) as display:
        found = rescore(name, dataset, progress=display, **options)
    _report(found, options, as_json=as_json, quiet=quiet, verbose=verbose)
    if not found.reproduced:
        raise typer.Exit(1)


def _options_for(name: str, given: Given) -> dict[str, Any]:
    from zoo.errors import UsageError

    if given.get("epochs") != 0:
        fetch, weights = ("", name) if Path(name).exists() else (f"zoo pull {name} --to FOLDER and then ", "FOLDER")
        raise UsageError(
            f"missing --epochs 0: {name!r} is a checkpoint, not a backbone; to score it again, add --epochs 0; to "
            f"train from its weights, try {fetch}zoo eval BACKBONE --weights {weights}",
            code="checkpoint-needs-epochs-0",
        )
    others = sorted(given.keys() - declared(RescoreOptions).keys() - {"epochs"})
    if others:
        spelled = ", ".join(declared(EvalOptions)[other][1].spelling(other) for other in others)
        message = (
            f"{spelled} cannot be used: checkpoint {name!r} is scored with its recorded settings; remove {spelled}"
        )
        raise UsageError(message, code="option-unused", options=others)
    return {option: value for option, value in given.items() if option != "epochs"}


def _report(found: RescoreRecord, options: Given, *, as_json: bool, quiet: bool, verbose: bool) -> None:
    if as_json:
        print_lines(found.to_json().rstrip())
        return
    from zoo_harness.runs.rescore import RESCORE

    shown = [each for each in found.figures if verbose or each.name in _HEADLINES or each.verdict != "reproduced"]
    rows = [
        [each.split_name or each.split, each.name, _shown(each.recorded), _shown(each.found), _verdict(each)]
        for each in shown
    ]
    print_table(["split", "figure", "recorded", "here", "verdict"], rows, right=["recorded", "here"])
    if not quiet:
        print_lines("", _count(found), "")
        print_notes(*_notes(found))
    if options.get("out") is not None:
        print_facts([("record", str(options["out"] / RESCORE))])


def _count(found: RescoreRecord) -> str:
    """Say how many results were reproduced, and how many have each other verdict."""
    counts = Counter(each.verdict for each in found.figures)
    if [*counts] == ["reproduced"]:
        return f"all {len(found.figures)} results are reproduced"
    return f"{len(found.figures)} results: " + ", ".join(f"{count} {verdict}" for verdict, count in counts.items())


def _shown(measurement: Measurement | None) -> str:
    from zoo_harness.runs.rescore import error_of

    return f"{measurement.value:.4f} ± {error_of(measurement):.4f}" if measurement else "-"


def _verdict(figure: Figure) -> str:
    apart = "" if figure.errors_apart is None else f"{figure.errors_apart:+.1f} standard errors"
    if figure.verdict == "not comparable":
        return f"not comparable: other images{apart and ', ' + apart}"
    if not figure.images_apart or figure.recorded is None:
        return figure.verdict
    more = "more" if figure.found.value > figure.recorded.value else "fewer"
    count = f"{figure.images_apart:g} of {figure.found.n:,} images {more}"
    return f"{figure.verdict}: {count}{', ' + apart if figure.verdict == 'not reproduced' and apart else ''}"


def _notes(found: RescoreRecord) -> list[str]:
    settings = found.separation.in_words()
    scored = f"{found.layer}{f'; {settings}' if settings else ''}"
    lines = [f"SI is computed from the outputs of layer {scored}. ± is one standard error, for SI by bootstrap."]
    if found.device != found.recorded_device or found.precision != found.recorded_precision:
        lines.append(
            f"The record was made on {found.recorded_device} in {found.recorded_precision}, and these results on "
            f"{found.device} in {found.precision}: rounding differences can change the predictions of a few images."
        )
    if found.recorded_separation != found.separation:
        recorded = found.recorded_separation.in_words() or "default settings of SI"
        lines.append(f"The record has other SI settings ({recorded}). zoo compares only scores with equal settings.")
    if not all(found.same_data.values()):
        lines.append(
            "The images differ from the recorded images (their fingerprints differ), so that results may differ "
            "although the checkpoint is the same."
        )
    return lines
