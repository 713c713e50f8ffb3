"""``zoo predict``: the classes of image files as the model itself gives them, whatever lies between the files."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import skimage.data
import torch

import zoo
from zoo import Backbone
from zoo_harness.checkpoints.loaded_model import predict_files
from zoo_harness.cli.main import run

from ...hub_server import Hub
from ...saved_runs import CLASSES, published_files, save_run


@pytest.fixture
def saved(tiny_resnet: Backbone, tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    save_run(tiny_resnet, folder)
    return folder


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of images of several kinds and sizes, and of other things."""
    folder = tmp_path / "photos"
    folder.mkdir()
    cat = PIL.Image.fromarray(skimage.data.cat())
    cat.save(folder / "c.png")
    cat.crop((0, 0, 90, 40)).convert("L").save(folder / "a.JPG")
    cat.quantize().save(folder / "b.png")
    (folder / "notes.txt").write_text("no image")
    (folder / ".hidden.png").write_text("no image")
    (folder / "deeper.png").mkdir()
    return folder


def test_what_pillow_reads_is_predicted_and_the_rest_is_named_with_the_remedy(
    saved: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frames = [PIL.Image.new("RGB", (30, 30), colour) for colour in ("red", "lime")]
    frames[0].save(photos / "moving.gif", save_all=True, append_images=frames[1:])
    frames[0].save(photos / "still.avif")
    frames[0].save(photos / "old.jfif", "jpeg")
    (photos / "raw.NEF").write_bytes(b"raw")
    assert run(["predict", str(saved), str(photos), "--json"]) == 1
    captured = capsys.readouterr()
    found = {Path(each["image"]).name: each.get("error") for each in json.loads(captured.out)}
    assert [name for name, error in found.items() if error is None] == [
        *("a.JPG", "b.png", "c.png", "moving.gif", "old.jfif", "still.avif")
    ]
    assert "camera raw: convert it" in found["raw.NEF"]
    assert "1 of 7 files have several pages or frames" in captured.err


def test_a_table_has_the_likeliest_classes_of_each_image(
    saved: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["predict", str(saved), str(photos), "--top", "2"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    lines = captured.out.splitlines()
    assert lines[0].split() == ["image", "class", "probability"]
    model = zoo.load(saved)
    for place, name in enumerate(("a.JPG", "b.png", "c.png")):
        ((first, share), (second, _less)) = model.top(PIL.Image.open(photos / name), 2)[0]
        line, next_line = lines[1 + 2 * place : 3 + 2 * place]
        assert re.fullmatch(rf"{re.escape(str(photos / name))} +{re.escape(first)} +{share:.4f}", line)
        assert next_line.split()[: len(second.split())] == second.split()


def test_json_has_what_the_model_gives(saved: Path, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [str(photos / "c.png"), str(photos / "a.JPG")]
    assert run(["predict", str(saved), *paths, "--json", "--batch-size", "1"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [each["image"] for each in told] == paths
    model = zoo.load(saved)
    for each in told:
        expected = model.top(PIL.Image.open(each["image"]), 3)[0]
        assert [row["class"] for row in each["classes"]] == [name for name, _share in expected]
        assert [row["probability"] for row in each["classes"]] == pytest.approx([share for _name, share in expected])
        assert sum(row["probability"] for row in each["classes"]) == pytest.approx(1)


def test_an_unreadable_file_does_not_affect_the_others(
    saved: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photos / "broken.png").write_bytes((photos / "c.png").read_bytes()[:3000])
    (photos / "text.png").write_text("no image")
    PIL.Image.new("L", (1, 900)).save(photos / "strip.png")
    PIL.Image.fromarray(np.zeros((4, 4), np.float32)).save(photos / "float.tif")
    os.mkfifo(photos / "pipe.png")
    (photos / "\x1b[2Jgone").symlink_to("nowhere")

    assert run(["predict", str(saved), str(photos), str(photos / "\x1b[2Jgone"), "--top", "1"]) == 1
    captured = capsys.readouterr()
    assert len(captured.out.splitlines()) == 4
    *errors, last = captured.err.splitlines()
    for name in ("broken.png", "float.tif", "pipe.png", "strip.png", "text.png", "gone"):
        assert any(name in line for line in errors), (name, errors)
    assert all(line.startswith("error: ") and line.isprintable() for line in errors)
    assert last == "6 of 9 images could not be read"


def test_names_that_no_file_can_have(saved: Path, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["predict", str(saved), "x" * 5000, "a\0b", str(photos / "c.png"), "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert ["error" in each for each in told] == [True, True, False]
    for name in ("x" * 5000, "~nobody-of-this-name/run"):
        assert run(["predict", name, str(photos)]) == 2
        assert "error: " in capsys.readouterr().err
    assert run(["predict", str(saved), "~nobody-of-this-name/cat.png"]) == 2
    assert run(["eval", "x" * 5000, "--dataset", "digits"]) == 2
    assert "unknown backbone" in capsys.readouterr().err


def test_json_has_the_errors_in_their_place(saved: Path, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["predict", str(saved), str(photos / "notes.txt"), str(photos / "c.png"), "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told[0].keys() == {"image", "error"}
    assert (told[0]["image"], "notes.txt" in told[0]["error"]) == (str(photos / "notes.txt"), True)
    assert len(told[1]["classes"]) == len(CLASSES)


def test_a_repository_is_fetched(hub: Hub, saved: Path, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hub.create("ada/pets", published_files(saved))

    assert run(["predict", "ada/pets", str(photos / "c.png"), "--quiet"]) == 0
    assert zoo.load(saved).predict(PIL.Image.open(photos / "c.png"))[0] in capsys.readouterr().out


@pytest.mark.parametrize(("option", "value"), [("--top", "0"), ("--batch-size", "0"), ("--device", "gpu")])
def test_a_wrong_value_is_refused(
    saved: Path, photos: Path, error_of: Callable[..., zoo.ZooError], option: str, value: str
) -> None:
    error = error_of("predict", str(saved), str(photos), option, value)
    assert error.exit_code == 2
    assert option in str(error)


def test_folder_without_images(saved: Path, tmp_path: Path, error_of: Callable[..., zoo.ZooError]) -> None:
    (tmp_path / "classes" / "cat").mkdir(parents=True)
    assert error_of("predict", str(saved), str(tmp_path / "classes")).exit_code == 2


def test_batches_of_any_size_give_the_same(saved: Path, photos: Path) -> None:
    model, paths = zoo.load(saved), sorted(photos.glob("*.[pJ]*[gG]"))
    paths = [path for path in paths if path.is_file()]
    one, all_at_once = ([each for part in predict_files(model, paths, 3, n) for each in part] for n in (1, 32))
    assert [each.path for each in one] == [each.path for each in all_at_once] == paths
    for left, right in zip(one, all_at_once, strict=True):
        assert [name for name, _share in left.classes] == [name for name, _share in right.classes]


def test_top_gives_all_classes_for_a_larger_k(saved: Path) -> None:
    model = zoo.load(saved)
    images = torch.randint(256, (2, 30, 30), dtype=torch.uint8)
    found = model.top(images, 99)
    assert [[name for name, _share in row][:1] for row in found] == [[name] for name in model.predict(images)]
    assert [sum(share for _name, share in row) for row in found] == pytest.approx([1, 1])
    assert all(len(row) == len(CLASSES) for row in found)
    with pytest.raises(zoo.UsageError):
        model.top(images, 0)
