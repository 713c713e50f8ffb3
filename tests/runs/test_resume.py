"""A run that was cut short is resumed, and ends with the very checkpoint of one that was not."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import PIL.Image
import pytest
import torch
from hypothesis import HealthCheck, given as drawn, settings, strategies as st

import zoo
from zoo import Backbone, Dataset, UsageError, WeightsError, ZooError
from zoo_harness.records.run import EpochRecord, read_run
from zoo_harness.reports.run_card import render_card
from zoo_harness.runs.plan import Request, RunPlan, compute_context, prepare_run
from zoo_harness.runs.reporter import LoggingReporter
from zoo_harness.runs.request import RunCall, check_run
from zoo_harness.runs.resume import refuse_changes
from zoo_harness.runs.session import _continued, _Session
from zoo_harness.runs.writer import RunWriter
from zoo_harness.training.state import TrainingState
from zoo_harness.util.digests import sha256_of
from zoo_harness.util.progress import Silence

from ..saved_runs import edit_record
from .conftest import InterruptingReporter

OPTIONS: dict[str, Any] = {"per_class": 4, "epochs": 6, "schedule": "cosine", "warmup_epochs": 1, "keep": "best"}
OPTIONS |= {"label_smoothing": 0.1, "augment": "flip", "views": 2, "batch_size": 16}
PROGRAM = """
import os, pathlib, pickle, signal, sys
import zoo
from zoo_harness.runs.reporter import LoggingReporter

class Killer(LoggingReporter):
    def on_epoch(self, epoch):
        if epoch.epoch == 3:
            os.kill(os.getpid(), signal.SIGKILL)

