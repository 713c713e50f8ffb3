"""Prepare tables that compare finished runs, for the terminal and as Markdown, LaTeX and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

from zoo.text import one_line
from zoo_harness.records.comparison import (
    ComparedRow,
    ComparedRun,
    ImageSet,
    LeftOutRun,
    OtherSetting,
    PublishedFigure,
    RowDifference,
)
from zoo_harness.records.run import Record, Results, RunRecord
from zoo_harness.reports import markdown, published_separation as published_si
from zoo_harness.reports.published_results import Published, agrees, differences, published_figures
from zoo_harness.separation.scores import SCORES

SIGNIFICANT = 0.05
Finding = Literal["higher", "lower", "within noise", "mixed"]
_FINDINGS: dict[Finding, str] = {
    "within noise": "NOT distinguishable from {} (within noise)",
    "mixed": "undecided against {}, because images and seeds disagree",
    "lower": "worse than {} by more than chance",
    "higher": "better than {} by more than chance",
}
Table = tuple[list[str], list[list[str]]]
_WIDEST = 24  # the longest name in a cell, in characters
_LISTED = 20  # the largest number of runs that a sentence lists
_COLUMNS = {  # short headings for the terminal, and full headings for documents
    "backbone": "backbone",
    "type": "type",
    "trained": "trained parameters",
    "paper %": "accuracy in the paper, %",
    "accuracy %": "accuracy, %",
    "sd": "sd over seeds",
    "train %": "train accuracy, %",
    "train s": "seconds per epoch, training",
    "eval s": "seconds per epoch, evaluation",
    "recipe": "recipe",
    "dataset": "dataset",
    "split": "split",
    "SI before": "SI before",
    "SI after": "SI after",
    "difference": "difference, %",
    "finding": "finding",
    "p": "p",
    "p Holm": "p, Holm",
    "p seeds": "p over seeds",
    "total s": "total seconds",
    "parameters": "total parameters",
}
_LEFT = ("#", "run", "backbone", "type", "recipe", "dataset", "split", "features", "finding")


class Comparison(Record):
    """A comparison of runs, in the order in which they were given, with tests of their accuracy differences.

    ``rows`` has one row for each run, or for several runs that differ in the seed. ``differences`` has the difference
    of each row from the baseline. The baseline is the row with index ``baseline``, or by default the row with the
    highest accuracy on the same images.
    """

    format: Literal["blockzoo comparison 1"] = "blockzoo comparison 1"
    runs: tuple[ComparedRun, ...]
    left_out: tuple[LeftOutRun, ...] = ()
    images: tuple[ImageSet, ...] = ()
    rows: tuple[ComparedRow, ...] = ()
    baseline: int | None = None
    differences: tuple[RowDifference, ...] = ()

    @property
    def conclusions(self) -> tuple[str, ...]:
        """Sentences that name the rows that differ from the baseline by more than chance, and the remaining rows."""
        return tuple(conclusions(self))

    def to_json(self) -> str:
        """Return the whole comparison as indented JSON that ends in a newline."""
        return self.model_dump_json(indent=2) + "\n"

    def to_markdown(self) -> str:
        """Return the rows and published results as a Markdown table, followed by a table of the published SI values."""
        return "\n".join(map(_markdown, _documents(self)))

    def to_latex(self) -> str:
        """Return the rows and published results as a LaTeX ``tabular``; published SI values form a second one.

        The text needs no LaTeX package.
        """
        return "\n".join(map(_tabular, _documents(self)))

    def to_csv(self) -> str:
        """Return the rows as comma-separated values, with unrounded numbers and accuracies in [0, 1].

        Each published result has its own row.
        """
        return _csv(self)


def compared_run(run: str, record: RunRecord, *, published: bool) -> ComparedRun:
    """Collect the metrics of a finished run for a comparison; ``run`` is the name that tables show."""
    results, (accuracy, split) = record.results, record.headline
    of_test = split is record.dataset.test
    before, after = (
        found and getattr(found, "test" if of_test else "evaluation")
        for found in (results.separation_before, results.separation_after)
    )
    figures = published_figures(record.backbone.name, record.dataset.name) if published else ()
    return ComparedRun(
        run=run,
        backbone=record.backbone.name,
        type=next((figure.row.type for figure in figures if figure.row.type), None),
        recipe=record.settings.recipe,
        dataset=record.dataset.title,
        subset=record.dataset.subset,
        split=split.split,
        seed=record.settings.seed,
        epochs=results.epochs_done,
        trained_parameters=record.parameters.trained,
        total_parameters=record.parameters.total,
        accuracy=accuracy,
        train_accuracy=results.train_accuracy,
        layer=results.separation_after.layer if results.separation_after else None,
        separation=record.settings.separation,
        si_before=before.si if before else None,
        si_after=after.si if after else None,
        train_seconds_per_epoch=results.mean_train_seconds,
        evaluation_seconds_per_epoch=results.mean_evaluation_seconds,
        total_seconds=results.total_seconds,
        **_frozen_part(results),
        fingerprint=split.fingerprint,
        published=tuple(_published(record, figure) for figure in figures if agrees(record, figure)),
        published_otherwise=tuple(_otherwise(record, figure) for figure in figures if not agrees(record, figure)),
        published_separation=tuple(published_si.scores_of_run(record)) if published else (),
    )


def _published(record: RunRecord, figure: Published) -> PublishedFigure:
    row = figure.row
    return PublishedFigure(
        source=figure.table.source,
        recipe=figure.recipe,
        accuracy_percent=row.accuracy,
        train_accuracy_percent=row.train_accuracy,
        trained_parameters=row.trainable_parameters,
        train_seconds_per_epoch=row.train_seconds_per_epoch,
        evaluation_seconds_per_epoch=row.val_seconds_per_epoch,
        differences=tuple(differences(record, figure)),
    )


def _otherwise(record: RunRecord, figure: Published) -> OtherSetting:
    clauses = differences(record, figure)
    if (record.dataset.test is not None) != (figure.row.test_accuracy is not None):
        clauses.append(f"its accuracy is of the {figure.row.measured_on} split")
    return OtherSetting(
        source=figure.table.source,
        recipe=figure.recipe,
        accuracy_percent=figure.row.accuracy,
        differences=tuple(dict.fromkeys(clauses)),
    )


def tables(found: Comparison, width: int) -> Iterator[Table]:
    """Yield the table in parts that fit ``width`` columns of a terminal; each part repeats the row numbers."""
    columns, rows = _cells(found)
    widths = [max(len(row[place]) for row in [columns, *rows]) for place in range(len(columns))]
    part: list[int] = []
    for place in range(1, len(columns)):
        if part and sum(widths[each] + 2 for each in [*part, place]) + widths[0] > width:
            yield _part(columns, rows, part)
            part = []
        part.append(place)
    yield _part(columns, rows, part)
    if scores := _published_scores(found):
        yield ["#", "features", "split", *(each.heading for each in SCORES)], scores


def _published_scores(found: Comparison) -> list[list[str]]:
    """Return a table of our Separation Index scores; below each stand the published scores with the same settings."""
    rows, seen = [], set()
    for number, row in enumerate(found.rows, 1):
        for each in found.runs[row.runs[0]].published_separation:
            key = (each.features, each.split, *each.ours.values())  # runs on the same images share the raw pixels
            if not each.agrees or (each.features == published_si.RAW_PIXELS and key in seen):
                continue
            seen.add(key)
            ours, theirs = (_values(values) for values in (each.ours, each.published))
            rows.append([str(number), each.features, each.split, f"{ours[0]} ± {each.si_error:.4f}", *ours[1:]])
            rows.append([f"{number} p", "published", each.split, *theirs])
    return rows


def _part(columns: list[str], rows: list[list[str]], part: list[int]) -> Table:
    shown = [[row[0], *(row[place] for place in part)] for row in rows]
    return [columns[0], *(columns[place] for place in part)], [row for row in shown if any(row[1:])]


def aligned_right(columns: Sequence[str]) -> list[str]:
    """Return the columns that contain numbers, which tables align to the right."""
    return [column for column in columns if column not in _LEFT]


def _cells(found: Comparison) -> Table:
    """Return the column names and the rows; the row ``1 p`` has the published result of run 1."""
    tested = {each.row: each for each in found.differences}
    baselines = {each.baseline for each in found.differences}
    rows = []
    for place, row in enumerate(found.rows):
        first = found.runs[row.runs[0]]
        rows.append([str(place + 1), *_row(row, first, tested.get(place), is_baseline=place in baselines)])
        rows += [[f"{place + 1} p", *_published_row(figure)] for figure in first.published]
    columns = ["#", *_COLUMNS]
    filled = [place for place in range(len(columns)) if place == 0 or any(row[place] not in ("", "-") for row in rows)]
    return [columns[place] for place in filled], [[row[place] for place in filled] for row in rows]


def _row(row: ComparedRow, run: ComparedRun, tested: RowDifference | None, *, is_baseline: bool) -> list[str]:
    error = "" if row.accuracy_error is None else f" ± {100 * row.accuracy_error:.2f}"
    return [
        _short(run.backbone),
        run.type or "-",
        f"{run.trained_parameters:,}",
        _in_the_paper(run),
        "-" if row.accuracy is None else f"{100 * row.accuracy:.2f}{error}",
        _percent(row.accuracy_sd),
        _percent(row.train_accuracy),
        _seconds(row.train_seconds_per_epoch),
        _seconds(row.evaluation_seconds_per_epoch),
        _short(run.recipe),
        _short(run.dataset),
        _short(run.split),
        _value(row.si_before),
        _value(row.si_after),
        *(_difference(tested) if tested else ["baseline" if is_baseline else "-", *["-"] * 4]),
        "-" if row.total_seconds is None else f"{row.total_seconds:,.0f}",
        f"{run.total_parameters:,}",
    ]


def _in_the_paper(run: ComparedRun) -> str:
    """Return the accuracy that the paper states; a star marks an accuracy whose settings differ from the run's."""
    found = [f"{each.accuracy_percent:.2f}" for each in run.published if each.recipe == "paper"]
    found += [f"{each.accuracy_percent:.2f} *" for each in run.published_otherwise if each.recipe == "paper"]
    return found[0] if found else "-"


