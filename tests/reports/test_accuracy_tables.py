"""Shared images and absent classes: in the record, the table, the card and a re-scoring, with and without a cache."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from sklearn.metrics import f1_score

import zoo
from zoo import Backbone, Preprocessing, RandomWeights, TimmArchitecture
from zoo_harness.cli.run_output import print_run
from zoo_harness.records.run import RunRecord, read_run
from zoo_harness.reports.accuracy_tables import accuracy_notes, accuracy_rows, prediction_rows
from zoo_harness.runs.reporter import LoggingReporter

from ..saved_runs import edit_record

CLASSES = ("cat", "dog", "emu")


class Warnings(LoggingReporter):
    """A reporter that keeps the warnings."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def warn(self, line: str) -> None:
        """Keep a warning."""
        self.lines.append(line)


@pytest.fixture(scope="module")
def backbone(tiny_resnet: Backbone) -> Backbone:
    shared = {name: getattr(tiny_resnet, name) for name in ("unfreeze", "head", "features", "license", "paper")}
    return Backbone(
        name="unregistered_resnet",
        weights=RandomWeights(),
        architecture=TimmArchitecture("test_resnet.r160_in1k"),
        preprocessing=Preprocessing((32, 32)),
        pretrained_on=None,
        imagenet_top1=None,
        **shared,
    )


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes; the test split lacks one and has two images of the training split, one under another label."""
    folder, draws = tmp_path_factory.mktemp("data") / "photos", np.random.default_rng(0)
    for split, each in (("train", 6), ("test", 4)):
        for label, name in enumerate(CLASSES if split == "train" else CLASSES[:2]):
            (folder / split / name).mkdir(parents=True)
            for number in range(each - label):
                pixels = draws.integers(0, 256, (40, 30 + number, 3), dtype=np.uint8)
                PIL.Image.fromarray(pixels).save(folder / split / name / f"{number}.png")
    shutil.copy(folder / "train" / "cat" / "0.png", folder / "test" / "cat" / "copy.png")
    shutil.copy(folder / "train" / "emu" / "0.png", folder / "test" / "dog" / "copy.png")
    return folder


@pytest.fixture(scope="module")
def finished(backbone: Backbone, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> zoo.Run:
    """A run whose frozen outputs are cached; look only."""
    out = tmp_path_factory.mktemp("runs") / "run"
    return zoo.evaluate(backbone, f"imagefolder:{photos}", epochs=1, batch_size=8, out=out)


def test_the_accuracy_without_shared_images_stands_beside_the_accuracy(finished: zoo.Run) -> None:
    rows = dict(accuracy_rows(finished.record))
    assert list(rows) == [
        "test accuracy",
        "accuracy without the 2 test images that are also in train",
        "mean per-class accuracy, 2 classes in test",
        "mean per-class accuracy, all 3 classes",
        "training accuracy",
    ]
    assert [accuracy.n for accuracy in rows.values() if accuracy] == [9, 7, 9, 9, 15]
    confusion = json.loads((finished.directory / "confusion.json").read_text())["counts"]
    recalls = [confusion[label][label] / sum(confusion[label]) for label in range(2)]
    details = finished.record.results.accuracy_details
    assert details is not None
    assert details.per_class.value == pytest.approx(sum(recalls) / 2)
    assert details.per_class_of_all.value == pytest.approx(sum(recalls) / 3)
    assert (details.absent, details.shared) == (("emu",), 2)


def test_the_card_shows_and_explains_the_measures_of_the_predictions(finished: zoo.Run) -> None:
    rows, card = dict(prediction_rows(finished.record)), finished.card
    assert list(rows) == ["mean per-class accuracy (balanced accuracy)", "macro F1", "expected calibration error"]
    predictions = finished.predictions
    assert predictions is not None
    assert rows["macro F1"].value == pytest.approx(f1_score(predictions.label, predictions.predicted, average="macro"))
    assert card is not None
    for name, measured in rows.items():
        assert f"| {name} | {100 * measured.value:.2f} % ± {100 * measured.standard_error:.2f} |" in card.replace(
            "\\", ""
        )
    assert "15 equally wide bins" in card
    assert "- `predictions.safetensors`: " in card


def test_a_cache_changes_no_figure(finished: zoo.Run, backbone: Backbone, photos: Path, tmp_path: Path) -> None:
    assert finished.record.results.frozen_part is not None
    assert finished.record.results.frozen_part.reason is None
    reporter = Warnings()
    options = {"epochs": 1, "batch_size": 8, "cache": "off", "out": tmp_path / "run", "progress": reporter}
    without = zoo.evaluate(backbone, f"imagefolder:{photos}", **options)
    assert without.record.dataset == finished.record.dataset
    details = [run.record.results.accuracy_details for run in (without, finished)]
    assert details[0] == details[1]
    told = [each.in_words() for each in without.record.dataset.duplicates or ()]
    assert told == [
        "2 of 9 images of split 'test' are also in split 'train', such as test/cat/copy.png = train/cat/0.png; "
        "1 with another label, such as test/dog/copy.png (dog) = train/emu/0.png (emu)"
    ]
    assert [line for line in reporter.lines if "also in split" in line] == told


def test_terminal_and_card_show_and_explain_the_averages(finished: zoo.Run, capsys: pytest.CaptureFixture[str]) -> None:
    print_run(finished, as_json=False, quiet=False)
    printed = capsys.readouterr().out
    card = (finished.directory / "README.md").read_text()
    for name, _accuracy in accuracy_rows(finished.record)[1:4]:
        assert f"\n{name}  " in printed
        assert f"\n| {name} | " in card
    for note in accuracy_notes(finished.record):
        assert note in " ".join(printed.split())
        assert f"\n- {note}\n" in card
    assert "such as test/cat/copy.png = train/cat/0.png; 1 with another label" in card
    assert "no image of 1 of 3 classes (emu). Accuracy, loss and SI are computed on the classes present" in card


def test_a_scoring_anew_compares_them_too(finished: zoo.Run, tmp_path: Path) -> None:
    reporter = Warnings()
    found = zoo.rescore(finished.directory, progress=reporter)
    added = ["accuracy without 2 images also in train", "mean per-class accuracy, 2 classes present"]
    names = [*added, "mean per-class accuracy, all 3 classes"]
    figures = {each.name: each for each in found.figures}
    assert list(figures)[-3:] == names
    for name in names:
        assert (figures[name].verdict, figures[name].images_apart) == ("reproduced", 0)
    assert len([line for line in reporter.lines if "also in split" in line]) == 1
    earlier = Path(shutil.copytree(finished.directory, tmp_path / "run"))
    edit_record(earlier, lambda record: record["results"].pop("accuracy_details"))
    edit_record(earlier, lambda record: record["dataset"].pop("duplicates"))
    verdicts = {each.name: each.verdict for each in zoo.rescore(earlier).figures}
    assert [verdicts[name] for name in ("accuracy", *names)] == ["reproduced", *["not recorded"] * 3]


def test_a_class_mean_that_was_made_up_is_not_reproduced(finished: zoo.Run, tmp_path: Path) -> None:
    made_up = Path(shutil.copytree(finished.directory, tmp_path / "run"))
    value = 0.9 if read_run(made_up).results.accuracy_details.per_class.value < 0.5 else 0.1  # type: ignore[union-attr]
    edit_record(made_up, lambda record: record["results"]["accuracy_details"]["per_class"].update(value=value))
    verdicts = [each.verdict for each in zoo.rescore(made_up).figures]
    assert verdicts.count("not reproduced") == 1


def test_training_from_scratch_keeps_a_test_split_with_details_of_its_own(
    backbone: Backbone, photos: Path, tmp_path: Path
) -> None:
    options = {"val_fraction": 0.34, "epochs": 1, "batch_size": 8, "out": tmp_path / "run"}
    record = zoo.train(backbone, f"imagefolder:{photos}", **options).record
    held_out, test = record.results.accuracy_details, record.results.test_accuracy_details
    assert held_out is not None
    assert test is not None
    assert (held_out.shared, held_out.absent) == (0, ())
    assert (test.shared, test.absent) == (2, ("emu",)), "two images of train or held out of it"
    assert accuracy_rows(record)[1][0] == "accuracy without the 2 test images that are also in train"


@pytest.mark.parametrize("cache", ["auto", "off"])
def test_a_test_folder_that_is_a_copy_of_train_has_no_accuracy_of_its_own(
    backbone: Backbone, photos: Path, tmp_path: Path, cache: str
) -> None:
    shutil.copytree(photos / "train", tmp_path / "copy" / "train")
    shutil.copytree(photos / "train", tmp_path / "copy" / "test")
    options = {"epochs": 1, "batch_size": 8, "cache": cache, "out": tmp_path / "run"}
    record = zoo.evaluate(backbone, f"imagefolder:{tmp_path / 'copy'}", **options).record
    name, accuracy = accuracy_rows(record)[1]
    assert (name, accuracy) == ("accuracy without the 15 test images that are also in train", None)
    assert accuracy_notes(record) == [
        "15 of the 15 test images are also in the training split, equal in every pixel; no other image is left to "
        "compute an accuracy on."
    ]


def test_a_record_from_before_has_the_rows_it_had(finished: zoo.Run) -> None:
    content = json.loads(finished.record.to_json())
    del content["results"]["accuracy_details"], content["results"]["test_accuracy_details"]
    del content["dataset"]["duplicates"]
    record = RunRecord.model_validate_json(json.dumps(content))
    assert [name for name, _accuracy in accuracy_rows(record)] == ["test accuracy", "training accuracy"]
    assert accuracy_notes(record) == []
