"""``zoo compare`` puts finished runs beside each other, as the report's table does, and names what it leaves out."""

from __future__ import annotations

import csv
import io
import json
import shutil
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats

import zoo
from zoo import Backbone, UsageError, ZooError
from zoo_harness.cli.main import run
from zoo_harness.evaluation.predictions import Predictions, write_predictions
from zoo_harness.ranking.paired_tests import mid_p
from zoo_harness.records.run import SeparationSettings
from zoo_harness.reports.comparison import Comparison, notes

from ...hub_server import Hub
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
    columns = ["#", "backbone", "type", "trained", "paper", "%", "accuracy", "%", "train", "%", "train", "s"]
    assert lines[0].split() == [*columns, "eval", "s"]
    paper, seconds = ["94.76", "*"], ["97.80", "12.35", "2.50"]
    assert lines[1].split() == ["1", "densenet201", "CNN", "235,210", *paper, "91.51", "±", "0.28", *seconds]
    assert lines[2].split() == ["1", "p", "published", "235,210", "91.44", "97.72", "299.59", "53.12"]
    assert lines[3].split()[:2] == ["2", "densenet201"]  # another recipe: nothing published
    assert lines[6].split() == ["1", "report", "CIFAR-10", "test", "0.7100", "0.8300", "baseline", "-"]
    assert lines[7].split()[-6:] == ["0.8300", "+0.00", "±", "0.39", "within", "noise"]
    assert max(map(len, lines)) <= 80
    notes = " ".join(" ".join(lines[8:]).split())
    assert "* in another setting" in notes
    assert "2: own: epochs 10; 0.9 of each class, seed 0; SI with z-scored features, order 5." in notes
    assert "1, published: University of Tehran report (1403/2024)" in notes
    assert "2, published in another setting, 91.44 %" in notes
    assert "the run differs: recipe default instead of report" in notes
    assert "SI values are not comparable between runs" in notes


def test_figures_are_not_published_ones_of_another_setting(finished: tuple[Path, Path]) -> None:
    found = zoo.compare(finished, published=True)
    assert [len(each.published) for each in found.runs] == [1, 0]
    [figure] = found.runs[0].published
    assert figure.accuracy_percent == 91.44
    assert any(clause.startswith("learning rate") or "input size" in clause for clause in figure.differences)
    assert any(clause.startswith("pretrained on nothing (random weights) instead of") for clause in figure.differences)
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
    assert "| 235,210 |  | 91.44 | 97.72 | 299.59 | 53.12 |" in lines[3]
    assert run([*given, "--latex"]) == 0
    latex = capsys.readouterr().out.splitlines()
    assert [latex[place].partition("{")[0] for place in (0, -1)] == [r"\begin", r"\end"]
    columns = latex[0].removeprefix(r"\begin{tabular}{").removesuffix("}")
    table = [line for line in latex if line.endswith(r"\\")]
    assert len(table) == 4
    assert {line.count(" & ") + 1 for line in table} == {len(columns)}
    assert r"91.51 $\pm$ 0.28" in table[1]


