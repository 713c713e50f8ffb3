"""``zoo.sweep`` and the plans of the studies, at toy size on files in CIFAR's own format."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

import zoo
from zoo import UsageError
from zoo_harness.cli.main import run

from ..plugins.test_datasets_cifar import rows, write_as_python2, write_cifar10, write_cifar100

ROOT = Path(__file__).parents[2]
# As docs/sweeps.md says: other backbones, whose only recipe is the default, random weights, few images, one epoch.
TOY = ("--recipes", "default", "--set", "weights=random", "--set", "epochs=1")


def write_some_of_cifar100(parent: Path) -> Path:
    """Three images of each class in both splits, because SI needs several of a class."""
    folder = write_cifar100(parent / "cifar")
    for seed, name in enumerate(("train", "test")):
        labels = {"fine_labels": [*range(100)] * 3, "coarse_labels": [0] * 300}
        write_as_python2(folder / name, {"data": rows(seed, 300), "batch_label": name, **labels})
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(("study", "runs"), [("malpure2021", 2), ("report2024", 2), ("si2023", 7)])
def test_the_plan_of_a_study_runs_at_toy_size_and_its_runs_are_compared(
    study: str, runs: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_some_of_cifar100(tmp_path) if study == "si2023" else write_cifar10(tmp_path / "cifar")
    backbones = "timm:test_resnet,timm:test_vit" if study == "malpure2021" else "timm:test_resnet"
    options = ["--backbones", backbones, *TOY, "--set", f"data_dir={data}", "--out", str(tmp_path / "out")]
    plan = str(ROOT / "sweeps" / f"{study}.toml")
    assert run(["sweep", plan, *options]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].split(maxsplit=1)[1] == f"{runs} of {runs} runs"
    assert [line.split()[-4:-1] for line in printed if line.startswith("next") and "compare" in line] != []
    assert run(["compare", str(tmp_path / "out"), "--published"]) == 0
    assert "timm:test_resnet" in capsys.readouterr().out
    assert run(["sweep", plan, *options, "--quiet", "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert ({row["state"] for row in again["runs"]}, again["finished"], again["seconds"]) == ({"finished"}, runs, 0)


def test_a_run_that_fails_is_listed_and_the_others_finish(
    tmp_path: Path, table: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    values = [f"--set={key}={json.dumps(value)}" for key, value in {**table, "epochs": 0}.items()]
    out = ["--out", str(tmp_path / "out")]
    assert run(["sweep", *values, "--set", "input_size=['32x32', '40x40', '160x160']", *out]) == 1
    printed = capsys.readouterr()
    assert "finished  2 of 3 runs" in printed.out
    assert sum(line.startswith("error: timm-test_vit-digits-s0-") for line in printed.err.splitlines()) == 1

    assert run(["sweep", *values, "--set", "input_size=['160x160', '96x96']", *out, "--dry-run", "--json"]) == 0
    estimate = json.loads(capsys.readouterr().out)
    assert [row["state"] for row in estimate["runs"]] == ["finished", "new"]
    records = [json.loads(path.read_text()) for path in (tmp_path / "out").glob("*/run.json")]
    measured = fmean(record["results"]["total_seconds"] for record in records)  # of the same backbone and data
    assert estimate["runs"][1]["seconds"] == pytest.approx(measured)
    assert estimate["downloads"] == []


def test_a_dry_run_lists_runs_and_downloads_and_never_guesses(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    assert run(["sweep", str(ROOT / "sweeps" / "malpure2021.toml"), "--backbones", "cait_s24", "--dry-run"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[1].split() == [printed[1].split()[0], "new", "no", "estimate"]
    facts = dict(line.split(maxsplit=1) for line in printed[3:])
    assert facts["time"] == "no estimate for 1 of the runs"
    assert facts["weights"] == "to download: cait_s24 (188 MB)"
    assert facts["data"] == "cifar10"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"task_timeout": "10m"}, "option-conflict"),
        ({"gpus_per_run": 0.5}, "option-conflict"),
        ({"address": "local", "workers": 2}, "option-conflict"),
        ({"workers": 0}, "option-range"),
        ({"set": ["input_size=no"]}, "option-value"),  # no run could start
    ],
)
def test_contradictions_are_refused(options: dict[str, Any], code: str, table: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        zoo.sweep(table, out=tmp_path / "out", **options)
    assert caught.value.code == code


def test_a_dry_run_ends_with_status_1_if_a_run_cannot_start(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = ["--set", "per_class=[2, 99999]", "--set", "limit=[5]", "--dry-run", "--out", str(tmp_path / "out")]
    assert (
        run(["sweep", "--backbones", "timm:test_vit", "--datasets", "digits", "--set", "weights=random", *sizes]) == 1
    )
    assert "--per-class" in capsys.readouterr().err