def _difference(tested: RowDifference) -> list[str]:
    return [
        f"{100 * tested.difference:+.2f} ± {100 * tested.standard_error:.2f}",
        finding(tested),
        _p(tested.p),
        _p(tested.p_holm) if tested.pairs > 1 else "-",
        "-" if tested.p_seeds is None else _p(tested.p_seeds),
    ]


def finding(tested: RowDifference) -> Finding:
    """Return what the tests find: ``mixed`` if the test over images and the test over seeds disagree."""
    images = tested.p_holm < SIGNIFICANT
    seeds = images if tested.p_seeds is None else tested.p_seeds < SIGNIFICANT
    if images != seeds:
        return "mixed"
    return ("higher" if tested.difference > 0 else "lower") if images else "within noise"


def conclusions(found: Comparison) -> Iterator[str]:
    """Yield sentences that name the rows that differ from a baseline by more than chance, and the remaining rows."""
    for baseline in dict.fromkeys(each.baseline for each in found.differences):
        tested = [each for each in found.differences if each.baseline == baseline]
        if len(tested) == 1:
            yield _conclusion(found, tested[0])
            continue
        rows = {kind: [each.row + 1 for each in tested if finding(each) == kind] for kind in _FINDINGS}
        named = [(words.format(baseline + 1), rows[kind]) for kind, words in _FINDINGS.items() if rows[kind]]
        yield f"Conclusion: {'; '.join(f'{words}: {_numbers(numbers)}' for words, numbers in named)}."


