"""``zoo eval REPO|RUN --epochs 0``: score a checkpoint again, and report which of its figures were reproduced."""

from __future__ import annotations

from collections import Counter
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
    """Score a checkpoint with the settings of its record; exit with status 1 if a figure is not reproduced."""
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
        raise UsageError(
            f"{name!r} is a checkpoint, not a backbone: --epochs 0 scores it again, as it is; to train on from its "
            "weights, zoo eval BACKBONE --weights FOLDER/model.safetensors (zoo pull --to FOLDER fetches it)",
            code="checkpoint-needs-epochs-0",
        )
    others = sorted(given.keys() - declared(RescoreOptions).keys() - {"epochs"})
    if others:
        spelled = ", ".join(declared(EvalOptions)[other][1].spelling(other) for other in others)
        message = f"{spelled}: {name!r} is a checkpoint and is scored as it is; leave that out"
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
    """Return how many figures have which verdict."""
    counts = Counter(each.verdict for each in found.figures)
    if [*counts] == ["reproduced"]:
        return f"all {len(found.figures)} figures are reproduced"
    return f"{len(found.figures)} figures: " + ", ".join(f"{count} {verdict}" for verdict, count in counts.items())


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
    lines = [f"SI: outputs of layer {scored}. ± is one standard error, of SI by bootstrap."]
    if found.device != found.recorded_device or found.precision != found.recorded_precision:
        lines.append(
            f"recorded on {found.recorded_device} in {found.recorded_precision}, here on {found.device} in "
            f"{found.precision}: rounding differences can change the predictions of a few images."
        )
    if found.recorded_separation != found.separation:
        recorded = found.recorded_separation.in_words() or "default settings of SI"
        lines.append(f"The record has other settings of SI ({recorded}): only scores with equal settings are compared.")
    if not all(found.same_data.values()):
        lines.append(
            "The images are not those of the record (their fingerprint differs): a figure may differ although the "
            "checkpoint is the same."
        )
    return lines
