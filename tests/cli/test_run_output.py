"""``torchrun`` with ``zoo eval``: one run, one folder, one voice, and the figures of a single process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from zoo_harness.cli.main import run
from zoo_harness.models.tensor_files import read_tensors
from zoo_harness.records.run import read_run
from zoo_harness.util.digests import sha256_of

ZOO = str(Path(sys.executable).with_name("zoo"))
TORCHRUN = (str(Path(sys.executable).with_name("torchrun")), "--standalone", "--nproc-per-node", "2", "--no-python")
EVAL = ("eval", "efficientnet_lite0", "--dataset", "digits", "--per-class", "4", "--device", "cpu", "--no-layer-curve")
EVAL += ("--optimizer", "sgd", "--learning-rate", "0.01", "--epochs", "6", "--keep", "both")
EVAL += ("--save-every", "3")


def started(*arguments: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "NO_COLOR": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([*TORCHRUN, ZOO, *arguments], env=environment, start_new_session=True, **pipes)


def test_an_interrupted_run_of_two_processes_ends_with_the_figures_of_one(tmp_path: Path) -> None:
    alone, out = tmp_path / "alone", tmp_path / "run"
    assert run([*EVAL, "--quiet", "--out", str(alone)]) == 0
    process = started(*EVAL, "--out", str(out))
    deadline = time.monotonic() + 120
    while not (out / "history.jsonl").is_file() or not (out / "history.jsonl").read_text().count("\n"):
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.terminate()
    process.communicate(timeout=60)
    assert 0 < read_run(out).results.epochs_done < 6

    process = started("eval", "--resume", str(out), "--json")
    printed, told = process.communicate(timeout=120)
    assert process.returncode == 0, told
    assert json.loads(printed)["status"] == "finished"  # printed once
    assert told.count("training 1,030,410 of 3,383,818 parameters") == 1
    assert ", cpu, 2 processes\n" in told

    found, expected = read_run(out), read_run(alone)
    assert found.host.processes == 2
    assert found.results.accuracy == expected.results.accuracy
    assert found.results.train_accuracy == expected.results.train_accuracy
    assert found.results.confusion == expected.results.confusion
    assert {3, 6} <= {kept.epoch for kept in found.checkpoints}
    for kept, alike in zip(found.checkpoints, expected.checkpoints, strict=True):
        assert (kept.epoch, kept.accuracy, kept.train_accuracy) == (alike.epoch, alike.accuracy, alike.train_accuracy)
        assert sha256_of(out / kept.file) == kept.sha256
    assert found.results.separation_raw_pixels == expected.results.separation_raw_pixels
    tensors = read_tensors(out / "model.safetensors")
    for name, value in read_tensors(alone / "model.safetensors").items():
        torch.testing.assert_close(tensors[name], value, rtol=1e-3, atol=1e-4)


def test_wrong_usage_is_reported_once(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The variables are those that torchrun sets; what is wrong is found before the processes join."""
    told = []
    for rank in ("0", "1"):
        for name, value in (("RANK", rank), ("LOCAL_RANK", rank), ("WORLD_SIZE", "2"), ("LOCAL_WORLD_SIZE", "2")):
            monkeypatch.setenv(name, value)
        assert run([*EVAL, "--epochs", "-1"]) == 2
        told.append(capsys.readouterr().err)
    assert told[0].startswith("error: --epochs -1")
    assert told[1] == ""