def _conclusion(found: Comparison, tested: RowDifference) -> str:
    """Return the conclusion about two rows; if one row is better, the sentence names this row first."""
    places = tested.row, tested.baseline
    row, other = (f"{place + 1} ({_end_of(name_of(found, found.rows[place]))})" for place in places)
    apart = f"{100 * abs(tested.difference):.2f} ± {100 * tested.standard_error:.2f} points"
    what = finding(tested)
    if what == "within noise":
        return (
            f"Conclusion: {row} and {other} are NOT distinguishable. Their difference of {apart} is within noise "
            f"({_p_of(tested)}): on other images of this kind either may be ahead. Do not choose between them by it."
        )
    if what == "mixed":
        return (
            f"Conclusion: undecided between {row} and {other}, {apart} apart. Over images {_p_of(tested)}, over seeds "
            f"p = {_p(tested.p_seeds or 0)}: one of the two tests does not exclude chance. Run more seeds."
        )
    better, worse = (row, other) if tested.difference > 0 else (other, row)
    seeds = "" if tested.p_seeds is not None else " Another seed may change this; three seeds of each would test it."
    return f"Conclusion: {better} is better than {worse} by {apart}, more than chance ({_p_of(tested)}).{seeds}"


def _p_of(tested: RowDifference) -> str:
    shown = _p(tested.p_holm)
    return f"p {shown}" if shown.startswith("<") else f"p = {shown}"


