"""A run that is cut short goes on, and ends with the very checkpoint of one that was not."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from zoo_harness.cli.main import run
from zoo_harness.records.run import read_run
from zoo_harness.reports.run_card import render_card
from zoo_harness.util.digests import sha256_of

ZOO = str(Path(sys.executable).with_name("zoo"))
EVAL = ("eval", "efficientnet_lite0", "--dataset", "digits", "--per-class", "6", "--epochs", "8", "--quiet")
MORE = ("--schedule", "cosine", "--warmup-epochs", "1", "--label-smoothing", "0.1", "--keep", "best")


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nobody disturbs, in a process of its own: the number of threads may bear on the last bits."""
    out = tmp_path_factory.mktemp("straight") / "run"
    subprocess.run([ZOO, *EVAL, *MORE, "--out", str(out)], check=True, capture_output=True)
    return out


def killed(arguments: list[str], out: Path, epochs: int, number: signal.Signals) -> None:
    """Start a command and send it a signal as soon as so many epochs are done."""
    process = subprocess.Popen([ZOO, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while done(out) < epochs:
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.send_signal(number)
    process.communicate(timeout=60)


def done(out: Path) -> int:
    history = out / "history.jsonl"
    return len(history.read_text().splitlines()) if history.is_file() else 0


def test_killed_twice_it_ends_with_the_same_checkpoint(straight: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    killed([*EVAL, *MORE, "--out", str(out)], out, 2, signal.SIGKILL)
    assert not (out / "model.safetensors").exists()
    killed(["eval", "--resume", str(out), "--quiet"], out, 5, signal.SIGTERM)
    assert read_run(out).status == "interrupted"
    assert read_run(out).results.layer_curve is None
    card = out / "README.md"
    card.write_text(f"{card.read_text()}\nMine.\n")
    ended = subprocess.run([ZOO, "eval", "--resume", str(out)], capture_output=True, text=True, check=True)
    assert "Traceback" not in ended.stderr
    for name in ("model.safetensors", "config.json"):
        assert sha256_of(out / name) == sha256_of(straight / name)
    ours, theirs = (
        list(map(json.loads, (path / "history.jsonl").read_text().splitlines())) for path in (out, straight)
    )
    for line in (*ours, *theirs):
        del line["train_seconds"], line["evaluation_seconds"]
    assert ours == theirs
    record, expected = read_run(out), read_run(straight)
    assert record.status == "finished"
    assert record.results.accuracy == expected.results.accuracy
    assert record.results.separation_before == expected.results.separation_before
    assert record.results.separation_after == expected.results.separation_after
    assert record.results.confusion == expected.results.confusion
    assert record.results.layer_curve == expected.results.layer_curve is not None
    assert card.read_text() == f"{render_card(record)}\nMine.\n"


def test_a_kill_after_the_state_was_written_and_before_the_record(straight: Path, tmp_path: Path) -> None:
    out = copied(straight, tmp_path)
    record = json.loads((out / "run.json").read_text())
    record |= {"status": "running", "results": {**record["results"], "epochs_done": 7}}
    (out / "run.json").write_text(json.dumps(record))
    (out / "model.safetensors").unlink()
    lines = (out / "history.jsonl").read_text().splitlines(keepends=True)
    (out / "history.jsonl").write_text("".join(lines[:7]))
    assert run(["eval", "--resume", str(out), "--quiet"]) == 0
    assert read_run(out).results.epochs_done == 8
    assert (out / "history.jsonl").read_text() == "".join(lines)
    assert "| epochs | 8 of 8 |" in (out / "README.md").read_text()


def test_a_finished_run_is_not_resumed(straight: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["eval", "--resume", str(straight)]) == 2
    assert f"--resume {straight}: the run is finished" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["--epochs", "9"], "--epochs 9 (the run has 8)"),
        (
            ["--learning-rate", "0.1", "--seed", "3"],
            "--learning-rate 0.1 (the run has the recipe's), --seed 3 (the run has 0)",
        ),
        (["--no-layer-curve"], "--no-layer-curve (the run has True)"),
        (["resnet18"], "settings differ: resnet18 (the run has efficientnet_lite0)"),
        (["--out", "elsewhere"], "goes on in its own folder; leave --out out"),
    ],
)
def test_what_is_given_must_be_what_the_run_has(
    straight: Path, capsys: pytest.CaptureFixture[str], given: list[str], told: str
) -> None:
    assert run(["eval", "--resume", str(straight), *given]) == 2
    assert told in capsys.readouterr().err


