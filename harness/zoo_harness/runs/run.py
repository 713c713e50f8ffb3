"""Read the record, history, scores, plots and model of one run."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.errors import DataError, UsageError, ZooError, shortened
from zoo.text import one_line
from zoo_harness.records.checkpoint_choice import available_checkpoints
from zoo_harness.records.file_names import HISTORY, RECORD
from zoo_harness.records.run import (
    RUN,
    EpochRecord,
    Measurement,
    Record,
    RunRecord,
    SplitSeparation,
    read_history,
    read_run,
)
from zoo_harness.records.steps import StepRecord, read_steps
from zoo_harness.reports.accuracy_tables import seconds_in_words
from zoo_harness.reports.separation_tables import with_error
from zoo_harness.reports.wording import NOT_MEASURED, number, percent
from zoo_harness.util.safe_files import read_regular

if TYPE_CHECKING:
    from zoo_harness.checkpoints.loaded_model import LoadedModel
    from zoo_harness.evaluation.predictions import Predictions

_CURVES = ("loss", "accuracy")
_LARGEST_CURVE = 2**20  # the size limit in bytes of a PNG that a notebook shows
_MOST_ROWS = 50
_PNG = b"\x89PNG\r\n\x1a\n"


class _Lines(tuple[Any, ...]):
    """The lines of a log file of a run, in the order of the file."""

    __slots__ = ()
    _kind: type[Record]
    _called: str

    def to_pandas(self) -> Any:
        """Return a ``pandas.DataFrame`` with one row per line; raise an error if pandas is not installed."""
        import importlib

        try:
            pandas = importlib.import_module("pandas")
        except ModuleNotFoundError as error:
            message = "pandas is not installed; try: pip install pandas"
            raise UsageError(message, code="pandas-missing", package="pandas") from error
        return pandas.DataFrame([line.model_dump() for line in self], columns=list(self._kind.model_fields))

    def _repr_html_(self) -> str:
        fields = [name for name in self._kind.model_fields if name != "evaluation_split"]
        rows = [[f"{getattr(line, name):.4g}" for name in fields] for line in self[-_MOST_ROWS:]]
        shown = f"<p>The last {_MOST_ROWS} of {len(self):,} {self._called}.</p>" if len(self) > _MOST_ROWS else ""
        split = getattr(self[-1], "evaluation_split", None) if self else None
        names = [name.replace("evaluation", split or "evaluation").replace("_", " ") for name in fields]
        return _table(names, rows) + shown


class History(_Lines, tuple[EpochRecord, ...]):
    """The finished epochs of a run in order, as a tuple of :class:`~zoo_harness.records.run.EpochRecord`."""

    __slots__ = ()
    _kind, _called = EpochRecord, "epochs"


class Steps(_Lines, tuple[StepRecord, ...]):
    """The logged training steps of a run in order, as a tuple of :class:`~zoo_harness.records.steps.StepRecord`."""

    __slots__ = ()
    _kind, _called = StepRecord, "steps"


class RunSeparation(SplitSeparation):
    """The separation scores of a run's scored layer after training, on the split of the run's accuracy.

    ``before`` has the same scores before training, and ``raw_pixels`` has the scores of the raw images. Scores that
    were not measured are ``None``; the test split is not scored before training.
    """

    split: str
    layer: str
    before: SplitSeparation | None
    raw_pixels: SplitSeparation | None


@dataclass(frozen=True, eq=False, repr=False)
class Run:
    """One run, read from its folder; no method changes the folder.

    ``record`` is the content of ``run.json`` at the time when the run was opened. ``commit`` is the repository commit
    that :func:`zoo.pull` downloaded, or ``None`` for other folders. Two objects for the same folder are equal.
    """

    directory: Path
    record: RunRecord
    commit: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "directory", self.directory.absolute())  # valid in any working directory

    @property
    def status(self) -> str:
        """The status of the run: ``running``, ``finished``, ``interrupted`` or ``failed``."""
        return self.record.status

    @cached_property
    def history(self) -> History:
        """The finished epochs in order; ``run.history.to_pandas()`` returns a DataFrame."""
        lines, epochs = read_history(self.directory), self.record.settings.training.epochs
        if len(lines) > epochs:
            message = (
                f"{self.directory / HISTORY} belongs to another run: it has {len(lines):,} epochs; this run has "
                f"{epochs:,}"
            )
            raise DataError(message, code="history-of-another-run", path=self.directory / HISTORY)
        return History(lines)

    @cached_property
    def steps(self) -> Steps:
        """The training steps that ``--log-steps`` logged; ``run.steps.to_pandas()`` returns a DataFrame."""
        return Steps(read_steps(self.directory))

    @property
    def accuracy(self) -> Measurement | None:
        """The accuracy on the test split if the run scored one after training, otherwise on the evaluation split."""
        return self.record.headline[0]

    @property
    def separation(self) -> RunSeparation | None:
        """The Separation Index and the other separation scores after training, on the split of :attr:`accuracy`."""
        results, headline = self.record.results, self.record.headline[1]
        split = "test" if headline is self.record.dataset.test else "evaluation"
        raw_pixels, before, after = (
            found and getattr(found, split)
            for found in (results.separation_raw_pixels, results.separation_before, results.separation_after)
        )
        if results.separation_after is None or after is None:
            return None
        layer = results.separation_after.layer
        return RunSeparation(**dict(after), split=headline.split, layer=layer, before=before, raw_pixels=raw_pixels)

    @cached_property
    def predictions(self) -> Predictions | None:
        """The prediction for each image of the split of :attr:`accuracy`, or ``None`` if the run wrote no predictions.

        Raises :class:`~zoo.errors.UsageError` if the file was changed after the run wrote it.
        """
        from zoo_harness.evaluation.predictions import read_predictions

        recorded = self.record.results.predictions
        return None if recorded is None else read_predictions(self.directory, recorded)

    @property
    def plots(self) -> dict[str, Path]:
        """The PNG files of the run's plots, by name, such as ``loss``."""
        paths = [self.directory / name for name in self.record.plots]
        return {path.stem: path for path in paths if path.is_file()}

    @property
    def card(self) -> str | None:
        """The text of the model card, or ``None`` if the run has no card yet."""
        from zoo_harness.reports.card_merge import read_card

        return read_card(self.directory, follow_links=True)

    @property
    def checkpoints(self) -> dict[int, Path]:
        """The existing weight files by epoch; :meth:`load` can load each of them."""
        return available_checkpoints(self.directory, self.record)

    def load(
        self, device: str = "cpu", *, checkpoint: str | int | None = None, epoch: int | None = None
    ) -> LoadedModel:
        """Load the fine-tuned model in inference mode, as :func:`zoo.load` does."""
        from zoo_harness.checkpoints.load import load_folder
        from zoo_harness.compute.device import choose_device

        return load_folder(self.directory, choose_device(device), checkpoint=checkpoint, epoch=epoch)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Run) and self.directory.resolve() == other.directory.resolve()

    def __hash__(self) -> int:
        return hash(self.directory.resolve())

    @property
    def _measure(self) -> str:
        return f"{one_line(self.record.dataset.name_of(self.record.headline[1]))[:80]} accuracy"

    def __repr__(self) -> str:
        name, data = (one_line(text)[:80] for text in (self.record.backbone.name, self.record.dataset.title))
        return (
            f"<zoo.Run of {name} on {data}: {self.status}, {self._measure} {percent(self.accuracy)}>\n{self.directory}"
        )

    def _repr_html_(self) -> str:
        record, separation = self.record, self.separation
        before = separation.before if separation else None
        split, epochs = record.headline[1], f"{record.results.epochs_done} of {record.settings.training.epochs}"
        rows = [
            ["backbone", record.backbone.title],
            ["dataset", record.dataset.title],
            ["status", f"{self.status}, {epochs} epochs"],
            [self._measure, f"{percent(self.accuracy)} ({split.images:,} images of the split {split.split})"],
            ["SI before training", with_error(before.si if before else None)],
            ["SI after training", with_error(separation.si if separation else None)],
            ["seconds per epoch", seconds_in_words(record) or NOT_MEASURED],
            ["time", number(record.results.total_seconds, "s")],
            ["folder", str(self.directory)],
        ]
        shown = [_picture(name, self.plots[name]) for name in _CURVES if name in self.plots]
        return _table([], [[name, one_line(value)[:300]] for name, value in rows]) + "".join(shown)


