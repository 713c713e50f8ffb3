"""What a run writes, by the process that writes and by those that do not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from zoo import UsageError
from zoo_harness.records.run import read_run
from zoo_harness.reports.run_card import render_card
from zoo_harness.runs.writer import NoWriter, RunWriter

from ..reports.test_run_card import FINISHED, INTERRUPTED


def test_what_a_person_wrote_into_the_card_survives_the_end_of_a_run(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path)
    assert writer.finish(INTERRUPTED) is None
    written = (tmp_path / "README.md").read_text()
    (tmp_path / "README.md").write_text(f"{written}\n## Notes\n\nMine.\n")
    assert writer.finish(FINISHED) is None
    assert (tmp_path / "README.md").read_text() == f"{render_card(FINISHED)}\n## Notes\n\nMine.\n"


def test_a_card_that_cannot_be_merged_is_left_and_the_run_ends_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("# By hand\n")
    fault = RunWriter(tmp_path).finish(FINISHED)
    assert fault is not None
    assert "no part marked" in fault
    assert str(tmp_path / "README.new.md") in fault
    assert (tmp_path / "README.md").read_text() == "# By hand\n"
    assert (tmp_path / "README.new.md").read_text() == render_card(FINISHED)
    assert read_run(tmp_path) == FINISHED


def test_a_second_writer_of_a_running_run_is_refused(tmp_path: Path) -> None:
    with RunWriter(tmp_path).locked(), pytest.raises(UsageError) as refused, RunWriter(tmp_path).locked():
        pass
    assert refused.value.code == "run-is-running"


def test_a_process_that_does_not_write_leaves_no_file(tmp_path: Path) -> None:
    writer = NoWriter(tmp_path)
    with writer.locked(), writer.events(wanted=True) as add:
        writer.record(FINISHED)
        writer.history([])
        writer.curves((), FINISHED, 1)
        writer.checkpoint(torch.nn.Linear(1, 1), FINISHED)
        assert add is not None
        assert writer.written() == {}
        assert writer.finish(FINISHED) is None
    assert list(tmp_path.iterdir()) == []