def test_the_same_settings_may_be_given_again(straight: Path, capsys: pytest.CaptureFixture[str]) -> None:
    again = ["eval", "efficientnet_lite0", "--dataset", "digits", "--epochs", "8", "--resume", str(straight)]
    again += ["--learning-rate", "1e-4", "--batch-size", "32"]  # the recipe's, which were not given at first
    assert run(again) == 2
    assert "the run is finished" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("part", "change", "told"),
    [
        (("dataset", "train"), {"fingerprint": "0"}, "dataset.train.fingerprint '0' -> "),
        (("weights",), {"sha256": "0"}, "weights.sha256 '0' -> "),
        (("settings",), {"seed": 5}, "settings.seed 5 -> 0"),
        (("backbone",), {"source_sha256": "0" * 64}, "backbone.source_sha256 '000"),
    ],
)
def test_other_data_weights_or_settings_are_refused(
    straight: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    part: tuple[str, ...],
    change: dict[str, object],
    told: str,
) -> None:
    out = copied(straight, tmp_path)
    record = json.loads((out / "run.json").read_text())
    where = record
    for name in part:
        where = where[name]
    where.update(change)
    (out / "run.json").write_text(json.dumps({**record, "status": "interrupted"}))
    assert run(["eval", "--resume", str(out), "--quiet"]) == 2
    assert told in capsys.readouterr().err


def test_a_damaged_state_is_told(straight: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = copied(straight, tmp_path)
    record = json.loads((out / "run.json").read_text())
    (out / "run.json").write_text(json.dumps({**record, "status": "running"}))
    state = out / "training_state.safetensors"
    state.write_bytes(state.read_bytes()[:-100])
    assert run(["eval", "--resume", str(out), "--quiet"]) == 1
    assert "training_state.safetensors cannot be read" in capsys.readouterr().err


def test_a_folder_that_holds_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["eval", "--resume", str(tmp_path)]) == 2
    assert f"--resume {tmp_path} is not a run that can be resumed" in capsys.readouterr().err


def test_a_run_that_still_runs_is_left_alone(straight: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    process = subprocess.Popen(
        [ZOO, *EVAL[:-3], "--epochs", "400", "--out", str(out)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        while not done(out):
            assert process.poll() is None, process.communicate()
            time.sleep(0.05)
        second = subprocess.run([ZOO, "eval", "--resume", str(out)], capture_output=True, text=True, check=False)
        assert second.returncode == 2
        assert "still running, in another process" in second.stderr
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["eval"], "which backbone? zoo list names them"),
        (["eval", "efficientnet_lite0"], "which data set shall efficientnet_lite0 see?"),
        ([*EVAL, "--optimizer", "adamm"], "--optimizer adamm: input should be 'adam', 'adamw' or 'sgd'"),
        ([*EVAL, "--augment", "blur"], "--augment blur: input should be 'crop', 'flip' or 'rotate'"),
        ([*EVAL, "--momentum", "0.9"], "momentum 0.9 is a setting of optimizer 'sgd'"),
        ([*EVAL, "--cache", "ram"], "--cache"),
        ([*EVAL, "--cache-budget", "lots"], "--cache-budget"),
    ],
)
def test_what_cannot_be_asked(capsys: pytest.CaptureFixture[str], arguments: list[str], told: str) -> None:
    assert run(arguments) == 2
    assert told in capsys.readouterr().err


def copied(source: Path, folder: Path) -> Path:
    target = folder / "run"
    target.mkdir()
    for file in source.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    return target


def test_events_for_tensorboard(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    out = tmp_path / "run"
    assert run([*EVAL[:-3], "--epochs", "2", "--quiet", "--tensorboard", "--out", str(out)]) == 0
    events = EventAccumulator(str(out / "tensorboard")).Reload()
    history = [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]
    found = events.Scalars("accuracy/evaluation")
    assert [event.step for event in found] == [1, 2]
    assert [event.value for event in found] == pytest.approx([line["evaluation_accuracy"] for line in history])
    assert set(events.Tags()["scalars"]) == {
        f"{figure}/{split}" for figure in ("loss", "accuracy", "seconds") for split in ("train", "evaluation")
    }
