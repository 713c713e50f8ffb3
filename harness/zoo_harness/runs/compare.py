"""Read finished runs for ``zoo.compare``, test their accuracy differences, and list runs that cannot be compared."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

from zoo.backbone import Training
from zoo.errors import UsageError, ZooError
from zoo.text import encodable
from zoo_harness.records.comparison import ComparedRow, ComparedRun, ImageSet, LeftOutRun, RowDifference
from zoo_harness.records.run import DatasetRecord, RunRecord, SplitRecord
from zoo_harness.reports.comparison import Comparison, compared_run
from zoo_harness.runs.found_runs import is_running, run_folders
from zoo_harness.runs.run import Run, open_run

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from zoo_harness.runs.paired_accuracies import PairTests, RowOfHits

FEWEST_SEEDS = 3  # a test over seeds needs at least this many pairs of runs with the same seed
_SHARED: dict[str, Callable[[RunRecord], object]] = {
    "backbone": lambda record: record.backbone.name,
    "recipe": lambda record: record.settings.recipe,
    "dataset": lambda record: record.dataset.title,
    "split": lambda record: record.headline[1].split,
    "epochs": lambda record: record.settings.training.epochs,
}
GROUPINGS = ("settings", "none", *_SHARED)


def compare_runs(
    runs: Sequence[str | Path | Run],
    opening: Callable[[str | Path], Run] = open_run,
    *,
    baseline: str | Path | Run | None = None,
    published: bool = False,
    group_by: str = "settings",
) -> Comparison:
    """Read the records and predictions of runs, make a table of the finished runs, and test accuracy differences.

    A folder that contains runs stands for all of these runs. ``opening`` opens a run by its name. Every row of the
    table is compared with the row of the run ``baseline``, by default with the row of the highest accuracy on the same
    images. ``published`` adds published results of the same backbone and dataset. ``group_by`` selects which runs form
    one row: runs that differ in the seed only (``settings``), each run alone (``none``), or runs that agree in some of
    ``backbone``, ``recipe``, ``dataset``, ``split`` and ``epochs``, separated by commas. Checkpoints are not loaded.
    Raises :class:`~zoo.errors.UsageError` if no run is given, or if the baseline cannot be compared.
    """
    if not runs:
        raise UsageError("nothing to compare: no run is given; give the folders of runs", code="missing-run")
    shared_by = _shared_by(group_by)
    gathered = _Gathered(opening)
    for given in runs:
        gathered.add(given)
    first = None if baseline is None else gathered.place_of(baseline)
    return _Compared(gathered, shared_by, published=published, baseline=first).comparison()


def _shared_by(group_by: str) -> Callable[[RunRecord], object] | None:
    """Return the function that maps a run record to the key of its table row; ``None`` puts each run in its own row."""
    names = [name.strip() for name in group_by.split(",")]
    wrong = [name for name in names if name not in GROUPINGS]
    if wrong or (len(names) > 1 and {"settings", "none"} & {*names}):
        message = f"--group-by is wrong: {group_by!r:.100}; expected settings or none, or some of {', '.join(_SHARED)}"
        raise UsageError(message, code="group-by", option="group_by", given=group_by)
    if names == ["none"]:
        return None
    return _settings if names == ["settings"] else lambda record: tuple(_SHARED[name](record) for name in names)


def _settings(record: RunRecord) -> object:
    """Return a key that is equal for two runs if all their settings except the seed are equal."""
    data, weights, backbone = record.dataset, record.weights, record.backbone
    return (
        *(backbone.name, backbone.network, weights.source, weights.sha256, record.parameters.total),
        *(data.name, data.title, data.classes, data.per_class, data.limit, data.fraction, data.val_fraction),
        *(data.eval_limit, data.eval_fraction, data.test is None),
        repr(record.settings.model_copy(update={"seed": 0})),
    )


def differing_settings(records: Sequence[RunRecord]) -> list[dict[str, str]]:
    """Return for each run the settings in which the runs of its backbone and recipe differ, without seed and epochs."""
    texts = [_setting_texts(record) for record in records]
    values: dict[tuple[str, str, str], set[str]] = {}
    for record, text in zip(records, texts, strict=True):
        for name, value in text.items():
            values.setdefault((record.backbone.name, record.settings.recipe, name), set()).add(value)
    return [
        {name: value for name, value in text.items()
         if len(values[record.backbone.name, record.settings.recipe, name]) > 1}
        for record, text in zip(records, texts, strict=True)
    ]  # fmt: skip


def _setting_texts(record: RunRecord) -> dict[str, str]:
    settings = record.settings
    found: dict[str, object] = {field.name: getattr(settings.training, field.name) for field in fields(Training)}
    found |= {name: getattr(settings, name) for name in ("unfreeze", "normalization", "precision", "frozen_batchnorm")}
    found |= {"input_size": settings.preprocessing.input_size, "weights": record.weights.source}
    del found["epochs"]  # every table names the epochs
    return {
        name: encodable(", ".join(map(str, value)) if isinstance(value, tuple) else str(value))
        for name, value in found.items()
    }


class _Gathered:
    """Collects the runs that can be compared, keyed by resolved folder, and the runs that cannot, with reasons."""

    def __init__(self, opening: Callable[[str | Path], Run]) -> None:
        self._opening = opening
        self.runs: dict[Path, tuple[str, Run]] = {}
        self.left_out: list[LeftOutRun] = []

    def place_of(self, given: str | Path | Run) -> Path:
        """Add a run unless it was added before; return its folder, or raise an error if it cannot be compared."""
        run = given if isinstance(given, Run) else self._opening(given)
        place = run.directory.resolve()
        if place not in self.runs:
            self._add(run, str(given.directory if isinstance(given, Run) else given))
        return place

    def add(self, given: str | Path | Run) -> None:
        """Add a run or all runs in a folder; record the reason for each run that cannot be compared."""
        for each in self._folders(given):
            name = str(each.directory if isinstance(each, Run) else each)
            try:
                self._add(each, name)
            except ZooError as error:
                self.left_out.append(LeftOutRun(run=encodable(name), code=error.code, message=encodable(str(error))))

    def _folders(self, given: str | Path | Run) -> Iterable[str | Path | Run]:
        if isinstance(given, str | Path) and Path(given).is_dir():
            return [*run_folders(Path(given))] or [given]
        return [given]

    def _add(self, given: str | Path | Run, name: str) -> None:
        run = given if isinstance(given, Run) else self._opening(given)
        if run.status != "finished":
            raise _unfinished(run, name)
        place = run.directory.resolve()
        if place in self.runs:
            message = f"{name} is given twice; give it once"
            raise UsageError(message, code="repeated-subject", path=run.directory)
        self.runs[place] = (encodable(name), run)


def _unfinished(run: Run, name: str) -> UsageError:
    epochs = f"{run.record.results.epochs_done} of {run.record.settings.training.epochs} epochs"
    status = "killed" if run.status == "running" and not is_running(run.directory) else run.status
    called = {"killed": "was killed", "failed": "failed", "interrupted": "was interrupted"}.get(status, f"is {status}")
    message = f"{name} {called} after {epochs}; expected a finished run; resume it by its command with --resume {name}"
    return UsageError(message, code="run-not-finished", path=run.directory, status=status)


class _Compared:
    """Groups runs into table rows, and tests the accuracy differences of rows scored on the same images."""

    def __init__(
        self, gathered: _Gathered, shared_by: Callable[[RunRecord], object] | None, *, published: bool, baseline: Any
    ) -> None:
        self._left_out = tuple(gathered.left_out)
        self._baseline = [*gathered.runs].index(baseline) if baseline is not None else None
        self._records = [run.record for _name, run in gathered.runs.values()]
        self._hits: list[NDArray[np.bool_] | None] = []
        images: dict[object, int] = {}
        self._images: list[ImageSet] = []
        of_first = next((record.headline[1], record.dataset) for record in self._records) if self._records else None
        self._runs: list[ComparedRun] = []
        settings = differing_settings(self._records)
        for place, (name, run) in enumerate(gathered.runs.values()):
            hits, why = _read_hits(run)
            self._hits.append(hits)
            number = images.setdefault(_same_images(run.record), len(images) + 1)
            if number > len(self._images):
                self._images.append(_image_set(run.record, of_first))
            found: dict[str, Any] = {"images": number, "no_predictions": why and encodable(why), "commit": run.commit}
            found["settings"] = settings[place]
            self._runs.append(compared_run(name, run.record, published=published).model_copy(update=found))
        self._rows = [self._row(members) for members in self._members(shared_by)]

    def comparison(self) -> Comparison:
        """Return the whole comparison, with runs and rows in the order in which the runs were given."""
        return Comparison(
            runs=tuple(self._runs),
            left_out=self._left_out,
            images=tuple(self._images),
            rows=tuple(self._rows),
            baseline=self._baseline_row,
            differences=tuple(self._differences()),
        )

    @property
    def _baseline_row(self) -> int | None:
        if self._baseline is None:
            return None
        return next(place for place, row in enumerate(self._rows) if self._baseline in row.runs)

    def _members(self, shared_by: Callable[[RunRecord], object] | None) -> list[list[int]]:
        """Return the run indices of each row; if two runs share settings and seed, each gets its own row."""
        rows: dict[object, list[int]] = {}
        for place, record in enumerate(self._records):
            shared = place if shared_by is None else shared_by(record)
            key: tuple[object, ...] = (shared, 0)
            while shared_by is _settings and record.settings.seed in self._seeds(rows.get(key, ())):
                key = (shared, int(str(key[1])) + 1)
            rows.setdefault(key, []).append(place)
        return [sorted(row, key=lambda place: self._records[place].settings.seed) for row in rows.values()]

    def _seeds(self, runs: Iterable[int]) -> tuple[int, ...]:
        return tuple(self._records[place].settings.seed for place in runs)

    def _row(self, members: list[int]) -> ComparedRow:
        runs = [self._runs[place] for place in members]
        accuracies = [run.accuracy.value for run in runs if run.accuracy is not None]
        known = len(accuracies) == len(runs)
        means: dict[str, float | None] = {}
        for name in ("train_accuracy", "si_before", "si_after"):
            means[name] = _mean(value and value.value for value in (getattr(run, name) for run in runs))
        for name in ("train_seconds_per_epoch", "evaluation_seconds_per_epoch", "total_seconds"):
            means[name] = _mean(getattr(run, name) for run in runs)
        return ComparedRow(
            runs=tuple(members),
            seeds=self._seeds(members),
            images=runs[0].images,
            accuracy=fmean(accuracies) if known else None,
            accuracy_error=_mean(run.accuracy.standard_error if run.accuracy else None for run in runs),
            accuracy_sd=stdev(accuracies) if known and len(runs) > 1 else None,
            **means,
        )

    def _differences(self) -> Iterable[RowDifference]:
        for images in sorted({row.images for row in self._rows}):
            places = [
                place for place, row in enumerate(self._rows) if row.images == images and row.accuracy is not None
            ]
            baseline = self._baseline_row
            if baseline is None:
                baseline = max(places, key=lambda place: self._rows[place].accuracy or 0.0, default=None)
            if baseline in places and len(places) > 1:
                yield from self._tested(places, places.index(baseline))

    def _tested(self, places: list[int], baseline: int) -> Iterable[RowDifference]:
        from zoo_harness.runs.paired_accuracies import PairTests

        tests = PairTests([self._tested_row(self._rows[place]) for place in places])
        for number in (number for number in range(len(places)) if number != baseline):
            yield self._difference(tests, places, number, baseline)

    def _difference(self, tests: PairTests, places: list[int], number: int, baseline: int) -> RowDifference:
        row, other = self._rows[places[number]], self._rows[places[baseline]]
        paired = tests.is_paired(number, baseline)
        difference, error = self._difference_of_means(row, other, paired=paired)
        over_seeds, seeds = self._over_seeds(row, other)
        return RowDifference(
            row=places[number],
            baseline=places[baseline],
            difference=difference,
            standard_error=error,
            test="mcnemar" if paired else "z",
            tested=(self._runs[row.runs[0]].run, self._runs[other.runs[0]].run),
            row_only=int(tests.only[number, baseline]) if paired else None,
            baseline_only=int(tests.only[baseline, number]) if paired else None,
            p=float(tests.p[number, baseline]),
            p_holm=float(tests.p_holm[number, baseline]),
            pairs=tests.pairs,
            p_seeds=over_seeds,
            seeds=seeds,
        )

    def _over_seeds(self, row: ComparedRow, other: ComparedRow) -> tuple[float | None, int]:
        """Return the p-value of the paired t-test over the seeds that two rows share, and the number of these seeds."""
        from zoo_harness.runs.paired_accuracies import paired_t

        pairs = [(self._runs[one].accuracy, self._runs[same].accuracy) for one, same in self._same_seeds(row, other)]
        apart = [one.value - same.value for one, same in pairs if one and same]
        return (paired_t(apart) if len(apart) >= FEWEST_SEEDS else None), len(apart)

    def _difference_of_means(self, row: ComparedRow, other: ComparedRow, *, paired: bool) -> tuple[float, float]:
        """Return the difference of two rows' accuracies, and the standard error of this difference over images."""
        from zoo_harness.runs.paired_accuracies import paired_difference

        pairs = self._same_seeds(row, other)
        alike = {self._runs[place].images for place in (*row.runs, *other.runs)} == {row.images}
        matched = len(pairs) == len(row.runs) == len(other.runs)
        chosen = (row.runs, other.runs) if alike else (*zip(*pairs, strict=True),) if matched else None
        if chosen is None and paired:  # neither all images nor all seeds agree, so one run each
            chosen = row.runs[:1], other.runs[:1]
        first, second = ([self._hits[place] for place in runs] for runs in chosen or ((), ()))
        known = [[each for each in hits if each is not None] for hits in (first, second)]
        if not first or len(known[0]) < len(first) or len(known[1]) < len(second):
            return _unpaired(row, other)
        return paired_difference(*known, same_images=alike)

    def _same_seeds(self, row: ComparedRow, other: ComparedRow) -> list[tuple[int, int]]:
        """Return index pairs of runs with equal seed and equal images; return no pairs if a row has a seed twice."""
        if len({*row.seeds}) < len(row.seeds) or len({*other.seeds}) < len(other.seeds):
            return []
        theirs = dict(zip(other.seeds, other.runs, strict=True))
        pairs = [(place, theirs[seed]) for seed, place in zip(row.seeds, row.runs, strict=True) if seed in theirs]
        return [(one, same) for one, same in pairs if self._runs[one].images == self._runs[same].images]

    def _tested_row(self, row: ComparedRow) -> RowOfHits:
        from zoo_harness.runs.paired_accuracies import RowOfHits

        accuracy = self._runs[row.runs[0]].accuracy
        assert accuracy is not None  # noqa: S101 - only rows with an accuracy are tested
        return RowOfHits(accuracy.value, accuracy.standard_error, self._hits[row.runs[0]])


