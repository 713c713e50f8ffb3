"""Read finished runs for ``zoo.compare``; a run that cannot be compared is named, and the others are shown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from zoo.errors import UsageError, ZooError
from zoo.text import encodable
from zoo_harness.records.comparison import ComparedRun, LeftOutRun
from zoo_harness.reports.comparison import Comparison, compared_run
from zoo_harness.runs.run import Run, open_run


def compare_runs(runs: Sequence[str | Path | Run], *, published: bool = False) -> Comparison:
    """Read the record of each run, and put the figures of the finished ones beside each other.

    ``published`` adds the published figures of the same backbone, recipe, dataset, split and epochs. Checkpoints are
    not loaded. Raises :class:`~zoo.errors.UsageError` if no run is given.
    """
    if not runs:
        raise UsageError("nothing to compare; give the directory of a run, or several", code="missing-run")
    found: dict[Path, Run] = {}
    rows: list[ComparedRun] = []
    left_out: list[LeftOutRun] = []
    for given in runs:
        name = str(given.directory if isinstance(given, Run) else given)
        try:
            run = _finished(given, found)
        except ZooError as error:
            left_out.append(LeftOutRun(run=encodable(name), code=error.code, message=encodable(str(error))))
            continue
        found[run.directory.resolve()] = run
        rows.append(compared_run(encodable(name), run.record, published=published))
    return Comparison(runs=tuple(rows), left_out=tuple(left_out))


def _finished(given: str | Path | Run, found: dict[Path, Run]) -> Run:
    run = given if isinstance(given, Run) else open_run(given)
    if run.status != "finished":
        epochs = f"{run.record.results.epochs_done} of {run.record.settings.training.epochs} epochs"
        message = f"{run.directory} is {run.status} after {epochs}; expected a finished run; try --resume"
        raise UsageError(message, code="run-not-finished", path=run.directory, status=run.status)
    if run.directory.resolve() in found:
        raise UsageError(f"{run.directory} is given twice; give it once", code="repeated-subject", path=run.directory)
    return run
