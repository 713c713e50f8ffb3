"""``zoo rank``: estimate, without training, which backbones will classify the images of a dataset best."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Annotated

import typer

from zoo_harness.cli.command import Given, command
from zoo_harness.cli.options import AsJson, Quiet, Verbose, complete_backbone_or_run, complete_dataset
from zoo_harness.cli.output import print_facts, print_json, print_lines, print_narrow_tables, print_notes
from zoo_harness.cli.run_output import display_for, ended_in_order
from zoo_harness.records.options import RankOptions
from zoo_harness.util import durations

if TYPE_CHECKING:
    from zoo_harness.runs.rank_run import Ranking

Names = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[NAME]...",
        help="Backbones, such as resnet18 or 'timm:vit_*_dinov2*', or folders of runs (default: all backbones whose "
        "weights are on this machine).",
        autocompletion=complete_backbone_or_run,
    ),
]
Dataset = Annotated[
    str | None,
    typer.Option(
        help="Name of a dataset from 'zoo datasets' (default: digits).",
        autocompletion=complete_dataset,
        rich_help_panel="Data",
    ),
]


def _rank(
    names: Names = None,
    dataset: Dataset = None,
    *,
    given: Given,
    verbose: Verbose = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Rank backbones on your training images without training them.

    Each score measures how well the features of a backbone separate the classes. docs/ranking.md defines the scores,
    and --verbose prints a line about each.
    """
    from zoo_harness.api import DEFAULT_RANKED, rank

    with ended_in_order(), display_for(quiet=quiet) as display:
        data = DEFAULT_RANKED if dataset is None else dataset
        found = rank(data, names or [], progress=display, **given)
    if as_json:
        print_json(found.to_dict())
    else:
        _print_ranking(found, verbose=verbose)
    if found.record.failures:
        raise typer.Exit(1)


rank_command = command(RankOptions, _rank)


def _print_ranking(found: Ranking, *, verbose: bool) -> None:
    from zoo_harness.records.rank import PLOT, RANK

    record = found.record
    first = next(score for score in found.scores if score.key == record.sort)
    rounds = f", in rounds of {', '.join(f'{count:,}' for count in record.rounds)}" if len(record.rounds) > 1 else ""
    size = "" if record.input_size is None else ", input {} x {} pixels".format(*record.input_size)
    images = f"{record.images_seen:,} training images, {len(record.classes)} classes"
    random = ", random weights" if _weights_are_random(found) else ""
    print_lines("")
    print_notes(f"{record.title}: {images}{size}{random}{rounds}")
    print_lines("")
    columns = ["backbone", "tier", first.heading, "±", "behind", "size, M", "top-1"]
    differences = found.differences()
    rows = [
        [
            row.name,
            "dropped" if row.dropped else str(row.tier),
            f"{row.scores[first.key].value:.4f}",
            f"{differences[row.name].own_error:.4f}",
            differences[row.name].in_words,
            f"{row.parameters / 1e6:.1f}" if row.parameters else "-",
            "-" if row.imagenet_top1 is None else f"{row.imagenet_top1:.2f}",
        ]
        for row in found.rows
    ]
    if all(row.imagenet_top1 is None for row in found.rows):
        columns, rows = columns[:-1], [row[:-1] for row in rows]
    if verbose:
        columns = [*columns[:5], "p", *columns[5:]]
        rows = [[*row[:5], _p(differences[row[0]].adjusted_p), *row[5:]] for row in rows]
    main, others = len(columns) - 1, [score for score in found.scores if score.key != record.sort]
    columns += [score.heading for score in others]
    scores = zip(*(_column(found, score.key) for score in others), strict=True) if others else [()] * len(rows)
    cells = [[*row, *more] for row, more in zip(rows, scores, strict=True)]
    print_narrow_tables(columns, cells, [main])
    if record.accuracies:
        _print_accuracies(found)
    print_lines("")
    print_notes(*_notes(found, verbose=verbose))
    print_lines("")
    print_facts([("folder", str(found.directory)), ("files", f"{RANK}, {PLOT}"), *_next_step(found)])


def _p(value: float | None) -> str:
    return "-" if value is None else f"{value:.2g}"


def _next_step(found: Ranking) -> list[tuple[str, str]]:
    """Return the command that shows the best fine-tuned run, or the command that fine-tunes the best backbone.

    Return an empty list if every row is a control or a run.
    """
    accuracies = [each for each in found.record.accuracies if each.tuned]
    if accuracies:
        best_tuned = max(accuracies, key=lambda each: each.accuracy)
        return [("next", f"zoo show {shlex.quote(str(found.tuned_folder(best_tuned.name)))}")]
    best = next((row for row in found.rows if not row.control and row.weights and row.weights.kind != "run"), None)
    if best is None or best.weights is None:
        return []
    weights = " --weights random" if best.weights.kind == "random" else ""
    return [("next", f"zoo eval {best.name} --dataset {shlex.quote(found.record.dataset)}{weights}")]


def _weights_are_random(found: Ranking) -> bool:
    networks = [row.weights for row in found.rows if row.weights is not None and not row.control]
    return bool(networks) and all(weights.kind == "random" for weights in networks)


