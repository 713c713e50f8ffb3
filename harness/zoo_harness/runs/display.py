"""Show the progress of a run: a bar with the remaining time in a terminal or notebook, otherwise one line per epoch."""

from __future__ import annotations

import importlib.util
import sys
import textwrap
from collections.abc import Sequence

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Column
from rich.text import Text

from zoo.text import escaped
from zoo_harness.records.run import EpochRecord, best_epoch

_BAR, _WIDE = 24, 100  # The bar has 24 columns; in a terminal of fewer than 100 columns it has 12.


class _Images(ProgressColumn):
    """Shows processed images, total images and images per second; empty if the stage does not count images."""

    def render(self, task: Task) -> Text:
        """Render the column."""
        if task.total is None:
            return Text("")
        speed = f"  {task.speed:,.0f}/s" if task.speed else ""
        return Text(f"{task.completed:,.0f}/{task.total:,.0f} images{speed}")


class ProgressDisplay:
    """Context manager that shows the progress of a run on standard error, and removes the progress bar on exit."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._console = Console(stderr=True, highlight=False, markup=False)
        # In a notebook, rich needs ipywidgets to draw a bar, and warns if they are not installed.
        notebook = self._console.is_jupyter
        drawable = importlib.util.find_spec("ipywidgets") is not None if notebook else sys.stderr.isatty()
        self._bar = Progress(
            TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True)),
            BarColumn(bar_width=_BAR if self._console.width >= _WIDE else _BAR // 2),
            _Images(table_column=Column(no_wrap=True)),
            TimeRemainingColumn(compact=True, table_column=Column(no_wrap=True)),
            console=self._console,
            transient=True,
            disable=quiet or not drawable,
        )
        self._best: EpochRecord | None = None

    def __enter__(self) -> ProgressDisplay:
        self._bar.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._bar.stop()

    def stage(self, name: str, images: int) -> None:
        """Start a stage of the run that processes ``images`` images; 0 means that the stage does not count images."""
        for earlier in self._bar.task_ids:
            self._bar.remove_task(earlier)
        room = max(self._console.width - self._bar_room(images), 16)
        shown = escaped(name)
        shown = shown if len(shown) <= room else f"{shown[: room - 3]}..."
        self._bar.add_task(shown, total=images or None)

    def _bar_room(self, images: int) -> int:
        """Return the number of columns that the bar, the image count, the speed and the remaining time occupy."""
        bar = _BAR if self._console.width >= _WIDE else _BAR // 2
        count = len(f"{images:,}/{images:,} images") + len("  99,999/s") if images else 0
        return bar + count + len("0:00:00") + 4

    def advance(self, images: int) -> None:
        """Add a number of images to the count of processed images."""
        for task in self._bar.task_ids:
            self._bar.advance(task, images)

    def log(self, line: str) -> None:
        """Print a message above the bar."""
        if not self._quiet:
            self._print(line)

    def warn(self, line: str) -> None:
        """Print a warning above the bar, even in quiet mode."""
        self._print(f"warning: {line}")

    def _print(self, line: str) -> None:
        """Print a line; at a terminal, wrap the line between words to the width of the terminal."""
        text = escaped(line)
        if self._console.is_terminal:
            width = max(self._console.width, 20)
            text = textwrap.fill(text, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
        self._console.print(text, soft_wrap=True)

    def on_resume(self, history: Sequence[EpochRecord]) -> None:
        """Print after which epoch the run resumes, and which finished epoch is the best."""
        self._best = best_epoch(history)
        if self._best is not None:
            best = f"best {self._best.evaluation_accuracy:.2%} (epoch {self._best.epoch})"
            self.log(f"resumed after epoch {history[-1].epoch}   {best}")

    def on_epoch(self, epoch: EpochRecord) -> None:
        """Print the metrics of an epoch; mark a later epoch than the first if it is the best one so far."""
        before, self._best = self._best, best_epoch(filter(None, (self._best, epoch))) or epoch
        split = epoch.evaluation_split or "evaluation"
        best = "  best" if before is not None and self._best is epoch else ""
        self.log(
            f"epoch {epoch.epoch:>3}  train {epoch.train_accuracy:6.2%}, loss {epoch.train_loss:.3f}"
            f"  {split} {epoch.evaluation_accuracy:6.2%}, loss {epoch.evaluation_loss:.3f}"
            f"  {epoch.train_seconds:.1f} + {epoch.evaluation_seconds:.1f} s{best}"
        )
