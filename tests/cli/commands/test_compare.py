"""``zoo compare`` puts finished runs beside each other, as the report's table does, and names what it leaves out."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import zoo
from zoo import Backbone, UsageError, ZooError
from zoo_harness.cli.main import run
from zoo_harness.records.run import SeparationSettings
from zoo_harness.reports.comparison import Comparison

from ...saved_runs import edit_record, save_run


def measured(value: float, n: int = 10_000, **more: Any) -> dict[str, Any]:
    return {"value": value, "standard_error": (value * (1 - value) / n) ** 0.5, "n": n, **more}


def score(value: float) -> dict[str, Any]:
    return measured(value, bootstrap_error=0.004, tied=0)


def scores(layer: str, index: float) -> dict[str, Any]:
    parts = {"si": score(index), "high": None, "soft": None, "anti": None, "centre": score(0.5)}
    split = {"order": 1, **parts, "duplicates": 0, "duplicates_unlike": 0}
    return {"layer": layer, "train": split, "evaluation": split}


def as_in_the_report(record: dict[str, Any]) -> None:
    """Make the record one of DenseNet201 with the recipe, the data and the epochs of the 2024 report."""
    record["backbone"]["name"] = "densenet201"
    record["dataset"].update(name="cifar10", title="CIFAR-10")
    record["dataset"]["evaluation"]["split"] = "test"
    record["settings"]["recipe"] = "report"
    record["settings"]["training"]["epochs"] = 10
    record["parameters"]["trained"] = 235_210
    record["results"].update(
        epochs_done=10,
        accuracy=measured(0.9151),
        train_accuracy=measured(0.978, 50_000),
        separation_before=scores("fc", 0.71),
        separation_after=scores("fc", 0.83),
        mean_train_seconds=12.345,
        mean_evaluation_seconds=2.5,
    )


@pytest.fixture(scope="module")
def finished(tiny_resnet: Backbone, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run with the setting of the report, and one with another recipe and other settings of SI."""
    folders = tmp_path_factory.mktemp("runs")
    for name in ("report", "own"):
        (folders / name).mkdir()
        save_run(tiny_resnet, folders / name)
        edit_record(folders / name, as_in_the_report)
    other = SeparationSettings(order=5, normalize="zscore").model_dump()
    edit_record(folders / "own", lambda record: record["settings"].update(recipe="default", separation=other))
    edit_record(folders / "own", lambda record: record["dataset"].update(fraction=0.9, subset="0.9 of each class"))
    return folders / "report", folders / "own"


def test_the_table_is_that_of_the_report(
    finished: tuple[Path, Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(finished[0].parent)
    assert run(["compare", "report", "own", "--published"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["1", "densenet201", "235,210", "91.51", "±", "0.28", "97.80", "12.35", "2.50"]
    assert lines[2].split() == ["published", "235,210", "91.44", "97.72", "299.59", "53.12"]
    assert lines[3].split()[:2] == ["2", "densenet201"]  # another recipe: nothing published
    assert lines[6].split() == ["1", "report", "report", "CIFAR-10", "test", "0.7100", "0.8300"]
    assert max(map(len, lines)) <= 80
    notes = " ".join(" ".join(lines[8:]).split())
    assert "2: epochs 10; 0.9 of each class, seed 0; SI with z-scored features, order 5." in notes
    assert "1, published: University of Tehran report (1403/2024)" in notes
    assert "SI is not comparable between runs" in notes


def test_figures_are_not_published_ones_of_another_setting(finished: tuple[Path, Path]) -> None:
    found = zoo.compare(finished, published=True)
    assert [len(each.published) for each in found.runs] == [1, 0]
    [figure] = found.runs[0].published
    assert figure.accuracy_percent == 91.44
    assert any(clause.startswith("learning rate") or "input size" in clause for clause in figure.differences)
    assert [each.published for each in zoo.compare(finished).runs] == [(), ()]
    assert zoo.compare(zoo.open_run(finished[0])).runs == zoo.compare(str(finished[0])).runs


def test_every_format_has_the_same_figures(finished: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    given = ["compare", *map(str, finished), "--published"]
    assert run([*given, "--json"]) == 0
    found = Comparison.model_validate_json(capsys.readouterr().out)
    assert found == zoo.compare(finished, published=True)
    assert run([*given, "--csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["published_by"] == "" for row in rows] == [True, False, True]
    assert [float(row["accuracy"]) for row in rows] == [0.9151, 0.9144, 0.9151]
    assert [row["si_settings"] for row in rows] == ["", "", "z-scored features, order 5"]
    assert run([*given, "--markdown"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5
    assert len({line.count(" | ") for line in lines}) == 1
    assert "| 235,210 | 91.44 | 97.72 | - | - | 299.59 | 53.12 |" in lines[3]


def test_a_bad_run_is_named_and_the_rest_is_shown(
    finished: tuple[Path, Path], tiny_resnet: Backbone, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("unfinished", "damaged", "empty"):
        (tmp_path / name).mkdir()
    save_run(tiny_resnet, tmp_path / "unfinished")
    edit_record(tmp_path / "unfinished", lambda record: record.update(status="interrupted"))
    (tmp_path / "damaged" / "run.json").write_text('{"format": "blockzoo run 1"')
    bad = [str(tmp_path / name) for name in ("unfinished", "damaged", "empty", "nowhere")]
    assert run(["compare", *bad, str(finished[0]), str(finished[0]), "--json"]) == 1
    captured = capsys.readouterr()
    record = json.loads(captured.out)
    assert [each["backbone"] for each in record["runs"]] == ["densenet201"]
    codes = [each["code"] for each in record["left_out"]]
    assert codes == ["run-not-finished", "record-invalid", "not-a-run", "not-a-run", "repeated-subject"]
    assert [each["run"] for each in record["left_out"]] == [*bad, str(finished[0])]
    assert captured.err.count("error: ") == 5
    assert run(["compare", bad[0]]) == 1
    assert capsys.readouterr().out == ""


def test_nothing_to_compare_and_two_formats_are_refused(
    finished: tuple[Path, Path], error_of: Callable[..., ZooError]
) -> None:
    assert error_of("compare", str(finished[0]), "--json", "--csv").code == "option-conflict"
    with pytest.raises(UsageError) as refused:
        zoo.compare([])
    assert refused.value.code == "missing-run"
