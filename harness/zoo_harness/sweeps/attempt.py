"""Execute one run of a sweep in this process: start it, resume it, or leave it to the process that executes it.

The files in the run's folder say how far the run is; a lock file in ``.sweep`` excludes other processes.
"""

from __future__ import annotations

import errno
import json
import shutil
import socket
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zoo.errors import ZooError
from zoo_harness.records.file_names import HISTORY
from zoo_harness.records.option import checked
from zoo_harness.records.run import RUN, EpochRecord
from zoo_harness.records.stored_options import OPTIONS
from zoo_harness.runs.fine_tune import fine_tune
from zoo_harness.runs.opening import open_layers
from zoo_harness.runs.reporter import LoggingReporter
from zoo_harness.runs.request import RunCall, check_layers
from zoo_harness.sweeps.plan import OPTIONS_OF, PlannedRun, changes_results
from zoo_harness.util.atomic_files import write_text
from zoo_harness.util.file_lock import FileLock

ERROR = "error.json"
_RECORDS = {"eval": RUN, "train": RUN, "layers": "layers.json"}
_NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}


@dataclass(frozen=True)
class Outcome:
    """How an attempt ended: ``finished``, ``failed``, or ``locked`` if another process executes the run.

    ``error`` is the content of ``error.json`` if the attempt failed.
    """

    status: str
    error: dict[str, Any] | None = None
    warnings: list[str] = field(default_factory=list)


class _WarningCollector(LoggingReporter):
    """Collects the warnings of a run, and calls a function after each epoch."""

    def __init__(self, on_epoch: Callable[[], None]) -> None:
        self.warnings: list[str] = []
        self._on_epoch = on_epoch

    def warn(self, line: str) -> None:
        """Collect a warning."""
        self.warnings.append(line)

    def on_epoch(self, epoch: EpochRecord) -> None:
        """Log the epoch and call the function."""
        super().on_epoch(epoch)
        self._on_epoch()


def attempt(
    run: PlannedRun, attempt_id: str, threads: int, node: str = "", on_epoch: Callable[[], None] = lambda: None
) -> Outcome:
    """Execute or resume a run, unless it is finished or locked; write any error to ``error.json`` in its folder.

    ``attempt_id`` identifies this attempt in the result of :func:`latest_attempt`. ``threads`` is the number of CPU
    threads of torch, and ``node`` the id of the Ray node. A run that a ``KeyboardInterrupt`` stops can be resumed.
    """
    import torch

    threads_before, reporter = torch.get_num_threads(), _WarningCollector(on_epoch)
    with _locked(run, attempt_id) as folder:
        if folder is None:
            return Outcome("locked")
        if is_finished(run):
            return Outcome("finished")
        started = {"attempt_id": attempt_id, "host": socket.gethostname(), "node": node, "folder": str(folder)}
        write_text(_sweep_file(run, ".json"), json.dumps(started))
        try:
            torch.set_num_threads(threads)
            _execute(run, folder, reporter)
            _publish(run, folder)
        except Exception as error:  # an error of any kind must not end the other runs of the sweep
            if getattr(error, "code", "") == "run-is-running":  # another zoo command resumed this run
                return Outcome("locked")
            return failure(run, error, reporter.warnings)
        finally:
            torch.set_num_threads(threads_before)
    return Outcome("finished", None, reporter.warnings)


def _execute(run: PlannedRun, folder: Path, reporter: LoggingReporter) -> None:
    """Start or resume a run in a folder, or only score the layers of its network if its command is ``layers``."""
    (folder / ERROR).unlink(missing_ok=True)
    if _status(folder / _RECORDS[run.command]) == "finished":  # an attempt was killed before _publish
        return
    resumable = (folder / OPTIONS).is_file() and (folder / RUN).is_file()
    given = {**run.options, "seed": run.seed, "out": folder}
    arguments = [repr(run.backbone), repr(run.dataset), *(f"{name}={given[name]!r}" for name in given if name != "out")]
    command = (f"zoo.{'evaluate' if run.command == 'eval' else run.command}({', '.join(arguments)})",)
    if resumable:  # the other options are in options.json
        given = {name: run.options[name] for name in run.options if not changes_results(run.command, name)}
        given["resume"] = folder
    else:
        shutil.rmtree(folder, ignore_errors=True)  # files of a run that was killed before it wrote its record
    options: Any = checked(OPTIONS_OF[run.command], given)
    if run.command != "layers":
        backbone, dataset = (None, None) if resumable else (run.backbone, run.dataset)
        fine_tune(RunCall(backbone, dataset, options, command, run.command == "train"), reporter)
        return
    backbones, runs = ([], [Path(run.backbone)]) if run.depends_on else ([run.backbone], [])
    request = open_layers(check_layers(backbones, runs, run.dataset, options, command), reporter)
    from zoo_harness.runs.layer_run import score_all_layers  # imports torch, which takes seconds

    score_all_layers(request, reporter)