def test_a_bad_run_is_named_and_the_rest_is_shown(
    finished: tuple[Path, Path], tiny_resnet: Backbone, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("unfinished", "damaged", "empty", "newer", "killed"):
        (tmp_path / name).mkdir()
    save_run(tiny_resnet, tmp_path / "unfinished")
    edit_record(tmp_path / "unfinished", lambda record: record.update(status="interrupted"))
    (tmp_path / "damaged" / "run.json").write_text('{"format": "blockzoo run 1"')
    save_run(tiny_resnet, tmp_path / "newer")
    edit_record(tmp_path / "newer", lambda record: record.update(format="blockzoo run 2"))
    save_run(tiny_resnet, tmp_path / "killed")
    edit_record(tmp_path / "killed", lambda record: record.update(status="running"))
    bad = [str(tmp_path / name) for name in ("unfinished", "damaged", "empty", "newer", "killed", "nowhere")]
    assert run(["compare", *bad, str(finished[0]), str(finished[0]), "--json"]) == 1
    captured = capsys.readouterr()
    record = json.loads(captured.out)
    assert [each["backbone"] for each in record["runs"]] == ["densenet201"]
    codes = [each["code"] for each in record["left_out"]]
    assert codes == [
        *("run-not-finished", "record-invalid", "not-a-run", "record-of-another-version", "run-not-finished"),
        *("no-such-folder", "repeated-subject"),
    ]
    assert [each["run"] for each in record["left_out"]] == [*bad, str(finished[0])]
    assert captured.err.count("error: ") == 7
    assert "was killed after 0 of" in captured.err
    assert run(["compare", bad[0]]) == 1
    assert capsys.readouterr().out == ""


def test_nothing_to_compare_and_two_formats_are_refused(
    finished: tuple[Path, Path], error_of: Callable[..., ZooError]
) -> None:
    assert error_of("compare", str(finished[0]), "--json", "--csv").code == "option-conflict"
    assert error_of("compare", str(finished[0]), "--group-by", "seed").code == "group-by"
    assert error_of("compare", str(finished[0]), "--baseline", "nowhere").code == "no-such-folder"
    with pytest.raises(UsageError) as refused:
        zoo.compare([])
    assert refused.value.code == "missing-run"


# Tests of the differences


def scored_run(source: Path, folder: Path, hits: Sequence[bool], seed: int = 0, **settings: Any) -> Path:
    """A copy of a saved run with predictions of three classes that are right where ``hits`` is."""
    shutil.copytree(source, folder)
    right = np.array(hits)
    label = (np.arange(len(right)) % 3).astype(np.int32)
    predicted = np.where(right, label, (label + 1) % 3).astype(np.int32)
    half = np.full(len(right), 0.5, np.float32)
    ranks = np.where(right, 1, 2).astype(np.int32)
    predictions = Predictions("train", "0" * 64, 3, label, predicted, ranks, half, half)
    described = write_predictions(predictions, folder).model_dump(mode="json")

    def edit(record: dict[str, Any]) -> None:
        record["results"].update(accuracy=measured(float(right.mean()), len(right)), predictions=described)
        record["dataset"]["evaluation"].update(images=len(right), per_class=np.bincount(label).tolist())
        record["settings"].update(seed=seed, **settings)

    edit_record(folder, edit)
    return folder


def hits(right: int, only_first: int, only_second: int) -> tuple[list[bool], list[bool]]:
    """Hits of two runs on 1,000 images: ``right`` of both, and some of one alone."""
    rest = [False] * (1000 - right - only_first - only_second)
    first = [True] * (right + only_first) + [False] * only_second + rest
    second = [True] * right + [False] * only_first + [True] * only_second + rest
    return first, second


@pytest.fixture(scope="module")
def saved(tiny_resnet: Backbone, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    save_run(tiny_resnet, folder)
    (folder / "model.safetensors").unlink()  # which zoo compare does not read
    return folder


@pytest.mark.parametrize(
    ("only", "p"), [((9, 2), 0.03857), ((25, 12), 0.03355), ((300, 220), 0.00045), ((3, 0), 0.125)]
)
def test_two_runs_are_paired_on_the_same_images(saved: Path, tmp_path: Path, only: tuple[int, int], p: float) -> None:
    first, second = hits(400, *only)
    runs = [scored_run(saved, tmp_path / name, each) for name, each in (("a", first), ("b", second))]
    edit_record(runs[1], lambda record: record["settings"].update(recipe="other"))
    [found] = zoo.compare(runs).differences
    assert (found.row, found.baseline, found.test) == (1, 0, "mcnemar")
    assert (found.row_only, found.baseline_only) == (only[1], only[0])
    assert round(found.p, 5) == p == round(found.p_holm, 5)
    apart, n = only[1] - only[0], 1000
    assert found.difference == pytest.approx(apart / n)
    assert found.standard_error == pytest.approx((sum(only) - apart**2 / n) ** 0.5 / n)
    [other] = zoo.compare(runs, baseline=runs[1]).differences
    assert (other.row, other.baseline, other.difference) == (0, 1, pytest.approx(-apart / n))
    assert zoo.compare(tmp_path).differences == zoo.compare(runs).differences  # a folder stands for its runs


def test_seeds_are_one_row_and_tested_as_pairs(saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draws = np.random.default_rng(0)
    accuracies = {"a": (0.80, 0.82, 0.81), "b": (0.85, 0.86, 0.88)}
    drawn = {name: [draws.random(500) < rate for rate in rates] for name, rates in accuracies.items()}
    for name, runs in drawn.items():
        for seed, right in enumerate(runs):
            scored_run(saved, tmp_path / f"{name}{seed}", right, seed, recipe=name)
    scored_run(saved, tmp_path / "repeated", drawn["a"][0], 0, recipe="a")  # the same seed once more is no other seed
    found = zoo.compare(tmp_path)
    assert [(row.seeds, len(row.runs)) for row in found.rows] == [((0, 1, 2), 3), ((0, 1, 2), 3), ((0,), 1)]
    values = {name: [float(right.mean()) for right in runs] for name, runs in drawn.items()}
    assert found.rows[1].accuracy == pytest.approx(statistics.fmean(values["b"]))
    assert found.rows[1].accuracy_sd == pytest.approx(statistics.stdev(values["b"]))
    errors = [found.runs[place].accuracy.standard_error for place in found.rows[1].runs]  # type: ignore[union-attr]
    assert found.rows[1].accuracy_error == pytest.approx(statistics.fmean(errors))
    seeds, one = found.differences
    assert (seeds.baseline, seeds.seeds, one.p_seeds) == (1, 3, None)
    assert seeds.p_seeds == pytest.approx(scipy.stats.ttest_rel(values["a"], values["b"]).pvalue)
    first, second = drawn["a"][0], drawn["b"][0]
    assert seeds.p == pytest.approx(mid_p(int((first & ~second).sum()), int((second & ~first).sum())))
    assert seeds.difference == pytest.approx(statistics.fmean(values["a"]) - statistics.fmean(values["b"]))
    assert (seeds.pairs, seeds.p) == (3, one.p)
    assert seeds.p_holm == one.p_holm == pytest.approx(min(1, 3 * seeds.p))
    assert len(zoo.compare(tmp_path, group_by="none").rows) == 7
    assert [len(row.runs) for row in zoo.compare(tmp_path, group_by="recipe,backbone").rows] == [4, 3]
    assert run(["compare", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(len(line) for line in lines if str(tmp_path) not in line) <= 80
    text = " ".join(" ".join(lines).split())
    assert f"1: {tmp_path}/a* (3 runs): epochs 0; all images, seeds 0, 1, 2." in text
    assert "p says nothing about other seeds." in text
    assert "p seeds says nothing about other images." in text


def test_settings_that_differ_are_in_every_format_and_seeds_on_other_images_are_named(
    saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    right = np.random.default_rng(0).random(100) < 0.8
    for number, rate in enumerate((1e-3, 1e-4, 1e-4)):
        folder = tmp_path / f"run{number}"
        scored_run(saved, folder, right, seed=number, recipe="a")
        edit_record(folder, lambda it, rate=rate: it["settings"]["training"].update(learning_rate=rate))  # type: ignore[misc]
    edit_record(tmp_path / "run2", lambda it: it["dataset"]["evaluation"].update(fingerprint="f" * 64))
    found = zoo.compare(tmp_path)
    assert [each.settings for each in found.runs] == [{"learning_rate": rate} for rate in ("0.001", "0.0001", "0.0001")]
    assert [row.seeds for row in found.rows] == [(0,), (1, 2)]
    assert [row["settings"] for row in csv.DictReader(found.to_csv().splitlines())] == [
        "learning_rate=0.001", "learning_rate=0.0001",
    ]  # fmt: skip
    assert run(["compare", str(tmp_path)]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "epochs 0, learning_rate 0.001; all images, seed 0." in text
    assert "2: its seeds were scored on different images, so sd also contains the choice of the images." in text


def test_the_last_lines_say_what_to_conclude(saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, only in (("noise", (31, 24)), ("clear", (90, 20))):
        for run_name, right in zip("ab", hits(800, *only), strict=True):
            scored_run(saved, tmp_path / name / run_name, right, recipe=run_name)
    assert run(["compare", str(tmp_path / "noise")]) == 0
    shown = " ".join(capsys.readouterr().out.split("\n\n")[-1].split())
    assert shown.startswith("Conclusion: 2 (")
    assert "are NOT distinguishable. Their difference of 0.70 ± 0.74 points is within noise (p = 0.3497)" in shown
    assert run(["compare", str(tmp_path / "clear")]) == 0
    shown = " ".join(capsys.readouterr().out.split("\n\n")[-1].split())
    assert "is better than 2 (" in shown
    found = zoo.compare(tmp_path / "clear")
    assert " ".join(found.conclusions) == shown
    rows = csv.DictReader(io.StringIO(found.to_csv()))
    assert [row["finding"] for row in rows] == ["", "lower"]
    assert "more than chance (p < 0.0001). Another seed may change this" in shown
    folders = [str(tmp_path / name) for name in ("noise", "clear")]
    assert run(["compare", *folders, "--group-by", "none", "--baseline", f"{folders[0]}/a"]) == 0
    shown = " ".join(capsys.readouterr().out.split("\n\n")[-1].split())
    assert shown == (
        "Conclusion: NOT distinguishable from 1 (within noise): 2, 4; better than 1 by more than chance: 3."
    )


def test_other_images_are_never_paired_and_named(
    saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = hits(900, 30, 10)
    for number, name in enumerate(("a", "b", "other_images", "other_classes", "old", "damaged")):
        scored_run(saved, tmp_path / name, second if number % 2 else first, recipe=name)
    edit_record(tmp_path / "other_images", lambda it: it["dataset"]["evaluation"].update(fingerprint="f" * 64))
    edit_record(tmp_path / "other_classes", lambda it: it["dataset"].update(classes=["cat", "cow", "emu"]))
    edit_record(tmp_path / "old", lambda it: it["results"].pop("predictions"))
    (tmp_path / "damaged" / "predictions.safetensors").write_bytes(b"damaged")
    runs = [str(tmp_path / name) for name in ("a", "b", "other_images", "other_classes", "old", "damaged")]
    found = zoo.compare(runs)
    assert [(each.row, each.baseline, each.test) for each in found.differences] == [
        (1, 0, "mcnemar"),
        (4, 0, "z"),
        (5, 0, "z"),
    ]
    assert {each.pairs for each in found.differences} == {6}
    old = found.differences[1]
    assert old.standard_error == pytest.approx(2**0.5 * (0.93 * 0.07 / 1000) ** 0.5)
    assert (old.difference, old.p, old.row_only) == (0, 1, None)
    z = (0.93 - 0.91) / (0.93 * 0.07 / 1000 + 0.91 * 0.09 / 1000) ** 0.5
    assert found.differences[2].p == pytest.approx(2 * scipy.stats.norm.sf(z))
    assert [row.images for row in found.rows] == [1, 1, 2, 3, 1, 1]
    assert run(["compare", *runs]) == 0
    text = " ".join(capsys.readouterr().out.split())
    differ = "images or classes differ from those of row 1:"
    assert f"3: {differ} the split train of Pets, 1,000 images, with other pixels or labels" in text
    assert f"4: {differ} other class names: class 1 is 'cow' instead of 'dog'" in text
    unpaired = "is compared by an unpaired test, which has less power:"
    assert f"5: {runs[4]} {unpaired} an earlier version wrote no predictions." in text
    assert f"6: {runs[5]} {unpaired}" in text
    assert "p of 5, 6: z-test" in text


def test_hostile_names_stay_in_their_cells(saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = "a | b & c_d $x$ \\end{tabular} \u202e<script>"
    scored_run(saved, tmp_path / "x", hits(1, 0, 0)[0])
    edit_record(tmp_path / "x", lambda record: record["dataset"].update(title=name + "\n" + "y" * 10_000))
    assert run(["compare", str(tmp_path / "x")]) == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80
    found = zoo.compare(tmp_path)
    assert len(found.to_markdown().splitlines()) == 3
    assert found.to_latex().count(r"\end{tabular}") == 1
    assert r"\&" in found.to_latex()


@pytest.mark.parametrize(
    ("part", "note"),
    [
        ({"reason": None, "computed": 24, "seconds": 3.25}, "which ran once over 24 images in 3.2 s."),
        ({"reason": None, "computed": 0, "seconds": 0.2}, "whose outputs an earlier run had cached."),
        ({"reason": "--cache off"}, None),
        (None, None),
    ],
)
def test_a_note_says_which_seconds_leave_out_the_frozen_part(
    saved: Path, tmp_path: Path, part: dict[str, Any] | None, note: str | None
) -> None:
    folder = scored_run(saved, tmp_path / "run", [True, False])
    edit_record(folder, lambda record: record["results"].update(frozen_part=part))
    found = [each for each in notes(zoo.compare(folder)) if "do not include the frozen part" in each]
    assert found == ([] if note is None else [f"1: the seconds per epoch do not include the frozen part, {note}"])


# Tests of published scores of the Separation Index


def family(index: float) -> dict[str, Any]:
    """The scores of a split at order 2."""
    parts = {"si": score(index), "high": score(0.3), "soft": score(0.4), "anti": score(0.5), "centre": score(0.6)}
    return {"order": 2, **parts, "duplicates": 0, "duplicates_unlike": 0}


def as_in_the_2023_report(record: dict[str, Any]) -> None:
    """Make the record one of ResNet-18 trained from scratch on CIFAR-100, for 200 epochs."""
    as_in_the_report(record)
    record["backbone"]["name"] = "resnet18_cifar"
    record["settings"]["recipe"] = "scratch"
    record["settings"]["training"]["epochs"] = 200
    dataset = record["dataset"]
    dataset.update(name="cifar100", title="CIFAR-100", val_fraction=0.2, test=dict(dataset["evaluation"]))
    dataset["evaluation"]["split"] = "train"
    splits = {"train": family(0.45), "evaluation": family(0.5)}
    after = {"layer": "global_pool", **splits, "test": family(0.61)}
    record["results"].update(
        epochs_done=200,
        test_accuracy=measured(0.75),
        separation_raw_pixels={**after, "layer": "raw pixels"},
        separation_before={"layer": "global_pool", **splits},
        separation_after=after,
    )


def test_published_si_stands_below_that_of_a_run_with_the_same_setting(
    tiny_resnet: Backbone, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("same", "other"):
        (tmp_path / name).mkdir()
        save_run(tiny_resnet, tmp_path / name)
        edit_record(tmp_path / name, as_in_the_2023_report)
    edit_record(tmp_path / "other", lambda record: record["results"].update(epochs_done=20))
    found = zoo.compare([tmp_path / "same", tmp_path / "other"], published=True)
    beside = [(each.features, each.split, each.agrees) for run in found.runs for each in run.published_separation]
    after = [("after training", "train"), ("after training", "test")]
    raw = ("raw pixels", "train", True)
    assert beside == [raw, *((*each, True) for each in after), raw, *((*each, False) for each in after)]
    test = found.runs[0].published_separation[2]
    assert (test.ours["si"], test.published["si"], test.published["centre"]) == (0.61, 0.599, 0.7026)
    assert "epochs 20 instead of 200" in found.runs[1].published_separation[2].differences
    assert run(["compare", str(tmp_path / "same"), str(tmp_path / "other"), "--published"]) == 0
    lines = capsys.readouterr().out.splitlines()
    others = ["0.4853", "0.5898", "0.3056", "0.7026"]
    row = next(place for place, line in enumerate(lines) if line.split()[:4] == ["1", "after", "training", "test"])
    assert lines[row + 1].split() == ["1", "p", "published", "test", "0.5990", *others]
    assert sum(line.split()[1:2] == ["raw"] for line in lines) == 1  # both runs have the same images
    text = " ".join(" ".join(lines).split())
    assert "2, published SI in another setting, after training: train 0.4858 (ours 0.4500)" in text
    assert "anti SI 0.8364 does not fit the other scores, which give 0.7730" in text
    assert max(len(line) for line in lines if str(tmp_path) not in line) <= 80
    assert found.to_markdown().count("| published |") == 3 + 1
    assert found.to_latex().count(r"\begin{tabular}") == 2
    rows = list(csv.DictReader(io.StringIO(found.to_csv())))
    assert [row["si_after"] for row in rows if row["published_by"] and row["si_after"]] == ["0.4858", "0.599"]


@pytest.mark.parametrize(
    ("backbone", "change", "agrees", "clause"),
    [
        ("resnet18", {}, True, None),
        ("resnet18", {"declared": False, "source": "x.pth"}, False, "weights x.pth instead of those of ImageNet"),
        ("efficientnet_v2_s", {}, False, "trained layer4 instead of the whole network"),
    ],
)
def test_si_of_other_networks_of_the_report(
    tiny_resnet: Backbone, tmp_path: Path, backbone: str, change: dict[str, Any], agrees: bool, clause: str | None
) -> None:
    def edit(record: dict[str, Any]) -> None:
        as_in_the_2023_report(record)
        record["backbone"]["name"] = backbone
        record["weights"].update({"kind": "timm", "declared": True, **change})
        record["settings"]["preprocessing"]["input_size"] = [32, 32]

    save_run(tiny_resnet, tmp_path)
    edit_record(tmp_path, edit)
    [found] = zoo.compare(tmp_path, published=True).runs
    raw, network = found.published_separation
    assert raw.remarks[0] == "the report does not state the split"
    assert network.agrees == agrees
    assert clause is None or clause in network.differences


# Tests of repositories


def published(folder: Path, name: str = "zoo.json") -> dict[str, bytes]:
    """What ``zoo publish`` sends of a run that was not trained; no test loads the checkpoint."""
    files = {each: (folder / each).read_bytes() for each in ("config.json", "predictions.safetensors")}
    return files | {"model.safetensors": b"not read", name: (folder / "run.json").read_bytes()}


def test_repositories_are_rows_and_only_record_and_predictions_are_fetched(
    hub: Hub, saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = hits(900, 30, 10)
    here = scored_run(saved, tmp_path / "here", first)
    commit = hub.create("ada/pets", published(scored_run(saved, tmp_path / "there", second, recipe="own")))
    assert run(["compare", str(here), "ada/pets"]) == 0
    captured = capsys.readouterr()
    assert "+0.00" not in captured.out
    oid = commit.branches["main"]
    assert f"2: ada/pets (commit {oid[:12]}): epochs 0" in captured.out
    assert f"ada/pets: commit {oid}, fetching 2 files" in captured.err
    assert not [each.path for each in hub.seen("*", "*resolve*") if "model.safetensors" in each.path]
    found = zoo.compare([here, f"ada/pets@{oid}"], baseline="ada/pets")
    assert [(each.test, each.row_only, each.baseline_only) for each in found.differences] == [("mcnemar", 30, 10)]
    assert (found.runs[1].run, found.runs[1].commit) == (f"ada/pets@{oid}", oid)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert zoo.compare([here, "ada/pets"]).differences[0].test == "mcnemar"  # from the Hub's cache


def test_a_repository_that_cannot_be_compared_is_named_and_the_rest_is_shown(
    hub: Hub, saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = published(scored_run(saved, tmp_path / "run", hits(900, 30, 10)[0]))
    other = published(scored_run(saved, tmp_path / "other", hits(900, 10, 30)[0]))
    hub.create("ada/pets", files)
    hub.create("ada/not-ours", {"model.safetensors": b"x", "config.json": b"{}"})
    hub.create("eve/private", files, private=True)
    hub.create("ada/newer", files | {"zoo.json": files["zoo.json"].replace(b"blockzoo run 1", b"blockzoo run 2")})
    hub.create("ada/contradicts", files | {"predictions.safetensors": other["predictions.safetensors"]})
    hub.create("ada/hostile", files | {"zoo.json": files["zoo.json"].replace(b'"cat"', b'"%s"' % (b"c" * 2000))})
    bad = ("not-ours", "newer", "contradicts", "hostile", "missing", "--bad")
    names = [*(f"ada/{name}" for name in bad), "eve/private", "ada/pets@v9", "https://hub/ada/pets"]
    assert run(["compare", "ada/pets", "ada/pets@main", *names, "--json"]) == 1
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    assert [each["run"] for each in found["runs"]] == ["ada/pets"]
    assert {each["run"]: each["code"] for each in found["left_out"]} == {
        "ada/pets@main": "repeated-subject",
        "ada/not-ours": "not-published",
        "ada/newer": "record-of-another-version",
        "ada/contradicts": "predictions-invalid",
        "ada/hostile": "record-class-name",
        "ada/missing": "not-found",
        "ada/--bad": "not-a-repository",
        "eve/private": "not-found",
        "ada/pets@v9": "no-revision",
        "https://hub/ada/pets": "not-a-repository",
    }
    errors = captured.err.splitlines()
    assert len(errors) == 10
    for line, each in zip(errors, found["left_out"], strict=True):
        assert line.startswith("error: ")
        assert each["run"] in line
    assert hub.leaks() == []