def _published_row(figure: PublishedFigure) -> list[str]:
    train = figure.train_accuracy_percent
    shown = [
        *("published", "", f"{figure.trained_parameters:,}", "", f"{figure.accuracy_percent:.2f}", ""),
        "-" if train is None else f"{train:.2f}",
        _seconds(figure.train_seconds_per_epoch),
        _seconds(figure.evaluation_seconds_per_epoch),
    ]
    return shown + [""] * (len(_COLUMNS) - len(shown))


def _documents(found: Comparison) -> Iterator[Table]:
    """Yield the tables with full column headings, and with run names instead of row numbers."""
    columns, rows = _cells(found)
    names = iter(_sources_and_names(found))
    yield ["run", *(_COLUMNS[column] for column in columns[1:])], [[next(names), *row[1:]] for row in rows]
    if scores := _published_scores(found):
        named = [[name_of(found, found.rows[int(row[0].split()[0]) - 1]), *row[1:]] for row in scores]
        yield ["run", "features", "split", *(each.title for each in SCORES)], named


def _markdown(table: Table) -> str:
    columns, rows = table
    rule = ["---" if column in _LEFT else "---:" for column in columns]
    lines = [columns, rule, *([str(markdown.text(cell)) for cell in row] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _tabular(table: Table) -> str:
    columns, rows = table
    kinds = "".join("l" if column in _LEFT else "r" for column in columns)
    head, *lines = [" & ".join(map(_latex, row)) + r" \\" for row in [columns, *rows]]
    parts = [rf"\begin{{tabular}}{{{kinds}}}", r"\hline", head, r"\hline", *lines, r"\hline", r"\end{tabular}"]
    return "\n".join(parts) + "\n"


def _sources_and_names(found: Comparison) -> Iterator[str]:
    for row in found.rows:
        yield name_of(found, row)
        yield from (f"published: {figure.source}" for figure in found.runs[row.runs[0]].published)


def name_of(found: Comparison, row: ComparedRow) -> str:
    """Return the name of a row's run; for several runs, return the common start of their names, and their number."""
    names = [found.runs[place].run for place in row.runs]
    same = 0
    while same < min(map(len, names)) and len({name[same] for name in names}) == 1:
        same += 1
    return one_line(names[0] if len(names) == 1 else f"{names[0][:same]}* ({len(names)} runs)")


def notes(found: Comparison) -> Iterator[str]:
    """Yield sentences that explain the tables: the settings of each row, the columns, the tests, and the sources."""
    told: set[str] = set()
    for number, row in enumerate(found.rows, 1):
        yield from _about(found, number, row, told)
    yield (
        "accuracy: on the row's split, ± one standard error over its images; train %: accuracy on the training split; "
        "trained: number of trained parameters; s: mean seconds per epoch. SI: on the row's split, before and after "
        "training."
    )
    if any(_in_the_paper(run).endswith("*") for run in found.runs):
        yield "paper %: accuracy in Malpure et al. (2021); * in another setting, whose differences the notes list."
    if any(row.accuracy_sd is not None for row in found.rows):
        yield "sd: standard deviation of the accuracy over seeds, in %; all other values of a row with sd are means."
    if found.differences:
        yield from _about_tests(found)
    yield from _other_images(found)
    if any(run.published_separation for run in found.runs):
        yield published_si.GENERAL
    if len({(run.separation.metric, run.separation.normalize) for run in found.runs}) > 1:
        yield "SI values are not comparable between runs that use different distances or scaling."


def _frozen_part(results: Results) -> dict[str, Any]:
    """If the epochs used cached outputs, return the seconds that the frozen part ran and the number of its images."""
    part = results.frozen_part
    if part is None or part.reason is not None:
        return {}
    return {"frozen_part_seconds": part.seconds, "frozen_part_computed": part.computed or 0}


def _cached_outputs(computed: int, seconds: float) -> str:
    """Describe the time of the frozen part, which the seconds per epoch do not include.

    >>> _cached_outputs(0, 0.2)
    'the seconds per epoch do not include the frozen part, whose outputs an earlier run had cached.'
    """
    left_out = "the seconds per epoch do not include the frozen part, "
    if not computed:
        return f"{left_out}whose outputs an earlier run had cached."
    return f"{left_out}which ran once over {computed:,} images in {seconds:.1f} s."


def _about(found: Comparison, number: int, row: ComparedRow, told: set[str]) -> Iterator[str]:
    """Yield notes on a row: its settings, and its differences from published results; skip the notes in ``told``."""
    run = found.runs[row.runs[0]]
    scored = run.separation.in_words()
    seeds = f"seed{'s' * (len(row.seeds) > 1)} {', '.join(map(str, row.seeds))}"
    seed = "" if len(row.seeds) == 1 and "seed" in run.subset else f", {seeds}"
    subset = run.subset if len(row.seeds) == 1 else run.subset.replace(f", seed {run.seed}", "")
    settings = "".join(f", {name} {one_line(value)}" for name, value in run.settings.items())
    commit = "" if run.commit is None or len(row.runs) > 1 else f" (commit {one_line(run.commit)[:12]})"
    yield (
        f"{number}: {name_of(found, row)}{commit}: epochs {run.epochs}{settings}; {subset}{seed}"
        f"{f'; SI with {scored}' if scored else ''}."
    )
    if len({found.runs[place].images for place in row.runs}) > 1:
        yield f"{number}: its seeds were scored on different images, so sd also contains the choice of the images."
    if run.frozen_part_seconds is not None:
        yield f"{number}: {_cached_outputs(run.frozen_part_computed, run.frozen_part_seconds)}"
    for figure in run.published:
        differs = f"; the run differs: {'; '.join(figure.differences)}" if figure.differences else ""
        yield f"{number}, published: {figure.source}{differs}."
    for other in run.published_otherwise:
        yield (
            f"{number}, published in another setting, {other.accuracy_percent:.2f} %: {other.source}; the run differs: "
            f"{'; '.join(other.differences)}."
        )
    figures: tuple[PublishedFigure | OtherSetting, ...] = (*run.published, *run.published_otherwise)
    above = [clause for figure in figures for clause in figure.differences]
    yield from (f"{number}, {line}" for line in published_si.notes(run.published_separation, above, told))
    for place in row.runs:
        if why := found.runs[place].no_predictions:
            yield f"{number}: {found.runs[place].run} is compared by an unpaired test, which has less power: {why}."


def _about_tests(found: Comparison) -> Iterator[str]:
    yield (
        "difference: accuracy minus the accuracy of the baseline, in %, ± one standard error over the images, which is "
        "paired by image if both runs have predictions."
    )
    if any(each.test == "mcnemar" for each in found.differences):
        several = any(len(row.runs) > 1 for row in found.rows)
        which = "; for a row of several seeds, the run with the lowest seed" if several else ""
        yield (
            f"p: McNemar's test (mid-p) of two checkpoints on the same images{which}. A small p means that the two "
            "checkpoints differ by more than chance on images of this kind. p says nothing about other seeds."
        )
    if any(each.test == "z" for each in found.differences):
        which = _numbers(each.row + 1 for each in found.differences if each.test == "z")
        yield f"p of {which}: z-test of two accuracies as if on different images, because predictions are missing."
    pairs = sorted({each.pairs for each in found.differences})
    counts = " or ".join(f"{count:,}" for count in pairs)
    if pairs[-1] > 1:
        yield f"p Holm: p corrected for the number of pairs of rows on the same images, {counts}."
    if any(each.p_seeds is not None for each in found.differences):
        yield (
            "p seeds: paired t-test over the seeds. A small value means that the settings differ by more than chance "
            "over seeds. p seeds says nothing about other images."
        )
    yield (
        "finding: within noise if p, with Holm's correction, is at least 0.05: then the rows are not distinguishable; "
        "mixed if the tests over images and over seeds disagree."
    )


def _other_images(found: Comparison) -> Iterator[str]:
    """Yield sentences about rows that are not compared with the baseline, because they were scored on other images."""
    if len(found.images) < 2:
        return
    of = 0 if found.baseline is None else found.baseline
    for number, images in enumerate(found.images, 1):
        rows = [place + 1 for place, row in enumerate(found.rows) if row.images == number]
        if not rows or number == found.rows[of].images:
            continue
        apart = "only with each other" if len(rows) > 1 and found.baseline is None else "with no other row"
        what = images.differs or f"the split {images.split} of {images.dataset}, {images.images:,} images"
        yield (
            f"{_numbers(rows)}: images or classes differ from those of row {of + 1}: {what} (fingerprint "
            f"{images.fingerprint[:8]}); compared {apart}."
        )


def _numbers(rows: Iterable[int]) -> str:
    listed = [*map(str, rows)]
    return ", ".join(listed[:_LISTED]) + (f" and {len(listed) - _LISTED:,} more" if len(listed) > _LISTED else "")


_CSV_OF = {published_si.BEFORE: "si_before", published_si.AFTER: "si_after"}


def _csv(found: Comparison) -> str:
    text = io.StringIO()
    columns = [
        "run", "backbone", "recipe", "settings", "dataset", "subset", "split", "seeds", "epochs", "trained_parameters",
        "total_parameters", "accuracy", "accuracy_error", "accuracy_sd", "train_accuracy", "layer", "si_settings",
        "si_before", "si_after", "train_seconds_per_epoch", "evaluation_seconds_per_epoch", "total_seconds",
        "fingerprint", "baseline", "difference", "difference_error", "finding", "test", "p", "p_holm", "p_seeds",
        "published_by",
    ]  # fmt: skip
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    tested = {each.row: each for each in found.differences}
    for place, row in enumerate(found.rows):
        run = found.runs[row.runs[0]]
        figures = {name: value for name, value in [*run, *row] if name in columns}
        figures["run"] = ";".join(found.runs[each].run for each in row.runs)
        figures["seeds"] = ";".join(map(str, row.seeds))
        figures["settings"] = "; ".join(f"{name}={value}" for name, value in run.settings.items())
        figures["si_settings"] = run.separation.in_words()
        if each := tested.get(place):
            figures |= {name: getattr(each, name) for name in ("difference", "test", "p", "p_holm", "p_seeds")}
            figures |= {"difference_error": each.standard_error, "baseline": each.tested[1], "finding": finding(each)}
        writer.writerow(figures)
        about = {name: figures[name] for name in ("backbone", "recipe", "dataset", "split", "epochs")}
        for figure in run.published:
            writer.writerow(about | _published_values(figure))
        for scores in run.published_separation:
            if scores.agrees and scores.features in _CSV_OF:
                values = {"split": scores.split, _CSV_OF[scores.features]: scores.published["si"]}
                writer.writerow(about | values | {"published_by": scores.source})
    return text.getvalue()


def _published_values(figure: PublishedFigure) -> dict[str, object]:
    train = figure.train_accuracy_percent
    return {
        "published_by": figure.source,
        "trained_parameters": figure.trained_parameters,
        "accuracy": round(figure.accuracy_percent / 100, 8),
        "train_accuracy": None if train is None else round(train / 100, 8),
        "train_seconds_per_epoch": figure.train_seconds_per_epoch,
        "evaluation_seconds_per_epoch": figure.evaluation_seconds_per_epoch,
    }


_LATEX = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "±": r"$\pm$",
}


def _latex(cell: str) -> str:
    return "".join(_LATEX.get(character, character) for character in one_line(cell))


def _short(text: str) -> str:
    shown = one_line(text)
    return shown if len(shown) <= _WIDEST else f"{shown[: _WIDEST - 3]}..."


def _end_of(name: str) -> str:
    return name if len(name) <= _WIDEST else f"...{name[3 - _WIDEST :]}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}"


def _value(score: float | None) -> str:
    return "-" if score is None else f"{score:.4f}"


def _values(scores: Mapping[str, float]) -> list[str]:
    return [_value(scores.get(each.key)) for each in SCORES]


def _seconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds:.2f}"


def _p(value: float) -> str:
    return "< 0.0001" if value < 0.0001 else f"{value:.4f}"
