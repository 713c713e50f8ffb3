"""A run to look at: what was recorded, safely shown, and cheap to open."""

from __future__ import annotations

import copy
import html
import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import zoo
from zoo import Backbone, DataError, UsageError, ZooError
from zoo_harness.hub.publication import publishable, write_tree
from zoo_harness.records.run import EpochRecord, read_run
from zoo_harness.records.subset import Subset
from zoo_harness.runs.run import Run, open_run

from ..saved_runs import edit_record, save_run, train_run

HEAVY = {"torch", "timm", "numpy", "PIL", "matplotlib", "pandas", "huggingface_hub", "jinja2"}


@pytest.fixture(scope="module")
def finished(tiny_resnet: Backbone, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was really trained, with a test split kept for the end."""
    folder = tmp_path_factory.mktemp("runs") / "blobs"
    images = np.random.default_rng(0).integers(0, 256, (24, 8, 8, 3)).astype(np.uint8)
    dataset = zoo.in_memory(images, [0, 1] * 12, classes=["cat", "dog"], test=(images[:8], [0, 1] * 4), name="blobs")
    train_run(tiny_resnet, dataset, folder, Subset(val_fraction=0.25), with_test=True)
    return folder


@pytest.fixture
def folder(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def refusal(path: Any) -> ZooError:
    with pytest.raises((UsageError, DataError)) as caught:
        open_run(path)
    assert "\n" not in str(caught.value)
    return caught.value


# What a finished run has


def test_everything_of_a_finished_run(finished: Path) -> None:
    run = zoo.open_run(finished)
    record = read_run(finished)
    assert isinstance(run, zoo.Run)
    assert (run.directory, run.record, run.status) == (finished, record, "finished")
    assert run.accuracy == record.results.test_accuracy is not None
    assert [line.epoch for line in run.history] == [1, 2]
    assert run.history[-1].evaluation_accuracy == record.results.accuracy.value
    assert run.card == (finished / "README.md").read_text()
    assert {"loss", "accuracy", "samples", "confusion", "layers"} <= set(run.plots)
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in run.plots.values())
    predictions, split = run.predictions, record.headline[1]
    assert (predictions.split, predictions.fingerprint, predictions.classes) == (split.split, split.fingerprint, 2)
    assert len(predictions) == split.images
    assert predictions.hits.mean() == run.accuracy.value
    assert run.load().predict(np.zeros((8, 8), np.uint8))[0] in ("cat", "dog")


def test_the_separation_is_of_the_split_that_the_accuracy_is_of(finished: Path, folder: Path) -> None:
    results, found = read_run(finished).results, open_run(finished).separation
    assert (found.split, found.layer) == ("test", "global_pool")
    assert (found.si, found.centre) == (results.separation_after.test.si, results.separation_after.test.centre)
    assert (found.before, found.raw_pixels) == (None, results.separation_raw_pixels.test)
    edit_record(folder, lambda record: record["results"].update(test_accuracy=None))
    other = open_run(folder).separation
    assert (other.split, other.si) == ("held out of train", results.separation_after.evaluation.si)
    assert other.before == results.separation_before.evaluation


def test_a_run_that_has_measured_nothing(tiny_resnet: Backbone, tmp_path: Path) -> None:
    save_run(tiny_resnet, tmp_path)
    run = open_run(tmp_path)
    assert (run.accuracy, run.separation, run.history, run.plots, run.card) == (None, None, (), {}, None)
    assert "not measured" in repr(run)
    assert "not measured" in run._repr_html_()


def test_a_published_checkpoint_opens_too(finished: Path, tmp_path: Path) -> None:
    write_tree(publishable(finished), tmp_path / "tree")
    run = open_run(tmp_path / "tree")
    assert run.accuracy == open_run(finished).accuracy
    assert run.history == open_run(finished).history
    assert run == open_run(tmp_path / "tree" / "zoo.json")


def test_predictions_that_are_absent_or_of_another_run(folder: Path) -> None:
    (folder / "predictions.safetensors").write_bytes(b"")
    with pytest.raises(DataError) as refused:
        _ = open_run(folder).predictions
    assert refused.value.code == "predictions-invalid"
    assert refused.value.facts["path"] == str(folder / "predictions.safetensors")
    (folder / "predictions.safetensors").unlink()
    assert open_run(folder).predictions is None
    edit_record(folder, lambda record: record["results"].pop("predictions"))  # as an earlier version wrote it
    assert open_run(folder).predictions is None


# Ways to name a run


def test_a_run_is_named_by_its_folder_or_its_record(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder.parent))
    monkeypatch.chdir(folder.parent)
    named = [open_run(path) for path in (folder, str(folder), folder / "run.json", "run/", "run/run.json", "~/run")]
    assert set(named) == {open_run(folder)}
    monkeypatch.chdir("/")
    assert all(len(run.history) == 2 for run in named)


@pytest.mark.parametrize(
    "path", ["nowhere", "someone/cats", "", ".", 3, None, b"run", "~nobody-of-this-name/run", "x" * 5000, "a\0b"]
)
def test_what_is_no_run_is_refused(path: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert refusal(path).code == "not-a-run"


def test_other_files_are_refused(folder: Path) -> None:
    assert refusal(folder / "README.md").code == "not-a-run"
    assert refusal(folder / "config.json").code == "not-a-run"
    edit_record(folder, lambda record: record.update(format="blockzoo run 9"))
    error = refusal(folder)
    assert (error.code, error.facts["path"], error.facts["field"]) == (
        "record-of-another-version",
        str(folder / "run.json"),
        "format",
    )
    with (folder / "run.json").open("r+b") as file:
        file.truncate(2**33)
    assert refusal(folder).code == "too-large"
    (folder / "run.json").unlink()
    os.mkfifo(folder / "run.json")
    assert refusal(folder).code == "not-a-file"


def test_opening_a_run_and_looking_at_it_imports_nothing_heavy(finished: Path) -> None:
    program = (
        f"import sys, zoo; run = zoo.open_run({str(finished)!r}); run.history, run.accuracy, run.separation, run.card; "
        f"repr(run), run._repr_html_(), run.plots; print(*{HEAVY!r} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


# Reading a history


GOOD = EpochRecord(
    epoch=1, train_loss=1.0, train_accuracy=0.5, evaluation_loss=1.0, evaluation_accuracy=0.5, train_seconds=1.0,
    evaluation_seconds=1.0,
)  # fmt: skip


@pytest.mark.parametrize(
    ("lines", "line"),
    [
        ("not JSON\n", 1),
        ('{"epoch": 1}\n', 1),
        (GOOD.model_dump_json()[:-1] + ', "more": 1}\n', 1),
        (f"{GOOD.model_dump_json()}\n\n", 2),
        (f"{GOOD.model_dump_json()}\n{GOOD.model_dump_json()}\n", 2),
        (GOOD.model_copy(update={"epoch": 2}).model_dump_json() + "\n", 1),
        (GOOD.model_dump_json().replace("1.0", '"high"') + "\n", 1),
    ],
)
def test_a_history_is_read_strictly(folder: Path, lines: str, line: int) -> None:
    (folder / "history.jsonl").write_text(lines)
    run = open_run(folder)
    with pytest.raises(DataError) as caught:
        run.history  # noqa: B018 - asked for its error
    assert (caught.value.code, caught.value.facts["line"]) == ("history-invalid", line)


def test_a_history_that_is_being_written(folder: Path) -> None:
    (folder / "history.jsonl").write_text(f'{GOOD.model_dump_json()}\n{{"epoch": 2, "train_l')
    assert open_run(folder).history == (GOOD,)
    (folder / "history.jsonl").write_text("")
    assert open_run(folder).history == ()
    with (folder / "history.jsonl").open("r+b") as file:
        file.truncate(2**33)
    with pytest.raises(DataError) as caught:
        open_run(folder).history  # noqa: B018
    assert caught.value.code == "too-large"


def test_a_history_as_a_table(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pandas = pytest.importorskip("pandas")
    history = open_run(finished).history
    frame = history.to_pandas()
    assert isinstance(frame, pandas.DataFrame)
    assert list(frame.columns) == list(EpochRecord.model_fields)
    assert frame.evaluation_loss.tolist() == [line.evaluation_loss for line in history]
    assert list(type(history)().to_pandas().columns) == list(frame.columns)
    assert history._repr_html_().count("<tr>") == 3
    assert "last 50 of 60 epochs" in type(history)([GOOD] * 60)._repr_html_()
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(UsageError) as caught:
        history.to_pandas()
    assert (caught.value.code, caught.value.facts["package"]) == ("pandas-missing", "pandas")


# Showing a run


def test_a_run_is_an_object_to_read(finished: Path, folder: Path) -> None:
    run = open_run(finished)
    for name in ("directory", "record", "history", "accuracy", "status", "card", "plots"):
        with pytest.raises(AttributeError):
            setattr(run, name, None)
    assert run == open_run(finished) == copy.deepcopy(run) == pickle.loads(pickle.dumps(run))  # noqa: S301
    assert run != open_run(folder)
    assert run != finished
    assert len({run, open_run(finished), open_run(folder)}) == 2
    assert Run(finished, read_run(finished)) == run


def test_a_run_in_a_line_or_two(finished: Path) -> None:
    lines = repr(open_run(finished)).splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("<zoo.Run of resnet18 on blobs: finished, test accuracy ")
    assert lines[1] == str(finished)


def test_a_run_in_a_notebook(finished: Path) -> None:
    shown = open_run(finished)._repr_html_()
    assert shown.count("data:image/png;base64,") == 2
    for cell in ("backbone", "blobs", "finished, 2 of 2 epochs", "8 images of the split test", "SI after training"):
        assert cell in shown


def test_names_from_strangers_are_text(folder: Path) -> None:
    hostile = '<script>alert("x")</script>\x1b[31m\u202e' + "y" * 10_000

    def spoil(record: dict[str, Any]) -> None:
        record["backbone"].update(name=hostile, title=hostile)
        record["dataset"].update(title=hostile)
        record["dataset"]["test"].update(split=hostile)

    edit_record(folder, spoil)
    run = open_run(folder)
    shown, lines = run._repr_html_(), repr(run).splitlines()
    assert "<script" not in shown
    assert html.escape('<script>alert("x")</script>') in shown
    assert "y" * 400 not in shown
    assert len(lines) == 2
    assert len(lines[0]) < 300
    assert not {"\x1b", "\u202e"} & {*shown, *lines[0]}


def test_only_small_pictures_are_shown(folder: Path) -> None:
    (folder / "loss.png").write_bytes((folder / "loss.png").read_bytes() + bytes(2**20))
    (folder / "accuracy.png").write_text("a secret")
    shown = open_run(folder)._repr_html_()
    assert "data:" not in shown
    assert len(shown) < 5000
    (folder / "loss.png").unlink()
    assert "loss" not in open_run(folder).plots


def test_the_names_of_plots_lead_nowhere_else(folder: Path) -> None:
    edit_record(folder, lambda record: record.update(plots=["../secret.png"]))
    assert refusal(folder).code == "record-invalid"
    assert json.loads((folder / "run.json").read_text())["plots"] == ["../secret.png"]
