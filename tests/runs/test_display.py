"""The bar as a terminal and a notebook get it."""

from __future__ import annotations

import os
import sys

import nbformat
import pytest
from nbclient import NotebookClient

from zoo_harness.records.run import EpochRecord
from zoo_harness.runs.display import ProgressDisplay
from zoo_harness.runs.reporter import LoggingReporter

PROGRAM = """
from zoo_harness.runs.display import ProgressDisplay
with ProgressDisplay() as progress:
    progress.stage({name!r}, {images})
    progress.advance(3)
    progress._bar.refresh()
    progress.log("a line")
"""


@pytest.mark.parametrize("images", [1200, 0])
def test_a_bar_in_a_terminal_counts_images_if_their_number_is_known(
    images: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = os.openpty()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with os.fdopen(theirs, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        exec(PROGRAM.format(name="features", images=images), {})  # noqa: S102 - our own
        drawn = os.read(ours, 65536).decode()
    os.close(ours)
    assert "features" in drawn
    assert ("3/1,200 images" in drawn) == bool(images)
    assert "?" not in drawn.replace("\x1b[?25", "")
    assert images or "-:--" not in drawn


def test_a_notebook_without_ipywidgets_shows_lines_and_no_warning() -> None:
    blocked = "import sys, warnings; sys.modules['ipywidgets'] = None; warnings.simplefilter('error')\n"
    cell = nbformat.v4.new_code_cell(blocked + PROGRAM.format(name="features", images=1200))
    notebook = nbformat.v4.new_notebook(cells=[cell])
    NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    assert "a line" in str(cell.outputs)
    assert "warn" not in str(cell.outputs).lower()
    assert "ipywidgets" not in str(cell.outputs)


def epoch(number: int, accuracy: float) -> EpochRecord:
    figures = {"train_loss": 1.0, "train_accuracy": 0.1, "evaluation_loss": 1.0, "train_seconds": 0.1}
    return EpochRecord(epoch=number, evaluation_accuracy=accuracy, evaluation_seconds=0.1, **figures)


def test_a_resumed_run_prints_the_best_epoch_of_its_whole_history(capsys: pytest.CaptureFixture[str]) -> None:
    history = [epoch(1, 0.4), epoch(2, 0.75), epoch(3, 0.75), epoch(4, 0.5), epoch(5, 0.8)]
    with ProgressDisplay() as straight:
        for each in history:
            straight.on_epoch(each)
    expected = capsys.readouterr().err.splitlines()
    with ProgressDisplay() as resumed:
        resumed.on_resume(history[:3])
        for each in history[3:]:
            resumed.on_epoch(each)
    first, *lines = capsys.readouterr().err.splitlines()
    assert first == "resumed after epoch 3   best 75.00% (epoch 2)"
    assert lines == expected[3:]
    assert [line.endswith("best") for line in expected] == [False, True, False, False, True]


@pytest.mark.parametrize(("split", "shown"), [("held-out", "held-out"), ("test", "test"), (None, "evaluation")])
def test_an_epoch_names_the_split_that_was_evaluated(
    split: str | None, shown: str, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    figures = {"train_loss": 1.5, "train_accuracy": 0.5, "train_seconds": 2.0, "evaluation_seconds": 1.0}
    epoch = EpochRecord(epoch=1, evaluation_loss=0.5, evaluation_accuracy=0.25, evaluation_split=split, **figures)
    with ProgressDisplay() as display, caplog.at_level("INFO", "zoo"):
        display.on_epoch(epoch)
        LoggingReporter().on_epoch(epoch)
    assert f"{shown} 25.00%, loss 0.500" in capsys.readouterr().err
    assert caplog.messages == [f"epoch 1: {shown} accuracy 0.2500"]
