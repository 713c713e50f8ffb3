"""Runs are found below a folder and read in a moment; what cannot be read is listed as damaged."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

import zoo
from zoo import Backbone, UsageError
from zoo_harness.runs.found_runs import list_runs, read_found, run_folders

from ..saved_runs import edit_record, save_run


def test_a_finished_run_is_listed_with_its_accuracy(finished: zoo.Run) -> None:
    [found] = list_runs(finished.directory.parent)
    record = finished.record
    accuracy, split = record.headline
    assert accuracy is not None
    assert (found.folder, found.state, found.backbone) == (str(finished.directory), "finished", record.backbone.name)
    assert (found.accuracy, found.standard_error) == (accuracy.value, accuracy.standard_error)
    assert (found.dataset, found.split, found.started) == (record.dataset.title, split.split, record.started)


def test_killed_and_damaged_runs_are_told_apart(tiny_resnet: Backbone, tmp_path: Path) -> None:
    for name in ("b/running", "a", "b/newer", "c", ".hidden"):
        (tmp_path / name).mkdir(parents=True)
        save_run(tiny_resnet, tmp_path / name)
    (tmp_path / "nothing").mkdir()
    edit_record(tmp_path / "b" / "running", lambda record: record.update(status="running"))
    edit_record(tmp_path / "b" / "newer", lambda record: record.update(format="blockzoo run 2"))
    (tmp_path / "c" / "run.json").write_text("[" * 100_000)
    (tmp_path / "c" / "inner").mkdir()
    folders = [str(path.relative_to(tmp_path)) for path in run_folders(tmp_path)]
    assert folders == ["a", "b/newer", "b/running", "c"]
    found = {Path(each.folder).name: each for each in list_runs(tmp_path)}
    states = {name: each.state for name, each in found.items()}
    assert states == {"a": "finished", "newer": "newer", "running": "killed", "c": "damaged"}
    assert "blockzoo run 2" in str(found["newer"].fault)
    assert found["a"].accuracy is None
    descriptor = os.open(tmp_path / "b" / "running", os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)  # as a process that runs it does
    assert read_found(tmp_path / "b" / "running").state == "running"
    os.close(descriptor)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as refused:
        list_runs(tmp_path / "nowhere")
    assert refused.value.code == "no-such-folder"


def test_neither_torch_nor_numpy_is_imported(finished: zoo.Run) -> None:
    code = (
        "import sys; from zoo_harness.cli.main import run; from zoo_harness.cli.options import complete_run; "
        f"assert run(['runs', {str(finished.directory.parent)!r}]) == 0; complete_run('x'); "
        "print(sorted({'torch', 'numpy', 'scipy'} & {*sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