backbone, options = pickle.loads(pathlib.Path(sys.argv[1]).read_bytes())
zoo.evaluate(backbone, "digits", progress=Killer(), out=sys.argv[2], **options)
"""


class Historian(LoggingReporter):
    """A reporter that keeps the epochs of an earlier process."""

    history: tuple[EpochRecord, ...] = ()

    def on_resume(self, history: tuple[EpochRecord, ...]) -> None:
        """Keep them."""
        self.history = history


@pytest.fixture
def interrupted(interrupted_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(interrupted_run, tmp_path / "run"))


def untimed(directory: Path) -> list[dict[str, Any]]:
    lines = map(json.loads, (directory / "history.jsonl").read_text().splitlines())
    return [{name: value for name, value in line.items() if not name.endswith("seconds")} for line in lines]


def test_a_killed_run_ends_with_the_same_checkpoint(backbone: Backbone, tmp_path: Path) -> None:
    straight, out, asked = tmp_path / "straight", tmp_path / "run", tmp_path / "asked"
    zoo.evaluate(backbone, "digits", out=straight, **OPTIONS)
    asked.write_bytes(pickle.dumps((backbone, OPTIONS)))
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}  # it may change the last bits
    killed = subprocess.run([sys.executable, "-c", PROGRAM, asked, out], env=environment, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert (read_run(out).status, read_run(out).results.epochs_done) == ("running", 3)
    names = {file.name for file in out.iterdir() if not file.name.endswith(".tmp")}
    states = {"training_state.safetensors", "training_state.previous.safetensors"}
    assert names == {"history.jsonl", "options.json", "run.json", "samples.png"} | states
    with pytest.raises(UsageError, match=rf"is still running, or was killed, after 3 of 6.*--resume {out}"):
        zoo.load(out)
    with pytest.raises(KeyboardInterrupt):
        zoo.evaluate(backbone, resume=out, progress=InterruptingReporter(epoch=5))
    assert read_run(out).status == "interrupted"
    assert read_run(out).results.layer_curve is None
    card = out / "README.md"
    card.write_text(f"{card.read_text()}\nMine.\n")
    record, expected = zoo.evaluate(backbone, resume=out).record, read_run(straight)
    for name in ("model.safetensors", "config.json"):
        assert sha256_of(out / name) == sha256_of(straight / name)
    assert untimed(out) == untimed(straight)
    assert record.status == "finished"
    for name in ("accuracy", "separation_before", "separation_after", "confusion", "layer_curve"):
        assert getattr(record.results, name) == getattr(expected.results, name) is not None
    assert card.read_text() == f"{render_card(record)}\nMine.\n"


def test_a_kill_between_the_state_and_the_record_of_an_epoch(
    finished: zoo.Run, backbone: Backbone, digits: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = Path(shutil.copytree(finished.directory, tmp_path / "run"))
    lines = (out / "history.jsonl").read_text().splitlines(keepends=True)
    (out / "history.jsonl").write_text(lines[0])
    (out / "model.safetensors").unlink()

    def behind(record: dict[str, Any]) -> None:
        record.update(status="running", checkpoint_sha256=None)
        record["results"]["epochs_done"] = 1
        record["versions"]["torch"] = "1.0"

    edit_record(out, behind)
    resumed = zoo.evaluate(backbone, digits, resume=out, progress=True)
    assert "warning: results may not be bit-identical" in capsys.readouterr().err
    assert resumed.record.results.epochs_done == 2
    assert resumed.record.checkpoint_sha256 == finished.record.checkpoint_sha256
    assert (out / "history.jsonl").read_text() == "".join(lines)
    assert "| epochs | 2 of 2 |" in (resumed.card or "")


def test_an_interrupted_run_is_resumed_to_the_same_bits(
    finished: zoo.Run, interrupted: Path, backbone: Backbone, digits: Dataset
) -> None:
    begun = read_run(interrupted)
    assert begun.results.epochs_done == 1
    heard = Historian()
    resumed = zoo.evaluate(backbone, digits, resume=interrupted, batch_size=16, svg=True, progress=heard)
    assert heard.history == resumed.history[:1]
    assert resumed.record.checkpoint_sha256 == finished.record.checkpoint_sha256
    assert (resumed.record.command, resumed.record.started) == (begun.command, begun.started)
    assert (interrupted / "loss.svg").is_file()  # a run without SVG may be resumed with it
    assert {path.suffix for path in resumed.plots.values()} == {".png"}


def test_input_size_and_moved_statistics_are_resumed_to_the_same_bits(
    backbone: Backbone, digits: Dataset, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"epochs": 3, "batch_size": 16, "keep": "best", "layer_curve": False}
    options |= {"input_size": 32, "frozen_batchnorm": "train"}
    straight = zoo.evaluate(backbone, digits, out=tmp_path / "straight", **options).record
    with pytest.raises(KeyboardInterrupt):
        zoo.evaluate(backbone, digits, out=tmp_path / "run", progress=InterruptingReporter(epoch=1), **options)
    resumed = zoo.evaluate(backbone, digits, resume=tmp_path / "run", input_size="32x32").record
    assert resumed.checkpoint_sha256 == straight.checkpoint_sha256
    assert resumed.settings.preprocessing.input_size == (32, 32)
    assert (resumed.settings.default_input_size, resumed.settings.frozen_batchnorm) == ((64, 64), "train")
    assert "statistics of 12 frozen BatchNorm layers (36 buffers), which are part" in render_card(resumed)
    assert "| input size | 32 x 32 pixels, chosen with --input-size; the default is 64 x 64 |" in render_card(resumed)
    found = zoo.load(tmp_path / "run")
    assert found.preprocess(torch.zeros(40, 50, dtype=torch.uint8)).shape == (1, 3, 32, 32)
    assert found.network.get_buffer("bn1.num_batches_tracked") in (5, 10, 15)  # steps until the best epoch


def test_a_resumed_run_that_is_interrupted_early_has_the_checkpoint_of_its_last_epoch(
    interrupted: Path, backbone: Backbone, digits: Dataset
) -> None:
    digest = sha256_of(interrupted / "model.safetensors")
    (interrupted / "model.safetensors").unlink()  # as after a kill
    with pytest.raises(KeyboardInterrupt) as caught:
        zoo.evaluate(backbone, digits, resume=interrupted, progress=InterruptingReporter(stage="looking where"))
    assert "the checkpoint up to epoch 1 of 2" in caught.value.__notes__[0]
    assert sha256_of(interrupted / "model.safetensors") == digest


def test_a_finished_or_running_run_is_left_alone(
    finished: zoo.Run, interrupted: Path, backbone: Backbone, digits: Dataset
) -> None:
    with pytest.raises(UsageError) as refused:
        zoo.evaluate(backbone, digits, resume=finished.directory)
    assert refused.value.code == "resume-finished"
    with RunWriter(interrupted).locked(), pytest.raises(UsageError) as refused:
        zoo.evaluate(backbone, digits, resume=interrupted)
    assert refused.value.code == "run-is-running"
    assert read_run(interrupted).status == "interrupted"


@pytest.mark.parametrize(
    ("options", "differing"),
    [
        ({"epochs": 9}, ["epochs"]),
        ({"learning_rate": 0.1, "seed": 3}, ["learning_rate", "seed"]),
        ({"layer_curve": False}, ["layer_curve"]),
        ({"augment": "flip", "per_class": 2}, ["augment", "per_class"]),
        ({"input_size": 32, "frozen_batchnorm": "train"}, ["input_size", "frozen_batchnorm"]),
    ],
)
def test_given_options_must_be_those_of_the_run(
    interrupted_run: Path, backbone: Backbone, digits: Dataset, options: dict[str, Any], differing: list[str]
) -> None:
    with pytest.raises(UsageError) as refused:
        zoo.evaluate(backbone, digits, resume=interrupted_run, **options)
    assert (refused.value.code, [*refused.value.facts["differing"]]) == ("resume-other-options", differing)


def test_an_option_that_differs_is_named_as_it_was_given(interrupted_run: Path, backbone: Backbone) -> None:
    with pytest.raises(UsageError, match=r": resnet18 \(the run has unreg.*, --no-layer-curve \(the run has True\)"):
        zoo.evaluate("resnet18", resume=interrupted_run, layer_curve=False)
    with pytest.raises(UsageError, match=r"--learning-rate 0.1 \(the run has the recipe's\)"):
        zoo.evaluate(backbone, resume=interrupted_run, learning_rate=0.1)


def test_settings_of_the_recipe_may_be_given_again(finished: zoo.Run, backbone: Backbone, digits: Dataset) -> None:
    with pytest.raises(UsageError) as refused:  # by what comes after the check of the options
        zoo.evaluate(backbone, digits, resume=finished.directory, learning_rate=1e-4, epochs=2)
    assert refused.value.code == "resume-finished"


def test_what_was_given_in_python_is_needed_again(interrupted_run: Path, backbone: Backbone) -> None:
    for given, code in (((), "resume-needs-backbone"), ((backbone,), "resume-needs-dataset")):
        with pytest.raises(UsageError) as refused:
            zoo.evaluate(*given, resume=interrupted_run)
        assert refused.value.code == code


def test_a_resumed_run_needs_its_options_and_its_own_folder(
    tmp_path: Path, interrupted_run: Path, backbone: Backbone, digits: Dataset
) -> None:
    for folders, code in (
        ({"resume": tmp_path}, "resume-no-options"),
        ({"resume": interrupted_run, "out": tmp_path}, "resume-with-out"),
    ):
        with pytest.raises(UsageError) as refused:
            zoo.evaluate(backbone, digits, **folders)
        assert refused.value.code == code


@pytest.mark.parametrize(
    ("part", "change", "differing"),
    [
        (("dataset", "train"), {"fingerprint": "0"}, "dataset.train.fingerprint"),
        (("weights",), {"sha256": "0" * 64}, "weights.sha256"),
        (("settings",), {"seed": 5}, "settings.seed"),
        (("backbone",), {"source_sha256": "0" * 64}, "backbone.source_sha256"),
    ],
)
def test_other_data_weights_or_settings_are_refused(
    interrupted: Path, part: tuple[str, ...], change: dict[str, object], differing: str
) -> None:
    now = read_run(interrupted)

    def other(record: dict[str, Any]) -> None:
        for name in part:
            record = record[name]
        record.update(change)

    edit_record(interrupted, other)
    with pytest.raises(UsageError) as refused:
        refuse_changes(read_run(interrupted), now, interrupted)
    assert (refused.value.code, refused.value.facts["differing"]) == ("resume-other-run", (differing,))


def test_a_record_from_before_duplicates_were_counted_is_resumed(interrupted: Path) -> None:
    now = read_run(interrupted)
    edit_record(interrupted, lambda record: record["dataset"].pop("duplicates"))
    assert read_run(interrupted).dataset.duplicates is None
    assert refuse_changes(read_run(interrupted), now, interrupted) == []


def test_other_images_are_refused(interrupted: Path, backbone: Backbone, scans: Callable[..., Dataset]) -> None:
    with pytest.raises(UsageError) as refused:
        zoo.evaluate(backbone, scans(1), resume=interrupted)
    assert refused.value.code == "resume-other-run"
    assert "dataset.train.fingerprint" in refused.value.facts["differing"]


def test_a_relative_folder_of_images_may_be_given_again_and_from_another_place(
    tmp_path: Path, backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(8):
        for split in ("train", "test"):
            path = tmp_path / "images" / split / ("a", "b")[number % 2] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            PIL.Image.effect_noise((16, 16), 20 + 60 * (number % 2)).save(path)
    (tmp_path / "link").symlink_to(tmp_path / "images")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    options: dict[str, Any] = {"epochs": 2, "layer_curve": False}
    with pytest.raises(KeyboardInterrupt):
        zoo.evaluate(backbone, "imagefolder:images", out="run", progress=InterruptingReporter(epoch=1), **options)
    for number, (given, place) in enumerate(
        [("imagefolder:images", "."), ("imagefolder:../link", "elsewhere"), (None, "elsewhere")]
    ):
        copy = shutil.copytree(tmp_path / "run", tmp_path / f"run{number}")
        monkeypatch.chdir(tmp_path / place)
        assert zoo.evaluate(backbone, given, resume=copy).record.results.epochs_done == 2
    with pytest.raises(UsageError) as refused:
        zoo.evaluate(backbone, f"imagefolder:{tmp_path / 'elsewhere'}", resume=tmp_path / "run")
    assert refused.value.facts["differing"] == ("dataset",)


def test_what_only_describes_the_data_is_no_difference(interrupted: Path) -> None:
    """Records of earlier versions lack some of it, and paths depend on where a command was typed."""
    now = read_run(interrupted)

    def earlier(record: dict[str, Any]) -> None:
        record["dataset"] |= {"argument": "images", "source": "folder /elsewhere", "title": "Images", "license": "x"}
        record["dataset"] |= {"reading": ["split train is folder train"], "skipped": {"missing files": 1}}

    edit_record(interrupted, earlier)
    assert refuse_changes(read_run(interrupted), now, interrupted) == []


def test_a_damaged_state_is_reported(interrupted: Path, backbone: Backbone, digits: Dataset) -> None:
    state = interrupted / "training_state.safetensors"
    state.write_bytes(state.read_bytes()[:-100])
    with pytest.raises(WeightsError, match=r"training_state\.safetensors cannot be read"):
        zoo.evaluate(backbone, digits, resume=interrupted)
    assert read_run(interrupted).status == "interrupted"  # nothing was written


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_files_of_another_run_are_refused_and_stay(
    interrupted: Path, backbone: Backbone, digits: Dataset, tmp_path: Path
) -> None:
    """The other run has another seed alone: every tensor has the same shape."""
    other, state = tmp_path / "other", "training_state.safetensors"
    options: dict[str, Any] = {"epochs": 2, "batch_size": 16, "seed": 1, "out": other}
    with pytest.raises(KeyboardInterrupt):
        zoo.evaluate(backbone, digits, progress=InterruptingReporter(epoch=1), **options)
    line = (interrupted / "history.jsonl").read_text()
    long = "".join(json.dumps(json.loads(line) | {"epoch": number}) + "\n" for number in range(1, 301))
    for name, replaced, code in (
        (state, (other / state).read_bytes(), "state-of-another-run"),
        ("history.jsonl", (other / "history.jsonl").read_bytes(), "history-of-another-run"),
        ("history.jsonl", long.encode(), "history-of-another-run"),
        ("options.json", (other / "options.json").read_bytes(), "resume-other-run"),
        (state, None, "history-of-another-run"),
    ):
        folder = tmp_path / f"{name}-{code}"
        shutil.copytree(interrupted, folder, dirs_exist_ok=True)
        (folder / name).write_bytes(replaced) if replaced else (folder / name).unlink()
        before = content(folder)
        with pytest.raises(ZooError) as refused:
            zoo.evaluate(backbone, digits, resume=folder)
        assert refused.value.code == code
        assert content(folder) == before


Result = TypeVar("Result")
FILES = ("run.json", "options.json", "history.jsonl", "training_state.safetensors")


def mutated(content: bytes, kind: str, place: float, piece: bytes) -> bytes:
    """Change some bytes: ``place`` in [0, 1) is where."""
    start = int(place * len(content))
    if kind == "flip":
        return content[:start] + bytes([content[start] ^ (1 << start % 8)]) + content[start + 1 :]
    if kind == "cut":
        return content[:start]
    if kind == "insert":
        return content[:start] + piece + content[start:]
    line = content.splitlines(keepends=True)[int(place * len(content.splitlines()))]
    return content.replace(line, b"" if kind == "drop" else line + line)


def taken_up(folder: Path, backbone: Backbone, digits: Dataset, plan: RunPlan) -> TrainingState:
    """Resume a run as far as its first step: everything is read and checked, and the state is restored."""
    checked = check_run(RunCall(backbone, digits, {"resume": folder}, plan.record.command))
    request = Request(**vars(checked.settings), compute=compute_context(checked.options.values))
    planned = plan if request == plan.request else prepare_run(request, Silence())
    writer = RunWriter(folder)
    with writer.locked():
        session = _Session(_continued(planned, folder, LoggingReporter()), writer, LoggingReporter())
        session.check_state()
        session.restore_state()
    return session._state


def attempted(function: Callable[[], Result]) -> Result | ZooError:
    try:
        return function()
    except ZooError as error:
        return error


@pytest.fixture(scope="module")
def unbroken(
    interrupted_run: Path, backbone: Backbone, digits: Dataset, tmp_path_factory: pytest.TempPathFactory
) -> tuple[RunPlan, Path, dict[str, torch.Tensor]]:
    """The plan of the interrupted run, its folder, and the tensors that it continues with."""
    folder = Path(shutil.copytree(interrupted_run, tmp_path_factory.mktemp("unbroken") / "run"))
    checked = check_run(RunCall(backbone, digits, {"resume": folder}, ("zoo",)))
    plan = prepare_run(Request(**vars(checked.settings), compute=compute_context(checked.options.values)), Silence())
    found = taken_up(folder, backbone, digits, plan)
    return plan, folder, {name: tensor.clone() for name, tensor in found.tuned.network.state_dict().items()}


@pytest.mark.timeout(300)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@drawn(
    name=st.sampled_from(FILES),
    kind=st.sampled_from(["flip", "cut", "insert", "drop", "double"]),
    place=st.floats(0, 1, exclude_max=True),
    piece=st.sampled_from([b"0", b"-", b"e999", b"[" * 5000, b"\0", b'"', b"\n{}\n", b"\x1b[31m"]),
)
def test_a_mutated_run_is_refused_or_resumed_as_before(
    unbroken: tuple[RunPlan, Path, dict[str, torch.Tensor]],
    backbone: Backbone,
    digits: Dataset,
    tmp_path_factory: pytest.TempPathFactory,
    name: str,
    kind: str,
    place: float,
    piece: bytes,
) -> None:
    plan, whole, expected = unbroken
    folder = Path(shutil.copytree(whole, tmp_path_factory.mktemp("mutated") / "run"))
    outside = {path.name for path in folder.parent.iterdir()}
    (folder / name).write_bytes(mutated((folder / name).read_bytes(), kind, place, piece))
    state = attempted(lambda: taken_up(folder, backbone, digits, plan))
    if isinstance(state, ZooError):
        assert state.code != "failed"
        assert str(state).isprintable()
    else:
        found = state.tuned.network.state_dict()
        assert all(torch.equal(value, found[key]) for key, value in expected.items())
        assert state.progress.epoch == 1
    run = attempted(lambda: zoo.open_run(folder))
    history = run if isinstance(run, ZooError) else attempted(lambda: run.history)
    assert history.code != "failed" if isinstance(history, ZooError) else len(history) <= 2
    assert {path.name for path in folder.parent.iterdir()} == outside


def test_mean_and_standard_deviation_are_kept(backbone: Backbone, digits: Dataset, tmp_path: Path) -> None:
    run, given = tmp_path / "run", {"mean": (0.25, 0.5, 0.5), "std": "0.50,.5,0.5", "limit": 10}
    with pytest.raises(KeyboardInterrupt):
        zoo.evaluate(backbone, digits, epochs=2, out=run, progress=InterruptingReporter(epoch=1), **given)
    for other in ({**given, "std": "0.5,0.5,0.6"}, {"normalization": "dataset"}):
        with pytest.raises(UsageError) as caught:
            zoo.evaluate(backbone, digits, resume=run, **other)
        assert caught.value.code == "resume-other-options"
    resumed = zoo.evaluate(backbone, digits, resume=run, **given)
    settings = resumed.record.settings
    assert (resumed.status, settings.normalization) == ("finished", "given")
    assert (settings.preprocessing.mean, settings.preprocessing.std) == ((0.25, 0.5, 0.5), (0.5, 0.5, 0.5))