@contextmanager
def _locked(run: PlannedRun, attempt_id: str) -> Iterator[Path | None]:
    """Lock a run and yield the folder to write to, or yield ``None`` if another process holds the lock.

    If the file system has no locks, the folder belongs to this attempt alone.
    """
    lock = FileLock(_sweep_file(run, ".lock"))
    lock.path.parent.mkdir(parents=True, exist_ok=True)
    try:
        folder = run.path if lock.acquire(exclusive=True) else None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        folder = _folder_of_attempt(run, attempt_id)
    try:
        yield folder
    finally:
        lock.release()


def _folder_of_attempt(run: PlannedRun, attempt_id: str) -> Path:
    """Return a folder for one attempt; if there are earlier attempts, copy the one with the most epochs to it."""
    folder = _sweep_file(run, f"-{attempt_id}")
    earlier = [each for each in (run.path, *folder.parent.glob(f"{run.key}-*")) if (each / RUN).is_file()]
    if earlier:
        with suppress(OSError, shutil.Error):  # another process changes files during the copy
            shutil.copytree(max(earlier, key=lambda each: progress_of(each)[0]), folder)
    return folder


def _publish(run: PlannedRun, folder: Path) -> None:
    """Rename the folder of a finished attempt to the folder of the run, unless another attempt has finished first."""
    if folder == run.path or is_finished(run):
        return
    with suppress(OSError):  # the run has no folder yet
        run.path.rename(folder.with_name(f"{folder.name}-before"))
    with suppress(OSError):  # another attempt has renamed its folder meanwhile
        folder.rename(run.path)


def failure(run: PlannedRun, error: Exception, warnings: Sequence[str] = ()) -> Outcome:
    """Write an error to ``error.json`` in the folder of a run, and return the outcome ``failed``."""
    content: dict[str, Any] = {"code": getattr(error, "code", type(error).__name__), "kind": type(error).__name__}
    content |= {"message": str(error), "facts": {key: repr(fact) for key, fact in getattr(error, "facts", {}).items()}}
    if not isinstance(error, ZooError):
        content["traceback"] = traceback.format_exception(error)
    run.path.mkdir(parents=True, exist_ok=True)
    write_text(run.path / ERROR, json.dumps(content, indent=2) + "\n")
    return Outcome("failed", content, [*warnings])


def _status(record: Path) -> str | None:
    """Return the status in a record file; ``layers.json`` has no status, because it is written at the end."""
    try:
        return str(json.loads(record.read_bytes()).get("status", "finished"))
    except (OSError, ValueError, AttributeError):
        return None


def is_finished(run: PlannedRun) -> bool:
    """Whether the record of a run says that the run is finished."""
    return _status(run.path / _RECORDS[run.command]) == "finished"


def latest_attempt(run: PlannedRun) -> dict[str, str]:
    """Return the id, host, Ray node and folder of the latest attempt of a run; empty if there was no attempt."""
    try:
        return dict(json.loads(_sweep_file(run, ".json").read_bytes()))
    except (OSError, ValueError):
        return {}


def progress_of(folder: Path) -> tuple[int, float | None]:
    """Return the number of finished epochs of a run, and the accuracy after the last epoch."""
    try:
        lines = (folder / HISTORY).read_text("utf-8").splitlines()
        return len(lines), float(json.loads(lines[-1])["evaluation_accuracy"]) if lines else None
    except (OSError, ValueError, LookupError):
        return 0, None


def _sweep_file(run: PlannedRun, ending: str) -> Path:
    return run.path.parent / ".sweep" / f"{run.key}{ending}"