def open_run(path: str | Path) -> Run:
    """Open a run from its folder or its ``run.json``, or a published checkpoint from its folder or its ``zoo.json``.

    Neither torch nor the weights are loaded. Raises :class:`~zoo.errors.UsageError` for any other path.
    """
    if not isinstance(path, str | Path):
        raise _not_a_run(f"not a run: an object of type {type(path).__name__}; expected the path of a folder", path)
    try:
        directory = Path(path).expanduser()
        if directory.name in (RUN, RECORD) and directory.is_file():
            directory = directory.parent
        there, is_folder = directory.exists(), directory.is_dir()
    except (RuntimeError, OSError, ValueError) as error:  # ~user without such a user, or an invalid name
        raise _not_a_run(f"not a path: {shortened(path)}: {error}", path) from error
    if not there:
        message = f"no such folder: {shortened(str(path))}; expected the folder of a run; zoo runs lists them"
        raise _not_a_run(f"{message}, and zoo pull fetches a published one", path)
    if not is_folder:
        raise _not_a_run(f"not a run: {shortened(str(path))}; expected a folder, or the {RUN} in it", path)
    return Run(directory, read_run(directory))


def _not_a_run(message: str, path: object) -> UsageError:
    return UsageError(message, code="not-a-run", path=path)


def _table(names: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return an HTML table; every cell is escaped, because names may come from untrusted files."""
    head = "".join(f"<th>{html.escape(name)}</th>" for name in names)
    body = ["".join(f"<td>{html.escape(cell)}</td>" for cell in row) for row in rows]
    return f"<table>{f'<tr>{head}</tr>' if head else ''}{''.join(f'<tr>{row}</tr>' for row in body)}</table>"


def _picture(name: str, path: Path) -> str:
    """Return an HTML image that embeds a PNG file, or an empty string if the file is too large or not a PNG."""
    try:
        content = read_regular(path, _LARGEST_CURVE, follow_links=True)  # files in the Hub's cache are links
    except (OSError, ZooError):
        return ""
    if not content.startswith(_PNG):
        return ""
    data = base64.b64encode(content).decode()
    return f'<img alt="{name} of each epoch" style="max-width: 49%" src="data:image/png;base64,{data}">'
