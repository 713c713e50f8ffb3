"""The options kept with a run: those of earlier versions are read, and wrong files are refused."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from zoo import DataError, UsageError
from zoo_harness.records.options import EvalOptions
from zoo_harness.records.stored_options import OPTIONS, StoredOptions, read_options

EARLIER = Path(__file__).parents[1] / "golden" / "earlier"


def of_earlier_version(name: str, folder: Path) -> StoredOptions:
    shutil.copy(EARLIER / name, folder / OPTIONS)
    return read_options(folder)


def test_options_of_an_evaluation_of_before_are_read(tmp_path: Path) -> None:
    options = of_earlier_version("options_eval.json", tmp_path)
    assert (options.name, options.dataset, options.from_scratch) == ("tiny_vit", "digits", False)
    assert options.given == {
        "per_class": 6,
        "epochs": 2,
        "learning_rate": 0.01,
        "batch_size": 16,
        "optimizer": "sgd",
        "momentum": 0.9,
        "schedule": "cosine",
        "warmup_epochs": 1.0,
        "layer_curve": False,
    }
    assert options.values["weights"] == "pretrained"


def test_options_of_a_training_of_before_are_read(tmp_path: Path) -> None:
    options = of_earlier_version("options_train.json", tmp_path)
    assert options.from_scratch
    expected = {"recipe": "scratch", "weights": "random", "val_fraction": 0.2, "milestones": "1", "epochs": 2}
    assert {name: options.values[name] for name in expected} == expected  # type: ignore[literal-required]


def test_what_is_written_is_read_again_with_whole_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    given: EvalOptions = {"data_dir": Path("photos"), "weights": "a.pth", "milestones": [1, 2], "out": Path("run")}
    asked = StoredOptions("net", "imagefolder:photos", given, in_python=("backbone",))
    asked.write(tmp_path)
    read = read_options(tmp_path)
    assert read == replace(
        asked,
        dataset=f"imagefolder:{tmp_path / 'photos'}",
        given={"data_dir": tmp_path / "photos", "weights": str(tmp_path / "a.pth"), "milestones": [1, 2]},
    )


@pytest.mark.parametrize(
    ("content", "code"),
    [
        ("{", "resume-damaged"),
        ('{"name": 3}', "resume-other-version"),
        ('{"name": "net", "learning_rat": 1}', "resume-other-version"),
        ('{"name": "net", "epochs": "many"}', "resume-other-version"),
        ("[]", "resume-other-version"),
        ("[" * 100_000, "resume-damaged"),
        ("1" * 5_000, "resume-damaged"),
    ],
)
def test_wrong_files_are_refused(content: str, code: str, tmp_path: Path) -> None:
    (tmp_path / OPTIONS).write_text(content)
    with pytest.raises(DataError) as refused:
        read_options(tmp_path)
    assert refused.value.code == code


def test_a_folder_without_options_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as refused:
        read_options(tmp_path)
    assert refused.value.code == "resume-no-options"


@pytest.mark.timeout(20)
def test_links_and_pipes_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / OPTIONS)
    with pytest.raises(UsageError) as refused:
        read_options(tmp_path)
    assert refused.value.code == "resume-no-options"
    (tmp_path / OPTIONS).unlink()
    (tmp_path / OPTIONS).symlink_to(EARLIER / "options_eval.json")
    with pytest.raises(UsageError) as refused:
        read_options(tmp_path)
    assert refused.value.code == "resume-no-options"
