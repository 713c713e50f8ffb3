"""Show progress: a bar with the time left in a terminal or notebook, a line per epoch elsewhere."""

from __future__ import annotations

import importlib.util
import sys
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text

from zoo_harness.records.run import EpochRecord
from zoo_harness.util.text import printable


class _ImagesDone(ProgressColumn):
    """The number of images done, and of all; nothing if they are not counted."""

    def render(self, task: Task) -> Text:
        """Render the column."""
        return Text("" if task.total is None else f"{task.completed:,.0f}/{task.total:,.0f} images")


class _Speed(ProgressColumn):
    """The latest number of images per second."""

    def render(self, task: Task) -> Text:
        """Render the column."""
        return Text(f"{task.speed:,.0f} images/s" if task.total and task.speed else "")


class _TimeLeft(TimeRemainingColumn):
    """The time left; nothing if it is unknown."""

    def render(self, task: Task) -> Text:
        """Render the column."""
        return Text("") if task.total is None else super().render(task)


class ProgressDisplay:
    """Show the progress of a run on standard error; a context manager, which removes the bar at the end."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._console = Console(stderr=True, highlight=False, markup=False)
        # rich draws bars in a notebook with ipywidgets, and warns without them.
        notebook = self._console.is_jupyter
        drawable = importlib.util.find_spec("ipywidgets") is not None if notebook else sys.stderr.isatty()
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            _ImagesDone(),
            _Speed(),
            _TimeLeft(),
            console=self._console,
            transient=True,
            disable=quiet or not drawable,
        )
        self._task: TaskID | None = None
        self._best: EpochRecord | None = None

    def __enter__(self) -> ProgressDisplay:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def stage(self, name: str, images: int) -> None:
        """Begin a part of the work on a number of images; 0 if they are not counted."""
        if self._task is not None:
            self._bar.remove_task(self._task)
        self._task = self._bar.add_task(name, total=images or None)

    def advance(self, images: int) -> None:
        """Count images that are done."""
        if self._task is not None:
            self._bar.advance(self._task, images)

    def log(self, line: str) -> None:
        """Print a message above the bar."""
        if not self._quiet:
            self._console.print(printable(line), soft_wrap=True)

    def warn(self, line: str) -> None:
        """Print a warning above the bar, also in quiet mode."""
        self._console.print(f"warning: {printable(line)}", soft_wrap=True)

    def on_epoch(self, epoch: EpochRecord) -> None:
        """Print an epoch's figures, and the best accuracy so far if another epoch has it."""
        if self._best is None or epoch.evaluation_accuracy > self._best.evaluation_accuracy:
            self._best = epoch
        best = f"   best {self._best.evaluation_accuracy:.2%} (epoch {self._best.epoch})"
        self.log(
            f"epoch {epoch.epoch:>3}   train loss {epoch.train_loss:.4f}, accuracy {epoch.train_accuracy:6.2%}"
            f"   evaluation loss {epoch.evaluation_loss:.4f}, accuracy {epoch.evaluation_accuracy:6.2%}"
            f"   {epoch.train_seconds:.1f} + {epoch.evaluation_seconds:.1f} s{'' if self._best is epoch else best}"
        )
