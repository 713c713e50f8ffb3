"""Read one run: its record, history, scores, plots and model."""

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
from zoo_harness.records.file_names import HISTORY, RECORD
from zoo_harness.records.run import RUN, EpochRecord, Measurement, RunRecord, SplitSeparation, read_history, read_run
from zoo_harness.reports.separation_tables import with_error
from zoo_harness.reports.wording import number, percent
from zoo_harness.util.safe_files import read_regular

if TYPE_CHECKING:
    from zoo_harness.checkpoints.loaded_model import LoadedModel

PREDICTIONS = "predictions.safetensors"
_CURVES = ("loss", "accuracy")
_LARGEST_CURVE = 2**20  # bytes of a PNG that is shown in a notebook
_MOST_ROWS = 50
_PNG = b"\x89PNG\r\n\x1a\n"


class History(tuple[EpochRecord, ...]):
    """The epochs of a run, first to last; a tuple of :class:`~zoo_harness.records.run.EpochRecord`."""

    __slots__ = ()

    def to_pandas(self) -> Any:
        """Return a ``pandas.DataFrame`` with a row for each epoch, if pandas is installed."""
        import importlib

        try:
            pandas = importlib.import_module("pandas")
        except ModuleNotFoundError as error:
            message = "pandas is not installed; try: pip install pandas"
            raise UsageError(message, code="pandas-missing", package="pandas") from error
        return pandas.DataFrame([line.model_dump() for line in self], columns=list(EpochRecord.model_fields))

    def _repr_html_(self) -> str:
        names = [name.replace("_", " ") for name in EpochRecord.model_fields]
        rows = [[f"{value:.4g}" for value in line.model_dump().values()] for line in self[-_MOST_ROWS:]]
        left_out = f"<p>The last {_MOST_ROWS} of {len(self):,} epochs.</p>" if len(self) > _MOST_ROWS else ""
        return _table(names, rows) + left_out


class RunSeparation(SplitSeparation):
    """The separation of a run's scored layer after training, on the split that its accuracy is of.

    ``before`` has the same scores before training, ``raw_pixels`` those of the images; ``None`` if not measured. The
    test split is not scored before training.
    """

    split: str
    layer: str
    before: SplitSeparation | None
    raw_pixels: SplitSeparation | None