def _unpaired(row: ComparedRow, other: ComparedRow) -> tuple[float, float]:
    return (row.accuracy or 0) - (other.accuracy or 0), math.hypot(row.accuracy_error or 0, other.accuracy_error or 0)


def _image_set(record: RunRecord, first: tuple[SplitRecord, DatasetRecord] | None) -> ImageSet:
    """Describe the images that a run was scored on, and how these images differ from the images of the first run."""
    split, dataset = record.headline[1], record.dataset
    differs = None
    if first is not None and split != first[0]:
        differs = f"the split {split.split} of {dataset.title}, {split.images:,} images"
        if (first[0].split, first[0].images, first[1].title) == (split.split, split.images, dataset.title):
            differs += ", with other pixels or labels, as another choice of images or another size gives"
    elif first is not None and dataset.classes != first[1].classes:
        differs = "other class names"
        for number, (own, other) in enumerate(zip(dataset.classes, first[1].classes, strict=False)):
            if own != other:
                differs += f": class {number} is {own!r:.60} instead of {other!r:.60}"
                break
    about = {"dataset": dataset.title, "split": split.split, "classes": len(dataset.classes)}
    return ImageSet(**about, images=split.images, fingerprint=split.fingerprint, differs=differs)


def _mean(values: Iterable[float | None]) -> float | None:
    known = [*values]
    return None if None in known else fmean(value for value in known if value is not None)


def _same_images(record: RunRecord) -> object:
    split = record.headline[1]
    return split.fingerprint, split.split, record.dataset.classes


def _read_hits(run: Run) -> tuple[NDArray[np.bool_] | None, str | None]:
    """Return whether the run classifies each image correctly, or ``None`` and the reason why this is unknown."""
    if run.record.results.predictions is None:
        return None, "an earlier version wrote no predictions"
    try:
        found = run.predictions
    except ZooError as error:
        return None, str(error)
    if found is None:
        return None, "the file of its predictions is missing"
    if len(found) != run.record.headline[1].images:
        return None, "its predictions are of another number of images than its record says"
    return found.hits, None
