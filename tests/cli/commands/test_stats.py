"""``zoo stats`` as a user runs it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

import zoo
from zoo import ZooError
from zoo_harness.cli.main import run


@pytest.fixture
def noise(tmp_path: Path) -> Path:
    """A folder of coloured noise of two sizes, with an image that is in both splits."""
    draws = np.random.default_rng(0)
    for split, count in (("train", 5), ("test", 3)):
        for name in ("cat", "a dog with a long name"):
            folder = tmp_path / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = draws.integers(0, 256, (20, 30 + number % 2, 3), dtype=np.uint8)
                PIL.Image.fromarray(pixels).save(folder / f"{number}.png")
    (tmp_path / "test" / "cat" / "same.png").write_bytes((tmp_path / "train" / "cat" / "0.png").read_bytes())
    return tmp_path


def test_the_table_fits_80_columns(noise: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["stats", "--dataset", f"imagefolder:{noise}", "--quiet"]) == 0
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 80
    rows = {line[:18].strip(): line[18:].split("  ") for line in printed.splitlines()}
    train = zoo.dataset_stats(f"imagefolder:{noise}").splits["train"]
    assert rows["mean (R G B)"][0] == " ".join(f"{value:.4f}" for value in train.mean)
    assert [cell.strip() for cell in rows["width"] if cell] == ["30 / 30 / 31", "30 / 30 / 31"]
    assert [cell.strip() for cell in rows["height"] if cell] == ["20", "20"]
    assert [cell.strip() for cell in rows["images per class"] if cell] == ["5", "3 to 4"]
    assert "smallest class 'a dog with a long name' (3), largest 'cat' (4)" in printed
    assert "1 of 7 images of split 'test' are also in split 'train'" in printed
    mean, std = (",".join(f"{value:.4f}" for value in each) for each in (train.mean, train.std))
    assert printed.splitlines()[-1] == f"  --mean {mean} --std {std}"


def test_json_is_the_record(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["stats", "--dataset", "digits", "--per-class", "4", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == zoo.dataset_stats("digits", per_class=4).to_dict()


def test_one_size_is_one_row(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["stats", "--dataset", "digits", "--limit", "20"]) == 0
    printed = capsys.readouterr().out
    assert "width x height    8 x 8" in printed
    assert "no image occurs twice" in printed


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ((), "missing-dataset"),
        (("--dataset", "digit"), "unknown-name"),
        (("--dataset", "digits", "--per-class", "0"), "option-range"),
        (("--dataset", "digits", "--label-column", "a"), "option-unused"),
        (("--dataset", "digits", "--per-class", "2", "--limit", "9"), "option-conflict"),
        (("--dataset", "digits", "--per-class", "900"), "per-class-too-large"),
    ],
)
def test_mistakes_are_named(error_of: Callable[..., ZooError], arguments: tuple[str, ...], code: str) -> None:
    assert error_of("stats", *arguments).code == code