@dataclass(frozen=True, eq=False, repr=False)
class Run:
    """One run, read from its folder; nothing here changes the folder.

    ``record`` is the content of ``run.json`` when the run was opened; ``commit`` is that of the repository from which
    :func:`zoo.pull` fetched the folder. Two runs of one folder are equal.
    """

    directory: Path
    record: RunRecord
    commit: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "directory", self.directory.absolute())  # it stays valid in another working directory

    @property
    def status(self) -> str:
        """``running``, ``finished``, ``interrupted`` or ``failed``."""
        return self.record.status

    @cached_property
    def history(self) -> History:
        """The epochs so far, first to last; ``run.history.to_pandas()`` makes a DataFrame."""
        lines, epochs = read_history(self.directory), self.record.settings.training.epochs
        if len(lines) > epochs:
            message = (
                f"{self.directory / HISTORY} is of another run: it has {len(lines):,} epochs; the run has {epochs:,}"
            )
            raise DataError(message, code="history-of-another-run", path=self.directory / HISTORY)
        return History(lines)

    @property
    def accuracy(self) -> Measurement | None:
        """The accuracy on the test split if one was kept for the end, else on the evaluation split."""
        return self.record.headline[0]

    @property
    def separation(self) -> RunSeparation | None:
        """The Separation Index and its relatives after training, on the split of :attr:`accuracy`."""
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

    @property
    def predictions(self) -> Path | None:
        """The file of the predictions for each image, if the folder has one."""
        path = self.directory / PREDICTIONS
        return path if path.is_file() else None

    @property
    def plots(self) -> dict[str, Path]:
        """The pictures of the run, PNG files by name, such as ``loss``."""
        paths = [self.directory / name for name in self.record.plots]
        return {path.stem: path for path in paths if path.is_file()}

    @property
    def card(self) -> str | None:
        """The text of the model card, ``None`` if there is none yet."""
        from zoo_harness.reports.card_merge import read_card

        return read_card(self.directory, follow_links=True)

    def load(self, device: str = "cpu") -> LoadedModel:
        """Load the fine-tuned model in inference mode, as :func:`zoo.load` does."""
        from zoo_harness.checkpoints.load import load_folder
        from zoo_harness.compute.device import choose_device

        return load_folder(self.directory, choose_device(device))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Run) and self.directory.resolve() == other.directory.resolve()

    def __hash__(self) -> int:
        return hash(self.directory.resolve())

    def __repr__(self) -> str:
        name, data = (one_line(text)[:80] for text in (self.record.backbone.name, self.record.dataset.title))
        return f"<zoo.Run of {name} on {data}: {self.status}, accuracy {percent(self.accuracy)}>\n{self.directory}"

    def _repr_html_(self) -> str:
        record, separation = self.record, self.separation
        before = separation.before if separation else None
        split, epochs = record.headline[1], f"{record.results.epochs_done} of {record.settings.training.epochs}"
        rows = [
            ["backbone", record.backbone.title],
            ["data set", record.dataset.title],
            ["status", f"{self.status}, {epochs} epochs"],
            ["accuracy", f"{percent(self.accuracy)} ({split.images:,} images of the split {split.split})"],
            ["SI before training", with_error(before.si if before else None)],
            ["SI after training", with_error(separation.si if separation else None)],
            ["time", number(record.results.total_seconds, "s")],
            ["folder", str(self.directory)],
        ]
        shown = [_picture(name, self.plots[name]) for name in _CURVES if name in self.plots]
        return _table([], [[name, one_line(value)[:300]] for name, value in rows]) + "".join(shown)


def open_run(path: str | Path) -> Run:
    """Open a run folder, a published checkpoint in a folder, or the record in either, ``run.json`` or ``zoo.json``.

    Neither torch nor the checkpoint is loaded. Raises :class:`~zoo.errors.UsageError` for anything else.
    """
    if not isinstance(path, str | Path):
        raise _not_a_run(f"a run is the path of its folder; given {type(path).__name__}", path)
    try:
        directory = Path(path).expanduser()
        if directory.name in (RUN, RECORD) and directory.is_file():
            directory = directory.parent
        there, is_folder = directory.exists(), directory.is_dir()
    except (RuntimeError, OSError, ValueError) as error:  # no such user; a name that no file can have
        raise _not_a_run(f"not a path: {shortened(path)}: {error}", path) from error
    if not there:
        raise _not_a_run(f"no such folder: {shortened(str(path))}; fetch a repository with zoo.pull first", path)
    if not is_folder:
        raise _not_a_run(f"not a run: {shortened(str(path))}; expected a folder, or the {RUN} in it", path)
    return Run(directory, read_run(directory))


def _not_a_run(message: str, path: object) -> UsageError:
    return UsageError(message, code="not-a-run", path=path)


def _table(names: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """An HTML table; every cell is escaped, because names may come from strangers."""
    head = "".join(f"<th>{html.escape(name)}</th>" for name in names)
    body = ["".join(f"<td>{html.escape(cell)}</td>" for cell in row) for row in rows]
    return f"<table>{f'<tr>{head}</tr>' if head else ''}{''.join(f'<tr>{row}</tr>' for row in body)}</table>"


def _picture(name: str, path: Path) -> str:
    """An HTML image that holds a PNG file; nothing for a file that is large or no PNG."""
    try:
        content = read_regular(path, _LARGEST_CURVE, follow_links=True)  # as in the Hub's cache
    except (OSError, ZooError):
        return ""
    if not content.startswith(_PNG):
        return ""
    data = base64.b64encode(content).decode()
    return f'<img alt="{name} of each epoch" style="max-width: 49%" src="data:image/png;base64,{data}">'