def _print_accuracies(found: Ranking) -> None:
    """Print a table of scores and accuracies after training, and a table of how well each score predicted accuracy."""
    from zoo_harness.records.rank import TOP_1

    record = found.record
    first = next(score for score in found.scores if score.key == record.sort)
    rows = {row.name: row for row in found.rows}
    best = max(each.accuracy for each in record.accuracies)
    columns = ["backbone", first.heading, "accuracy, %", "behind, points", "time"]
    cells = [
        [
            each.name,
            f"{rows[each.name].scores[first.key].value:.4f}",
            f"{100 * each.accuracy:.2f} ± {100 * each.standard_error:.2f}",
            "-" if each.accuracy == best else f"{100 * (best - each.accuracy):.2f}",
            "-" if each.seconds is None else durations.in_words(each.seconds),
        ]
        for each in record.accuracies
    ]
    print_lines("")
    print_narrow_tables(columns, cells)
    headings = {score.key: score.heading for score in found.scores} | {TOP_1: "ImageNet top-1"}
    columns = ["score", "n", "weighted tau", "Kendall", "p", "regret@1", "regret@3"]
    cells = [
        [
            headings[each.score],
            str(each.n),
            *("-" if value is None else f"{value:.2f}" for value in (each.weighted_tau, each.kendall)),
            "-" if each.p is None else f"{each.p:.2g}",
            *(f"{100 * value:.2f}" for value in (each.regret_1, each.regret_3)),
        ]
        for each in record.foresight
    ]
    if cells and all(each.p is None for each in record.foresight):
        columns, cells = ["score", "n", "regret@1"], [[*row[:2], row[5]] for row in cells]
    if cells:
        print_lines("")
        print_narrow_tables(columns, cells)


def _column(found: Ranking, key: str) -> list[str]:
    """Format the values of a score with equal decimals, so that the largest value has about four digits."""
    values = [row.scores[key].value for row in found.rows]
    most = max((abs(value) for value in values if value is not None), default=0.0)
    decimals = max(4 - len(f"{int(most)}"), 0) if most >= 1 else 4
    return ["-" if value is None else f"{value:.{decimals}f}" for value in values]


def _notes(found: Ranking, *, verbose: bool) -> list[str]:
    from zoo_harness.runs.rank_run import trained_warning

    record = found.record
    test = "a paired test on the same images (McNemar, mid-p, Holm, 5 %)" if verbose else "a paired test"
    has_top_1 = any(row.imagenet_top1 is not None for row in found.rows)
    notes = [
        f"tier 1: the best backbone, and the backbones that {test} cannot distinguish from the best. tier 2: "
        "the best of the remaining backbones, and those that the test cannot distinguish from it. behind: "
        "difference from the best, with its standard error. size: millions of parameters."
        + (" top-1: accuracy on ImageNet in %, as published." if has_top_1 else "")
        + (" p: of the test against the best, corrected by Holm's method." if verbose else "")
        + ("" if verbose else " --verbose explains the scores."),
    ]
    if verbose:
        notes += [f"{score.heading}: {score.explanation}." for score in found.scores]
    blank: dict[str, dict[str, list[str]]] = {}  # reason -> backbone -> headings of the missing scores
    headings = {score.key: score.heading for score in found.scores}
    for row in found.rows:
        for key, score in row.scores.items():
            if score.reason:
                blank.setdefault(score.reason, {}).setdefault(row.name, []).append(headings[key])
    for reason, by_name in blank.items():
        keys = sorted({key for several in by_name.values() for key in several})
        more = f" and {len(by_name) - 3} more" if len(by_name) > 3 else ""
        notes.append(f"{', '.join(keys)} cannot be computed for {', '.join([*by_name][:3])}{more}: {reason}.")
    notes += [
        f"{row.name} was dropped after {row.dropped.images:,} images: {row.dropped.against} alone was right on "
        f"{row.dropped.first_only} images, {row.name} alone on {row.dropped.second_only} (p {row.dropped.p:.2g})."
        for row in found.rows
        if row.dropped
    ]
    notes += [f"{trained_warning(row.name)}." for row in found.rows if row.trained_on_dataset]
    notes += _accuracy_notes(found)
    if record.stopped:
        notes.append(f"Stopped early: {record.stopped}.")
    notes += [f"{failure.name} failed and is not ranked: {failure.message}" for failure in record.failures]
    return notes


def _accuracy_notes(found: Ranking) -> list[str]:
    from zoo_harness.records.rank import TOP_1

    record = found.record
    if not record.accuracies:
        return []
    splits = {(each.split, each.fingerprint) for each in record.accuracies}
    names = ", ".join(sorted({split for split, _fingerprint in splits}))
    notes = [f"Accuracies are measured on: {names}. ± is one standard error over the images."]
    if len(splits) > 1:
        notes.append("The accuracies were measured on different images, so they do not compare the backbones fairly.")
    if record.foresight:
        regret_3 = "regret@3: the same for the most accurate of the three backbones with the best scores."
        regret_3 = "" if all(each.p is None for each in record.foresight) else f" {regret_3}"
        notes.append(
            "regret@1: percentage points of accuracy that you lose by choosing the backbone with the best score."
            + regret_3
        )
    headings = {score.key: score.heading for score in found.scores} | {TOP_1: "ImageNet top-1"}
    chance = [headings[each.score] for each in record.foresight if each.p is not None and each.below_chance_level]
    if chance:
        notes.append(
            f"Not better than chance (p > 0.05: over one in twenty random orders does as well): {', '.join(chance)}."
        )
    if reasons := {each.reason for each in record.foresight if each.reason}:
        notes.append(f"No correlation: {'; '.join(sorted(reasons))}.")
    return notes + [f"{line}." for line in record.left_out_runs]
