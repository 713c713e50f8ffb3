"""``zoo runs`` lists the runs of a folder within 80 columns, and shells complete their folders."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from zoo import Backbone, ZooError
from zoo_harness.cli.app import command
from zoo_harness.cli.main import run
from zoo_harness.cli.options import complete_run
from zoo_harness.runs.found_runs import run_folders

from ...saved_runs import edit_record, save_run


@pytest.fixture
def folder(tiny_resnet: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("runs/first", "runs/second"):
        (tmp_path / name).mkdir(parents=True)
        save_run(tiny_resnet, tmp_path / name)
    scored = {"value": 0.875, "standard_error": 0.0125, "n": 700}
    edit_record(tmp_path / "runs" / "first", lambda record: record["results"].update(accuracy=scored))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_runs_are_listed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["runs"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["run", "state", "backbone", "dataset", "accuracy", "%", "started", "(UTC)"]
    assert " ".join(lines[1].split()) == "first finished tiny_resnet Pets 87.50 ± 1.25 2026-11-22 09:30"
    assert " ".join(lines[2].split()) == "second finished tiny_resnet Pets - 2026-11-22 09:30"
    assert run(["runs", ".", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [(each["folder"], each["accuracy"]) for each in listed] == [("runs/first", 0.875), ("runs/second", None)]
    (folder / "runs" / "second").rename(folder / "runs" / ("long" * 15))
    edit_record(folder / "runs" / "first", lambda record: record["dataset"].update(title="\x1b[31mred" + "y" * 999))
    assert run(["runs"]) == 0
    text = capsys.readouterr().out
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) <= 80


def test_a_damaged_run_is_named_and_the_others_are_listed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "runs" / "second" / "run.json").write_text("{")
    assert run(["runs"]) == 1
    captured = capsys.readouterr()
    assert "first" in captured.out
    assert captured.err.startswith("error: runs/second is damaged: ")


def test_a_folder_without_runs(folder: Path, error_of: Callable[..., ZooError]) -> None:
    (folder / "empty").mkdir()
    assert run(["runs", "empty"]) == 0
    assert error_of("runs", "nowhere").code == "no-such-folder"


def test_shells_complete_folders_of_runs(folder: Path) -> None:
    assert complete_run("") == complete_run("runs/") == ["runs/first", "runs/second"]
    assert complete_run("runs/s") == ["runs/second"]
    assert complete_run(f"{folder}/runs/f") == [f"{folder}/runs/first"]
    assert complete_run("nowhere/") == []


def test_every_command_completes_the_runs_that_it_takes(folder: Path) -> None:
    taking = [
        *("show", "publish", "predict", "eval", "card", "features", "rank", "compare", "layers --run"),
        *("eval --resume", "eval --weights", "train --resume", "rank --against", "compare --baseline"),
    ]
    for name, _, option in (words.partition(" ") for words in taking):
        found = command().commands[name]
        context = found.make_context(name, [], resilient_parsing=True)
        arguments = [each for each in found.params if each.param_type_name == "argument"]
        taken = [each for each in found.params if option in each.opts] if option else arguments[:1]
        values = [each.value for each in taken[0].shell_complete(context, "runs/f")]
        assert values == ["runs/first"], (folder, name, option)


def test_completion_searches_a_bounded_number_of_folders(folder: Path) -> None:
    assert [*run_folders(folder, most=1)] == []
    assert [*run_folders(folder, most=4)] == [folder / "runs" / "first", folder / "runs" / "second"]
