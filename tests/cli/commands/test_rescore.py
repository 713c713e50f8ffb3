"""``zoo eval CHECKPOINT --epochs 0`` reproduces the figures of a record, or shows why they may differ."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from zoo import Backbone, UnknownNameError, UsageError, ZooError
from zoo_harness.cli.main import run
from zoo_harness.evaluation.predictions import read_predictions
from zoo_harness.records.file_names import CHECKPOINT
from zoo_harness.records.run import Measurement, ScoreMeasurement, SeparationSettings, read_run
from zoo_harness.runs.rescore import RescoreRecord, compared

from ...hub_server import Hub
from ...saved_runs import CLASSES, edit_record, published_files, save_run

Refused = Callable[..., ZooError]
SORTED = tuple(sorted(CLASSES))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run as a user makes it, on a part of a dataset, held out by seed."""
    out = tmp_path_factory.mktemp("finished") / "run"
    arguments = ["--per-class", "4", "--val-fraction", "0.5", "--epochs", "1", "--seed", "3", "--out", str(out)]
    arguments += ["--order", "3", "--normalize", "zscore", "--eval-limit", "40"]
    assert run(["eval", "efficientnet_lite0", "--dataset", "digits", *arguments, "--quiet"]) == 0
    return out


def rescored(capsys: pytest.CaptureFixture[str], *arguments: str) -> RescoreRecord:
    assert run(["eval", *arguments, "--epochs", "0", "--json"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    return RescoreRecord.model_validate_json(captured.out)


def test_a_published_checkpoint_gives_its_figures_again(
    hub: Hub, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(["publish", str(finished), "--to", "ada/digits", "--quiet"]) == 0
    commit = hub.repositories["ada/digits"].branches["main"]
    assert run(["pull", "ada/digits", "--to", str(tmp_path / "pulled"), "--quiet"]) == 0
    assert {path.name: path.read_bytes() for path in (tmp_path / "pulled").iterdir()} == hub.files("ada/digits")
    assert (tmp_path / "pulled" / CHECKPOINT).read_bytes() == (finished / CHECKPOINT).read_bytes()
    capsys.readouterr()
    monkeypatch.chdir(tmp_path)
    found = rescored(capsys, "ada/digits", "--out", "again")
    recorded = read_run(finished)
    assert (found.checkpoint, found.commit) == ("ada/digits", commit)
    assert found.checkpoint_sha256 == recorded.checkpoint_sha256
    assert found.same_data == {"evaluation": True}
    assert found.dataset == recorded.dataset
    assert found.separation == recorded.settings.separation == SeparationSettings(order=3, normalize="zscore")
    names = ["accuracy", "SI", "high-order SI", "soft SI", "anti SI", "centre SI"]
    assert [each.name for each in found.figures] == names
    for each in found.figures:
        # A score of 0 has no error to divide by.
        assert (each.verdict, each.images_apart, each.errors_apart or 0) == ("reproduced", 0, 0)
        assert each.found == each.recorded
    assert found.figures[0].found == recorded.results.accuracy
    assert {path.name for path in tmp_path.iterdir()} - {"hf", "pulled"} == {"again"}  # no run directory
    assert RescoreRecord.model_validate_json((tmp_path / "again" / "rescore.json").read_text()) == found
    predictions = read_predictions(tmp_path / "again", found.predictions)
    split = found.dataset.test or found.dataset.evaluation
    assert predictions is not None
    assert (predictions.split, predictions.fingerprint, len(predictions)) == (
        split.split,
        split.fingerprint,
        split.images,
    )


def test_other_images_are_not_compared(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = rescored(capsys, str(finished), "--per-class", "6")
    assert found.same_data == {"evaluation": False}
    assert {each.verdict for each in found.figures} == {"not comparable"}
    accuracy = found.figures[0]
    assert accuracy.recorded is not None
    assert accuracy.found.n == 60
    error = np.hypot(accuracy.found.standard_error, accuracy.recorded.standard_error)
    assert accuracy.errors_apart == pytest.approx((accuracy.found.value - accuracy.recorded.value) / error)
    assert (found.dataset.per_class, found.dataset.eval_limit) == (6, None)
    found = rescored(capsys, str(finished), "--eval-fraction", "0.5")
    assert (found.dataset.per_class, found.dataset.eval_limit, found.dataset.eval_fraction) == (4, None, 0.5)
    assert found.same_data == {"evaluation": False}
    assert run(["eval", str(finished), "--epochs", "0", "--seed", "4"]) == 0
    assert "not comparable: other images, " in (printed := capsys.readouterr().out)
    assert "results may differ although the checkpoint is the same" in " ".join(printed.split())


def test_a_checkpoint_that_was_not_kept_is_refused(finished: Path, error_of: Refused) -> None:
    error = error_of("eval", str(finished), "--epochs", "0", "--checkpoint", "2")
    assert (error.code, error.facts["there"]) == ("no-such-checkpoint", (1,))


@pytest.mark.parametrize(
    ("given", "comparable"),
    [(("--order", "2"), {"SI", "centre SI"}), (("--normalize", "none"), set()), (("--metric", "cosine"), set())],
)
def test_scores_with_other_settings_are_not_compared(
    finished: Path, capsys: pytest.CaptureFixture[str], given: tuple[str, str], comparable: set[str]
) -> None:
    found = rescored(capsys, str(finished), *given)
    verdicts = {each.name: each.verdict for each in found.figures}
    assert verdicts.pop("accuracy") == "reproduced"
    assert {name for name, verdict in verdicts.items() if verdict == "reproduced"} == comparable
    assert {verdict for name, verdict in verdicts.items() if name not in comparable} == {"not recorded"}
    assert found.recorded_separation == SeparationSettings(order=3, normalize="zscore") != found.separation


def test_another_layer_has_no_recorded_si(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = rescored(capsys, str(finished), "--layer", "blocks.5")
    assert found.layer == "blocks.5"
    verdicts = {each.name: each.verdict for each in found.figures}
    assert (verdicts["accuracy"], verdicts["SI"], verdicts["centre SI"]) == ("reproduced", *["not recorded"] * 2)


def test_a_table_shows_which_figures_were_made_up(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made_up = Path(shutil.copytree(finished, tmp_path / "run"))
    edit_record(made_up, lambda record: record["results"]["accuracy"].update(value=1.0, standard_error=0.0))
    assert run(["eval", str(made_up), "--epochs", "0"]) == 1
    captured = capsys.readouterr()
    assert f"{made_up} on scikit-learn digits: 40 held out of train images, 0.5 of the training split" in captured.err
    lines = captured.out.splitlines()
    assert lines[0].split() == ["split", "figure", "recorded", "here", "verdict"]
    assert "not reproduced: " in lines[1]
    assert " of 40 images fewer, -" in lines[1]
    assert (lines[2].split()[-8], lines[2].split()[-1], lines[3]) == ("SI", "reproduced", "")
    assert "6 results: 1 not reproduced, 5 reproduced" in lines
    assert run(["eval", str(made_up), "--epochs", "0", "--verbose"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert all(line.endswith("  reproduced") for line in lines[2:7])


def test_figures_that_are_all_reproduced_are_one_line(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["eval", str(finished), "--epochs", "0"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[-1] for line in lines[1:3]] == ["reproduced"] * 2
    assert lines[4] == "all 6 results are reproduced"


# Folders of images, and a split that was kept for the end


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    generator = np.random.default_rng(0)
    for split, each in (("train", 8), ("test", 3)):
        for name in CLASSES:
            folder = tmp_path / "photos" / split / name
            folder.mkdir(parents=True)
            for number in range(each):
                pixels = generator.integers(0, 256, (40, 50, 3), dtype=np.uint8)
                PIL.Image.fromarray(pixels).save(folder / f"{number}.png")
    return tmp_path / "photos"


def described(record: dict[str, Any], found: RescoreRecord) -> None:
    """Make the record one of a run that was scored so."""
    figures = {(each.split, each.name): json.loads(each.found.model_dump_json()) for each in found.figures}

    def scores(split: str) -> dict[str, Any]:
        names = {"si": "SI", "high": "high-order SI", "soft": "soft SI", "anti": "anti SI", "centre": "centre SI"}
        parts = {name: figures[split, title] for name, title in names.items()}
        return {"order": 2, **parts, "duplicates": 0, "duplicates_unlike": 0}

    record["dataset"] = json.loads(found.dataset.model_dump_json())
    record["results"]["accuracy"] = figures["evaluation", "accuracy"]
    after: dict[str, Any] = {"layer": found.layer, "train": None, "evaluation": scores("evaluation")}
    if found.dataset.test is not None:
        record["results"]["test_accuracy"] = figures["test", "accuracy"]
        after["test"] = scores("test")
    record["results"]["separation_after"] = after


@pytest.fixture
def checkpoint(tiny_resnet: Backbone, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """A published checkpoint whose record has a split that was kept for the end, and what it scored there."""
    folder = tmp_path / "tree"
    folder.mkdir()
    save_run(tiny_resnet, folder)

    def with_test(record: dict[str, Any]) -> None:
        record["dataset"]["classes"] = SORTED
        record["dataset"]["test"] = record["dataset"]["evaluation"]

    edit_record(folder, with_test)
    configuration = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**configuration, "label_names": SORTED}))
    data = ("--dataset", f"imagefolder:{photos}", "--val-fraction", "0.5")
    found = rescored(capsys, str(folder), *data)
    assert {each.verdict for each in found.figures} == {"not recorded"}
    edit_record(folder, lambda record: described(record, found))
    edit_record(folder, lambda record: record["dataset"].update(argument="photos"))
    (folder / "run.json").rename(folder / "zoo.json")
    return folder


def test_the_split_that_was_kept_for_the_end_is_scored_too(
    checkpoint: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = rescored(capsys, str(checkpoint), "--dataset", f"imagefolder:{photos}")
    assert found.same_data == {"evaluation": True, "test": True}
    assert [each.split for each in found.figures] == ["evaluation"] * 6 + ["test"] * 6
    assert {each.verdict for each in found.figures} == {"reproduced"}
    assert [each.found.n for each in found.figures[::6]] == [12, 9]


def test_one_changed_pixel_is_other_data(checkpoint: Path, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = photos / "test" / "cat" / "1.png"
    pixels = np.array(PIL.Image.open(path))
    pixels[0, 0, 0] ^= 1
    PIL.Image.fromarray(pixels).save(path)
    found = rescored(capsys, str(checkpoint), "--dataset", f"imagefolder:{photos}")
    assert found.same_data == {"evaluation": True, "test": False}


def test_a_folder_of_another_machine_must_be_given(checkpoint: Path, error_of: Refused) -> None:
    assert error_of("eval", str(checkpoint), "--epochs", "0").code == "missing-dataset"


@pytest.mark.parametrize(
    ("named", "told"),
    [
        ("imagefolder:PHOTOS", "class 0 is 'cat' in the checkpoint and 'a \"quoted\", Größe' in the data"),
        ("digits", "the checkpoint has 3 classes, scikit-learn digits has 10"),
    ],
)
def test_other_classes_are_refused(
    tiny_resnet: Backbone, photos: Path, tmp_path: Path, error_of: Refused, named: str, told: str
) -> None:
    save_run(tiny_resnet, tmp_path)
    error = error_of("eval", str(tmp_path), "--dataset", named.replace("PHOTOS", str(photos)), "--epochs", "0")
    assert error.code == "other-classes"
    assert told in str(error)


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        (lambda record: record["settings"].update(seed=-1), "settings.seed"),
        (lambda record: record["dataset"].update(per_class=0), "dataset.per_class"),
        (lambda record: record["dataset"].update(per_class=2, limit=2), "--limit"),
        (lambda record: record["dataset"].update(val_fraction=7), "dataset.val_fraction"),
        (lambda record: record["backbone"]["features"][-1].update(width=10**12), "1000000000000"),  # fills no memory
    ],
)
def test_a_record_that_is_false_is_refused(
    checkpoint: Path, photos: Path, error_of: Refused, edit: Callable[[dict[str, Any]], object], told: str
) -> None:
    edit_record(checkpoint, edit)
    error = error_of("eval", str(checkpoint), "--dataset", f"imagefolder:{photos}", "--epochs", "0")
    assert told in str(error)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ([], "checkpoint-needs-epochs-0"),
        (["--epochs", "3"], "checkpoint-needs-epochs-0"),
        (["--epochs", "0", "--recipe", "paper", "--learning-rate", "1"], "option-unused"),
        (["--epochs", "0", "--tensorboard"], "option-unused"),
        (["--epochs", "0", "--layer", "fc9"], "unknown-name"),
        (["--epochs", "0", "--dataset", "digitz"], "unknown-name"),
        (["--epochs", "0", "--dataset", "pets"], "unknown-name"),
        (["--epochs", "0", "--precision", "fp16"], "option-choice"),
        (["--epochs", "0", "--data-dir", "/nowhere"], "missing-folder"),
        (["--epochs", "0", "--device", "gpu"], None),
        (["--epochs", "0", "--precision", "bf16", "--device", "cpu", "--dataset", "digits"], None),
        (["--epochs", "0", "--per-class", "2", "--limit", "2"], None),
    ],
)
def test_wrong_options_are_refused(
    tiny_resnet: Backbone, tmp_path: Path, error_of: Refused, arguments: list[str], code: str | None
) -> None:
    save_run(tiny_resnet, tmp_path)
    error = error_of("eval", str(tmp_path), *arguments)
    assert isinstance(error, UsageError)
    assert code in (None, error.code)


def test_a_data_set_that_no_plugin_declares_any_more(
    hub: Hub, tiny_resnet: Backbone, tmp_path: Path, error_of: Refused
) -> None:
    save_run(tiny_resnet, tmp_path)
    hub.create("ada/pets", published_files(tmp_path))
    error = error_of("eval", "ada/pets", "--epochs", "0")
    assert isinstance(error, UnknownNameError)
    assert error.given == "pets"


# The verdict


def measured(right: int, n: int) -> Measurement:
    return Measurement(value=right / n, standard_error=0.01, n=n)


@pytest.mark.parametrize(
    ("right", "n", "per_rounded", "verdict"),
    [
        (800, 1000, 1000, "reproduced"),
        (799, 1000, 1000, "reproduced"),
        (798, 1000, 1000, "not reproduced"),
        (802, 1000, 1000, "not reproduced"),
        (805, 1000, 200, "reproduced"),
        (806, 1000, 200, "not reproduced"),
        (9, 10, 1000, "reproduced"),
        (6, 10, 1000, "not reproduced"),
    ],
)
def test_rounding_turns_one_image_in_a_thousand(right: int, n: int, per_rounded: int, verdict: str) -> None:
    recorded = measured(round(0.8 * n), n)
    figure = compared("accuracy", "evaluation", recorded, measured(right, n), same_data=True, per_rounded=per_rounded)
    assert figure.verdict == verdict
    assert figure.images_apart == abs(right - round(0.8 * n))


def test_scores_are_compared_by_their_bootstrap_error() -> None:
    one, other = (
        ScoreMeasurement(value=value, standard_error=0.01, n=100, bootstrap_error=0.03, tied=0) for value in (0.5, 0.56)
    )
    figure = compared("SI", "evaluation", one, other, same_data=False)
    assert figure.errors_apart == pytest.approx(0.06 / (0.03 * 2**0.5))
    certain = measured(5, 5).model_copy(update={"standard_error": 0.0})
    assert compared("accuracy", "evaluation", certain, certain, same_data=False).errors_apart is None
