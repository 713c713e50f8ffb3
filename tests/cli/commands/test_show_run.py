"""``zoo show RUN``: a run in lines, with its checkpoints and the disk that it takes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from zoo import Backbone, ZooError
from zoo.backbone import Training
from zoo_harness.cli.main import run

from ...saved_runs import edit_record, save_run


@pytest.fixture(scope="module")
def folder(tiny_resnet: Backbone, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 40 epochs that kept every second one, with files of known sizes."""
    folder = tmp_path_factory.mktemp("runs") / "kept"
    folder.mkdir()
    save_run(tiny_resnet, folder, training=Training(epochs=40, keep="best", save_every=2))
    (folder / "checkpoints").mkdir()
    kept = [{"epoch": epoch, "sha256": "0" * 64, "bytes": 1000} for epoch in range(2, 41, 2)]

    def trained(record: dict[str, Any]) -> None:
        record["results"].update(epochs_done=40, best_epoch=7)
        record["checkpoints"] = kept

    edit_record(folder, trained)
    for each in kept:
        (folder / "checkpoints" / f"epoch-{each['epoch']:04}.safetensors").write_bytes(bytes(1000))
    (folder / "training_state.safetensors").write_bytes(bytes(500))
    return folder


def test_it_has_settings_checkpoints_and_disk(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)
    assert run(["show", "kept"]) == 0
    lines = capsys.readouterr().out.splitlines()
    facts = dict(line.split("  ", 1) for line in lines if "  " in line and line[0] != " ")
    assert facts["status"].strip() == "finished, 40 of 40 epochs, the best was epoch 7"
    assert facts["weights"].strip() == "of the best of 40 epochs, epoch 7"
    assert (facts["initial weights"].strip(), "licence" in facts) == ("random", False)
    assert "checkpoints/ 19.5 KiB, training state 500 bytes" in facts["disk"]
    rows = [line.split()[:3] for line in lines if line.startswith("   ") and line.split()[0].isdigit()]
    assert [int(row[0]) for row in rows] == sorted({*range(2, 41, 2), 7})
    assert ["7", "best,", "main"] in rows
    assert lines[-1] == "checkpoints/ has 20 files, 19.5 KiB"


def test_it_is_there_for_programs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["show", str(folder / "run.json"), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["disk_bytes"]["checkpoints/"], shown["disk_bytes"]["training state"]) == (20_000, 500)
    assert shown["disk_bytes"]["all"] == sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    assert shown["record"]["checkpoints"][0]["epoch"] == 2


def test_what_is_no_run_is_refused(error_of: Callable[..., ZooError]) -> None:
    assert error_of("show", "./nowhere").code == "not-a-run"
    assert error_of("show", "nowhere").code == "unknown-name"
