"""Write the page of ``zoo report``: find runs and rankings, compare the runs, and list what the page leaves out."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

from zoo.errors import DataError, UsageError, ZooError
from zoo.text import encodable, one_line
from zoo_harness.records.comparison import ComparedRun, LeftOutRun
from zoo_harness.records.rank import RANK, RankRecord
from zoo_harness.records.run import RUN
from zoo_harness.reports.comparison import Comparison
from zoo_harness.runs.compare import compare_runs
from zoo_harness.runs.found_runs import run_folders
from zoo_harness.runs.run import Run, open_run
from zoo_harness.util.atomic_files import full_disk_named, write_text
from zoo_harness.util.safe_files import read_regular

if TYPE_CHECKING:
    from zoo_harness.reports.page.entries import Group

REPORT = Path("report.html")
_ENDINGS = (".html", ".htm")
_LARGEST_RANKING = 64 * 2**20  # bytes
_HEAD = 2000  # number of bytes at the start of a page, which contain the name of the generator
_NAMED = 20  # a message names at most this many runs
_DEEPEST = 4  # levels of folders that are searched for rankings


@dataclass(frozen=True)
class Report:
    """A written report: its file, the comparison of its runs, and the folders of its rankings.

    ``left_out`` lists the runs and rankings that the page does not show, with the reasons.
    """

    path: Path
    comparison: Comparison
    rankings: tuple[Path, ...]
    left_out: tuple[LeftOutRun, ...]


def write_report(
    given: Sequence[str | Path | Run], out: Path = REPORT, opening: Callable[[str | Path], Run] = open_run
) -> Report:
    """Write one HTML file with the table, the tests and the charts of the finished runs and rankings in the folders.

    ``opening`` opens a run by its path or its repository. A report that an earlier call wrote is overwritten. Raises
    :class:`~zoo.errors.UsageError` if ``given`` is empty, or if ``out`` is not an HTML file name or is a file that
    ``zoo report`` did not write. Raises :class:`~zoo.errors.DataError` if there is neither a finished run nor a
    ranking.
    """
    if not given:
        raise UsageError("nothing to report; give the directory of a run, or a folder with runs", code="missing-run")
    _check_out(out)
    rankings, left_out = _read_rankings(given)
    opened = _Opened(opening)
    ranked = {folder.resolve() for folder in (*(each for each, _record in rankings), *(Path(e.run) for e in left_out))}
    for each in given:
        if not _only_rankings(each, ranked):
            opened.add(each)
    found = opened.compared()
    left_out = (*opened.left_out, *found.left_out, *left_out)
    runs = [opened.runs[each.run] for each in found.runs]
    if not runs and not rankings:
        raise _nothing(left_out)

    from zoo_harness.reports.page.entries import groups_of
    from zoo_harness.reports.page.rankings import rank_table
    from zoo_harness.reports.page.render import MOST_GROUPS, render_page

    groups = groups_of(found, [run.record for run in runs], [*map(_origin, found.runs, runs)])
    tables = [rank_table(folder.name, record) for folder, record in rankings]
    page = render_page(groups, tables, left_out, _confusions(groups[:MOST_GROUPS], runs))
    _write(out, page)
    return Report(out, found, tuple(folder for folder, _record in rankings), left_out)


def _origin(compared: ComparedRun, run: Run) -> Path | str:
    """Return the folder of a run, or the repository and the commit that the run was downloaded from."""
    if os.path.isabs(compared.run):  # noqa: PTH117 - no path is needed
        return run.directory.resolve()
    return f"{compared.run} (commit {run.commit!s:.12})"


class _Opened:
    """The opened runs, keyed by their name in the comparison, and the runs that could not be opened, with reasons.

    The name of a run is the path of its folder, or the name of the repository that the run was downloaded from.
    """

    def __init__(self, opening: Callable[[str | Path], Run]) -> None:
        self._opening = opening
        self.runs: dict[str, Run] = {}
        self._names: list[str] = []
        self.left_out: list[LeftOutRun] = []

    def add(self, given: str | Path | Run) -> None:
        """Open a run, or all runs of a folder."""
        below: list[str | Path | Run] = [*run_folders(Path(given))] if _is_folder(given) else []
        for each in below or [given]:
            try:
                run = each if isinstance(each, Run) else self._opening(each)
            except ZooError as error:
                self.left_out.append(_left_out(each, error))
                continue
            is_fetched = isinstance(each, str) and run.commit is not None
            name = encodable(str(each if is_fetched else run.directory))
            self._names.append(name)
            self.runs[name] = run

    def compared(self) -> Comparison:
        """Compare the runs, sorted by name, so that the result does not depend on the order of the arguments."""
        self.left_out.sort(key=lambda each: (each.run, each.message))
        if not self._names:
            return Comparison(runs=())
        return compare_runs(sorted(self._names), lambda name: self.runs[encodable(str(name))], published=True)


def _left_out(given: object, error: ZooError) -> LeftOutRun:
    return LeftOutRun(run=encodable(str(given)), code=error.code, message=encodable(str(error)))


def _check_out(out: Path) -> None:
    """Raise an error if the name of the file is not an HTML name, or if the file is not a page of ``zoo report``."""
    if out.suffix.lower() not in _ENDINGS:
        message = f"--out {str(out)!r:.200} is not an HTML file; expected a name that ends in .html"
        raise UsageError(message, code="out-ending", path=out)
    try:
        with out.open("rb") as file:
            known = b'name="generator" content="blockzoo report ' in file.read(_HEAD)
    except (FileNotFoundError, NotADirectoryError):  # if out is a folder, _write reports the error
        return
    except OSError:
        known = False
    if not known:
        message = f"--out {str(out)!r:.200} exists and is not a page of zoo report; give a file that does not exist yet"
        raise UsageError(message, code="out-exists", path=out)


def _write(out: Path, page: str) -> None:
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with full_disk_named(out, "make room there"):
            write_text(out, page)
    except OSError as error:
        message = f"--out {str(out)!r:.200} cannot be written: {error.strerror or error}; try another folder"
        raise UsageError(message, code="out-not-writable", path=out) from error


def _is_folder(given: str | Path | Run) -> TypeGuard[str | Path]:
    return not isinstance(given, Run) and os.path.isdir(given)  # noqa: PTH112 - Path.is_dir raises for a long name


def _only_rankings(given: str | Path | Run, ranked: set[Path]) -> bool:
    """Whether a path is a folder that has rankings and no run."""
    if not _is_folder(given):
        return False
    folder = Path(given).resolve()
    has_ranking = any(place.is_relative_to(folder) for place in ranked)
    return has_ranking and next(run_folders(Path(given)), None) is None


def _read_rankings(
    given: Sequence[str | Path | Run],
) -> tuple[list[tuple[Path, RankRecord]], tuple[LeftOutRun, ...]]:
    """Return the rankings in the folders, sorted by path, and the rankings that cannot be read."""
    folders = [Path(each) for each in given if _is_folder(each)]
    found, left_out = [], []
    places = {place.resolve(): place for each in folders for place in _ranking_folders(each)}
    for _resolved, folder in sorted(places.items()):
        try:
            found.append((folder, _read_ranking(folder / RANK)))
        except ZooError as error:
            left_out.append(_left_out(folder, error))
    return found, tuple(left_out)


def _ranking_folders(top: Path) -> Iterator[Path]:
    """Yield ``folder`` and its subfolders that contain a ranking; run folders and hidden folders are not searched."""
    for name, folders, files in os.walk(top):
        deep = len(Path(name).relative_to(top).parts) >= _DEEPEST or RUN in files
        folders[:] = [] if deep else [each for each in folders if not each.startswith(".")]
        if RANK in files:
            yield Path(name)


def _read_ranking(path: Path) -> RankRecord:
    from pydantic import ValidationError

    try:
        return RankRecord.model_validate_json(read_regular(path, _LARGEST_RANKING))
    except OSError as error:
        message = f"{path} cannot be read: {error.strerror or error}"
        raise DataError(message, code="ranking-unreadable", path=path) from error
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        where = one_line(".".join(map(str, fault["loc"]))) or "the file"
        message = f"{path} is not a ranking of this version: {where:.200}: {fault['msg']:.200}"
        raise DataError(message, code="ranking-invalid", path=path, field=where) from error


def _confusions(groups: Sequence[Group], runs: Sequence[Run]) -> dict[int, dict[str, Any]]:
    """Map the row number to the confusion matrix, for the rows with the highest accuracies in each group."""
    from zoo_harness.reports.page.curves import MOST_MATRICES, confusion_of

    found = {}
    for entry in (entry for group in groups for entry in group.entries[:MOST_MATRICES]):
        try:
            predictions = runs[entry.row.runs[0]].predictions
        except ZooError:  # the page lists the row as tested without predictions
            predictions = None
        confusion = confusion_of(entry, predictions)
        if confusion is not None:
            found[entry.number] = confusion
    return found


def _nothing(left_out: Sequence[LeftOutRun]) -> DataError:
    reasons = [each.message for each in left_out]
    more = f"; and {len(reasons) - _NAMED} more" if len(reasons) > _NAMED else ""
    message = f"no finished run and no ranking to report: {'; '.join(reasons[:_NAMED])}{more}"
    return DataError(message, code="nothing-to-report", left_out=[each.run for each in left_out])
