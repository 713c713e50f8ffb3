"""Attempt one run of a sweep in this process: start it, resume it, or leave it to the process that has it.

The folder of the run is the only truth. A lock file beside it keeps a second process out while the first one works.
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
from zoo_harness.records.option import checked, declared
from zoo_harness.records.options import EvalOptions
from zoo_harness.records.run import RUN, EpochRecord
from zoo_harness.records.stored_options import OPTIONS
from zoo_harness.runs.fine_tune import fine_tune
from zoo_harness.runs.opening import open_layers
from zoo_harness.runs.reporter import LoggingReporter
from zoo_harness.runs.request import RunCall, check_layers
from zoo_harness.sweeps.plan import OPTIONS_OF, PlannedRun
from zoo_harness.util.atomic_files import write_text
from zoo_harness.util.file_lock import FileLock

ERROR = "error.json"
# The file that shows that a command has begun; ``layers.json`` is written at the end.
PRODUCTS = {"eval": RUN, "train": RUN, "layers": "layers.json"}
NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}


@dataclass(frozen=True)
class Outcome:
    """The end of an attempt: ``status`` is ``finished``, ``failed``, or ``held`` if another process has the run.

    ``error`` is the content of ``error.json``. ``node`` names the machine for Ray.
    """

    status: str
    error: dict[str, Any] | None = None
    warnings: list[str] = field(default_factory=list)
    node: str = ""


class _Warnings(LoggingReporter):
    """Collects the warnings of a run, and calls a function after each epoch."""

    def __init__(self, on_epoch: Callable[[], None]) -> None:
        self.lines: list[str] = []
        self._on_epoch = on_epoch

    def warn(self, line: str) -> None:
        """Keep the warning."""
        self.lines.append(line)

    def on_epoch(self, epoch: EpochRecord) -> None:
        """Call the function."""
        super().on_epoch(epoch)
        self._on_epoch()


def attempt(
    run: PlannedRun, token: str, threads: int, node: str = "", on_epoch: Callable[[], None] = lambda: None
) -> Outcome:
    """Run, or resume, or leave alone; an error becomes ``error.json`` in the run's folder, and the outcome.

    ``token`` marks this attempt in the file that :func:`read_mark` reads. A ``KeyboardInterrupt`` leaves a run that
    the next attempt resumes.
    """
    import torch

    before, reporter = torch.get_num_threads(), _Warnings(on_epoch)
    with _claimed(run, token) as folder:
        if folder is None:
            return Outcome("held", node=node)
        if is_finished(run):
            return Outcome("finished", node=node)
        mark = {"token": token, "host": socket.gethostname(), "node": node, "folder": str(folder)}
        write_text(_beside(run, ".json"), json.dumps(mark))
        try:
            torch.set_num_threads(threads)
            _execute(run, folder, reporter)
            _publish(folder, run.path)
        except Exception as error:  # of any kind: it must not end the other runs
            if getattr(error, "code", "") == "run-is-running":  # by a command that is no sweep
                return Outcome("held", node=node)
            return failure(run, error, node, reporter.lines)
        finally:
            torch.set_num_threads(before)
    return Outcome("finished", None, reporter.lines, node)


def _execute(run: PlannedRun, folder: Path, reporter: LoggingReporter) -> None:
    (folder / ERROR).unlink(missing_ok=True)
    if status_of(folder / PRODUCTS[run.command]) == "finished":  # a kill came before _publish renamed the folder
        return
    if (folder / OPTIONS).is_file() and (folder / RUN).is_file():
        known = declared(EvalOptions)
        free = {
            name: value for name, value in run.options.items() if not (known[name][1].stored and known[name][1].fixed)
        }
        given, backbone, dataset = {**free, "resume": folder}, None, None
    else:  # a process that was killed before there was a record may have left files
        shutil.rmtree(folder, ignore_errors=True)
        given, backbone, dataset = {**run.options, "seed": run.seed, "out": folder}, run.backbone, run.dataset
    options: Any = checked(OPTIONS_OF[run.command], given)
    shown = [run.backbone, run.dataset, *(f"{name}={value!r}" for name, value in run.options.items())]
    function = "evaluate" if run.command == "eval" else run.command
    command = (f"zoo.{function}({', '.join(map(repr, shown[:2]))}, {', '.join([*shown[2:], f'seed={run.seed}'])})",)
    if run.command != "layers":
        fine_tune(RunCall(backbone, dataset, options, command, run.command == "train"), reporter)
        return
    named, runs = ([], [Path(run.backbone)]) if run.after else ([run.backbone], [])
    request = open_layers(check_layers(named, runs, run.dataset, options, command), reporter)
    from zoo_harness.runs.layer_run import score_all_layers  # and with it torch, which takes seconds

    score_all_layers(request, reporter)


@contextmanager
def _claimed(run: PlannedRun, token: str) -> Iterator[Path | None]:
    """Lock a run, and yield the folder to write; ``None`` if another process has the lock.

    Without locks in the file system the folder is this attempt's own, and begins as a copy of the furthest other one.
    """
    lock = FileLock(_beside(run, ".lock"))
    lock.path.parent.mkdir(parents=True, exist_ok=True)
    try:
        mine = lock.acquire(exclusive=True)
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        yield _own_folder(run, token)
        return
    try:
        yield run.path if mine else None
    finally:
        lock.release()


def _own_folder(run: PlannedRun, token: str) -> Path:
    own = _beside(run, f"-{token}")
    others = [folder for folder in (run.path, *own.parent.glob(f"{run.key}-*")) if (folder / RUN).is_file()]
    if others:
        with suppress(OSError, shutil.Error):  # another process writes there
            shutil.copytree(max(others, key=lambda folder: progress_of(folder)[0]), own)
    return own


def _publish(folder: Path, target: Path) -> None:
    """Give the finished folder of an attempt the name of the run, unless another attempt was first."""
    if folder == target:
        return
    if not any(status_of(target / name) == "finished" for name in PRODUCTS.values()):
        with suppress(OSError):  # there is no such folder yet
            target.rename(folder.with_name(f"{folder.name}-before"))
    with suppress(OSError):  # another attempt was first
        folder.rename(target)


def failure(run: PlannedRun, error: Exception, node: str = "", warnings: Sequence[str] = ()) -> Outcome:
    """Write ``error.json`` into the folder of a run, and return the outcome."""
    facts = {name: repr(fact) for name, fact in getattr(error, "facts", {}).items()}
    code = getattr(error, "code", type(error).__name__)
    content = {"code": code, "kind": type(error).__name__, "message": str(error), "facts": facts}
    if not isinstance(error, ZooError):
        content["traceback"] = traceback.format_exception(error)
    run.path.mkdir(parents=True, exist_ok=True)
    write_text(run.path / ERROR, json.dumps(content, indent=2) + "\n")
    return Outcome("failed", content, [*warnings], node)


def status_of(product: Path) -> str | None:
    """Return the status in a record; ``layers.json`` has none, because it is written at the end."""
    try:
        content = json.loads(product.read_bytes())
        return str(content.get("status", "finished"))
    except (OSError, ValueError, AttributeError):
        return None


def is_finished(run: PlannedRun) -> bool:
    """Whether the record of a run says that the run is finished."""
    return status_of(run.path / PRODUCTS[run.command]) == "finished"


def read_mark(run: PlannedRun) -> dict[str, Any]:
    """Return the token, host, process and folder of the latest attempt of a run; nothing without one."""
    try:
        return dict(json.loads(_beside(run, ".json").read_bytes()))
    except (OSError, ValueError):
        return {}


def progress_of(folder: Path) -> tuple[int, float | None]:
    """Return the number of finished epochs of a run, and the accuracy after the last one."""
    try:
        lines = (folder / HISTORY).read_text("utf-8").splitlines()
        return len(lines), float(json.loads(lines[-1])["evaluation_accuracy"]) if lines else None
    except (OSError, ValueError, LookupError):
        return 0, None


def _beside(run: PlannedRun, ending: str) -> Path:
    return run.path.parent / ".sweep" / f"{run.key}{ending}"
