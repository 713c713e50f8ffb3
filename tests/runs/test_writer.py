"""The files of a run, from the process that writes and from those that do not."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.text import Text
from torch import nn

from zoo import UsageError
from zoo_harness.evaluation.confusion import Confusion
from zoo_harness.frozen.cache.placement import CachePolicy
from zoo_harness.records.run import EpochRecord, RunRecord, read_run
from zoo_harness.records.steps import StepRecord
from zoo_harness.reports.run_card import render_card
from zoo_harness.runs.directory import check_out, claim_directory, claim_folder
from zoo_harness.runs.session import execute_run
from zoo_harness.runs.writer import NoWriter, RunWriter
from zoo_harness.training.state import PREVIOUS
from zoo_harness.util.progress import Silence

from ..reports.test_run_card import FINISHED, INTERRUPTED
from .test_frozen_features import planned


def test_the_users_text_in_the_card_survives_the_end_of_a_run(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path)
    assert writer.finish(INTERRUPTED)[1] is None
    written = (tmp_path / "README.md").read_text()
    (tmp_path / "README.md").write_text(f"{written}\n## Notes\n\nMine.\n")
    record, fault = writer.finish(FINISHED)
    assert fault is None
    assert (tmp_path / "README.md").read_text() == f"{render_card(record)}\n## Notes\n\nMine.\n"


def test_a_card_that_cannot_be_merged_is_left_and_the_run_ends_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("# By hand\n")
    record, fault = RunWriter(tmp_path).finish(FINISHED)
    assert str(tmp_path / "README.new.md") in (fault or "")
    assert (tmp_path / "README.md").read_text() == "# By hand\n"
    assert (tmp_path / "README.new.md").read_text() == render_card(record)
    assert read_run(tmp_path) == record == FINISHED.model_copy(update={"plots": (), "checkpoint_sha256": None})


def test_a_second_writer_of_a_running_run_is_refused(tmp_path: Path) -> None:
    with RunWriter(tmp_path).locked(), pytest.raises(UsageError) as refused, RunWriter(tmp_path).locked():
        pass
    assert refused.value.code == "run-is-running"


def test_what_a_killed_process_left_is_removed_and_files_of_the_user_stay(tmp_path: Path) -> None:
    names = [".training_state.safetensors.01234567.tmp", ".run.json.89abcdef.tmp", ".loss.png.00000000.tmp"]
    for name in (*names, ".mine.tmp", ".notes.md.01234567.tmp"):
        (tmp_path / name).touch()
    with RunWriter(tmp_path).locked():
        assert {path.name for path in tmp_path.iterdir()} == {".mine.tmp", ".notes.md.01234567.tmp"}


def test_the_state_before_the_last_is_removed_when_the_run_is_finished(tmp_path: Path) -> None:
    (tmp_path / PREVIOUS).touch()
    RunWriter(tmp_path).finish(INTERRUPTED)
    assert (tmp_path / PREVIOUS).exists()
    RunWriter(tmp_path).finish(FINISHED)
    assert not (tmp_path / PREVIOUS).exists()


def test_a_process_that_does_not_write_leaves_no_file(tmp_path: Path) -> None:
    writer = NoWriter(tmp_path)
    with writer.locked(), writer.events(1) as events:
        writer.record(FINISHED)
        writer.history([])
        writer.curves((), FINISHED, 1)
        writer.checkpoint(torch.nn.Linear(1, 1), FINISHED)
        writer.steps([STEP])
        assert writer.keep_steps(1) == ()
        events.begin(FINISHED, [EPOCH], [STEP])
        events.epoch(EPOCH)
        events.steps([STEP])
        events.finish(FINISHED)
        assert writer.finish(FINISHED) == (FINISHED, None)
    assert list(tmp_path.iterdir()) == []


EPOCH = EpochRecord(
    epoch=1, train_loss=1.5, train_accuracy=0.5, evaluation_loss=2.5, evaluation_accuracy=0.25, train_seconds=3.0,
    evaluation_seconds=4.0,
)  # fmt: skip
STEP = StepRecord(step=1, epoch=1, loss=1.5, learning_rate=0.1, images_per_second=10.0)


class InterruptedWriter(RunWriter):
    """A writer that gets Ctrl-C while it writes the checkpoint."""

    def checkpoint(self, network: nn.Module, record: RunRecord) -> None:
        signal.raise_signal(signal.SIGINT)
        super().checkpoint(network, record)


def test_an_interrupt_while_a_finished_run_is_written_leaves_it_finished(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        execute_run(planned(), InterruptedWriter(tmp_path), CachePolicy("off"), Silence())
    record = read_run(tmp_path)
    assert (record.status, record.results.epochs_done) == ("finished", 2)
    assert record.checkpoint_sha256 is not None


def test_folders_are_new_and_of_one_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folders = [claim_folder(None, "layers") for _each in range(3)]
    assert len({*folders}) == 3
    assert {folder.parent for folder in folders} == {Path("runs")}
    claim_directory(tmp_path / "mine", "net", "data")
    (tmp_path / "file").touch()
    check_out(None)
    check_out(tmp_path / "new")
    for folder, code in (("mine", "out-not-empty"), ("file", "out-is-a-file")):
        with pytest.raises(UsageError) as refused:
            check_out(tmp_path / folder)
        assert (refused.value.code, refused.value.facts["path"]) == (code, str(tmp_path / folder))
    with pytest.raises(UsageError) as refused:
        claim_directory(tmp_path / "mine", "net", "data")
    assert refused.value.code == "out-taken"


def test_plots_name_the_run_and_are_the_same_bytes_every_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    about = FINISHED.dataset.model_copy(update={"title": "a </svg><script> $x$ & b"})
    record = FINISHED.model_copy(update={"dataset": about})
    shown: list[str] = []
    write = Figure.savefig

    def remember(figure: Figure, *given: Any, **options: Any) -> None:
        write(figure, *given, **options)
        shown.append(" ".join(text.get_text() for text in figure.findobj(Text)))

    monkeypatch.setattr(Figure, "savefig", remember)
    first, again, plain = (tmp_path / name for name in ("first", "again", "plain"))
    confusion = Confusion(split="test", classes=("cat", "dog"), counts=((3, 1), (0, 4)))
    for folder in (first, again, plain):
        folder.mkdir()
        writer = RunWriter(folder, svg=folder != plain)
        writer.curves((EPOCH,), record, 4)
        writer.confusion(confusion, record)
    recipe = f"recipe {record.settings.recipe}, {record.settings.training.epochs} epochs, seed 0; 2026-11-22"
    title = f"{record.backbone.name} on a </svg><script> $x$ & b, test split"
    assert all(recipe in text and title in text for text in shown)
    names = [f"{name}.{kind}" for name in ("accuracy", "confusion", "loss") for kind in ("png", "svg")]
    assert sorted(path.name for path in first.iterdir() if path.suffix != ".json") == names
    assert all((first / name).read_bytes() == (again / name).read_bytes() for name in names)
    roots = [ElementTree.fromstring((first / name).read_bytes()) for name in names[1::2]]  # noqa: S314 - our own
    assert all(root.tag.endswith("svg") for root in roots)
    assert sorted(path.name for path in plain.iterdir() if path.suffix != ".json") == names[::2]
    assert all((first / name).read_bytes() == (plain / name).read_bytes() for name in names[::2])
