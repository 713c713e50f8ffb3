"""``zoo layers`` as a user runs it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import zoo
from zoo import Backbone, Preprocessing, UsageError, ZooError, load_registry
from zoo.value_range import ValueRange
from zoo_harness.cli.main import run
from zoo_harness.data.loading import load_data
from zoo_harness.data.transform import BatchTransform
from zoo_harness.records.subset import Subset

from ...saved_runs import edit_record, save_run

ZOO = str(Path(sys.executable).with_name("zoo"))
LAYERS = ("layers", "efficientnet_lite0", "--dataset", "digits", "--per-class", "3", "--pool", "--quiet")


@pytest.fixture(scope="module")
def curves(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("layers") / "out"
    assert run([*LAYERS, "--split", "both", "--order", "3", "--out", str(out)]) == 0
    return out


def test_record_and_plot_are_written(curves: Path) -> None:
    assert {file.name for file in curves.iterdir()} == {"layers.json", "layers.png"}
    record = json.loads((curves / "layers.json").read_text())
    declared = load_registry().backbone("efficientnet_lite0").features
    assert [curve["split"] for curve in record["curves"]] == ["train", "test"]
    for curve in record["curves"]:
        assert [layer["layer"] for layer in curve["layers"]] == ["raw pixels", *(layer.path for layer in declared)]
        assert [layer["width"] for layer in curve["layers"][1:]] == [layer.width for layer in declared]
        assert all(0 <= layer["high"]["3"]["value"] <= layer["si"]["value"] <= 1 for layer in curve["layers"])
        assert curve["weights"]["sha256"].startswith("579344248a93e230")
        assert curve["data"]["images"] == 30
    assert record["scoring"]["pooled"] is True
    with Image.open(curves / "layers.png") as picture:
        assert picture.width > 800


@pytest.mark.parametrize("columns", [120, 80])
def test_the_table_has_a_row_for_each_layer_and_fits_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    assert run([*LAYERS, "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out.splitlines()
    rows = [line for line in printed if " ± " in line and not line.startswith("highest SI: ")]
    assert rows[0].startswith("raw pixels")
    assert rows[-1].split()[:3] == ["global_pool", "1,280", "flatten"]
    assert len(rows) == 10
    assert max(map(len, rows)) <= columns
    assert all(line.endswith("|") for line in rows) == (columns == 120)  # bars need room
    assert printed[-1].endswith("layers.png")


def test_the_last_layers_stand_in_one_table_with_a_row_for_each_network_and_split(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    networks = ("resnet18_cifar", "vgg16_bn_cifar", "--weights", "random")
    data = ("--dataset", "digits", "--per-class", "4", "--split", "both", "--last", "--published", "--quiet")
    assert run(["layers", *networks, *data, "--normalize", "zscore", "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert "layers pooled, euclidean distance, z-scored" in " ".join(printed.split())
    assert "Nothing is published of these networks and this dataset." in printed
    rows = [line for line in printed.splitlines() if " ± " in line]
    assert [line[:24].split() for line in rows[::2]] == [
        ["raw", "pixels"],
        ["resnet18_cifar", "(random)"],
        ["vgg16_bn_cifar", "(random)"],
    ]
    record = json.loads((tmp_path / "out" / "layers.json").read_text())
    for place, curve in enumerate(record["curves"]):
        pixels, last = curve["layers"]
        assert (pixels["layer"], last["layer"]) == ("raw pixels", ["avgpool", "classifier.5"][place // 2])
        cells = rows[2 + place].split()
        values = [last["si"]["value"], *(last[key]["2"]["value"] for key in ("high", "soft", "anti"))]
        shown = [*values, last["centre"]["value"]]
        assert [cells[-7], *cells[-4:]] == [f"{value:.4f}" for value in shown]
        assert last["normalize"] is True
    assert record["curves"][0]["layers"][0] == record["curves"][2]["layers"][0]  # the same images
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"layers.json"}  # two points make no curve


def test_layers_at_another_input_size(tmp_path: Path) -> None:
    """The last stages have maps of one pixel."""
    options = {"per_class": 3, "pool": True, "out": tmp_path / "out"}
    found = zoo.layers("timm:test_resnet", "digits", weights="random", input_size=32, **options)
    [curve] = found.curves
    assert curve.title == "timm:test_resnet (random, 32 x 32), test"
    assert curve.to_dict()["preprocessing"]["input_size"] == (32, 32)
    assert [layer.width for layer in curve.layers[1:]] == [layer.width for layer in curve.subject.layers]


@pytest.mark.slow
def test_a_run_stands_beside_its_backbone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tuned = tmp_path / "tuned"
    small = ("--dataset", "digits", "--per-class", "3", "--quiet")
    assert run(["eval", "efficientnet_lite0", *small, "--epochs", "1", "--out", str(tuned)]) == 0
    capsys.readouterr()
    assert run([*LAYERS, "--run", str(tuned), "--out", str(tmp_path / "out"), "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    names = [curve["subject"] for curve in record["curves"]]
    assert names == ["efficientnet_lite0", "efficientnet_lite0 (tuned)"]
    before, after = (curve["layers"] for curve in record["curves"])
    frozen = [layer["layer"] for layer in before[:7]]
    assert [layer["si"] for layer in before if layer["layer"] in frozen] == [
        layer["si"] for layer in after if layer["layer"] in frozen
    ]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["layers"], "missing-backbone"),
        (["layers", "--run", "nowhere", "--weights", "random"], "option-unused"),
        (["layers", "--run", "nowhere", "--input-size", "32"], "option-unused"),
        (["layers", "resnet18", "--last", "--svg"], "option-unused"),
        ([*LAYERS, "--input-size", "32x"], "option-value"),
        ([*LAYERS, "--input-size", "4097"], "option-value"),
        (["layers", "resnet18", "resnet18"], "repeated-subject"),
        (["layers", "efficientnet_lite"], "unknown-name"),
        ([*LAYERS, "--split", "testing"], None),
        ([*LAYERS, "--order", "0"], "option-range"),
        ([*LAYERS, "--order", "30"], "too-few-images"),
        (["layers", "resnet18_cifar", "--weights", "random", "--per-class", "1", "--quiet"], "too-few-images"),
        ([*LAYERS, "--memory", "0"], "option-range"),
        ([*LAYERS, "--weights", "nowhere.pth"], None),
        (["layers", "--run", "nowhere"], "not-a-run"),
        ([*LAYERS, "--out", __file__], "out-is-a-file"),
        ([*LAYERS, "--out", str(Path(__file__).parent)], "out-not-empty"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_written(
    arguments: list[str],
    code: str | None,
    tmp_path: Path,
    error_of: Callable[..., ZooError],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    error = error_of(*arguments)
    assert isinstance(error, UsageError)
    assert code in (None, error.code)
    assert list(tmp_path.iterdir()) == []


def test_per_class_is_checked_against_the_split_that_is_scored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], error_of: Callable[..., ZooError]
) -> None:
    for split, images in (("train", 5), ("test", 9)):
        for name, color in (("cat", 40), ("dog", 200)):
            folder = tmp_path / "photos" / split / name
            folder.mkdir(parents=True)
            for index in range(images):
                Image.new("RGB", (16, 16), (color, 10 * index, 90)).save(folder / f"{index}.png")
    photos = ("layers", "resnet18_cifar", "--dataset", f"imagefolder:{tmp_path}/photos", "--pool", "--quiet")
    assert run([*photos, "--per-class", "8", "--out", str(tmp_path / "out")]) == 0
    assert "16 images of imagefolder, 8 images per class, seed 0;" in " ".join(capsys.readouterr().out.split())
    for given in (("--per-class", "10"), ("--per-class", "8", "--split", "train")):
        error = error_of(*photos, *given, "--out", str(tmp_path / "more"))
        assert isinstance(error, UsageError)
        assert "has only 9 test images" in str(error) if "10" in given else "has only 5 training images" in str(error)


def test_images_of_a_run_are_read_in_the_range_of_the_run(tiny_resnet: Backbone, tmp_path: Path) -> None:
    """Of 12 bits, though no image of these data is brighter than 1,000; a backbone beside it has no range yet."""
    for split in ("train", "test"):
        for name, value in (("cat", 500), ("dog", 1000)):
            folder = tmp_path / "photos" / split / name
            folder.mkdir(parents=True)
            for index in range(2):
                Image.fromarray(np.full((8, 8), value + index, dtype=np.uint16)).save(folder / f"{index}.png")
    (tmp_path / "run").mkdir()
    save_run(tiny_resnet, tmp_path / "run")
    edit_record(tmp_path / "run", lambda record: record["dataset"].update(value_range=[0, 4095]))
    subjects, data = [tmp_path / "run", "resnet18_cifar"], f"imagefolder:{tmp_path}/photos"
    found = zoo.layers(subjects, data, pool=True, order=1, weights="random", out=tmp_path / "out")
    own, of_run = (curve.data["fingerprint"] for curve in found.curves)
    fingerprints = {}
    for value_range in (None, ValueRange(0, 4095)):
        loaded = load_data(
            *load_registry().dataset(data),
            None,
            Subset(),
            BatchTransform(Preprocessing((32, 32))),
            value_range=value_range,
        )
        fingerprints[value_range] = loaded.record.evaluation.fingerprint
    assert (of_run, own) == (fingerprints[ValueRange(0, 4095)], fingerprints[None])
    assert of_run != own
    alone = zoo.layers(tmp_path / "run", data, pool=True, order=1, out=tmp_path / "alone")
    assert alone.curves[0].data["fingerprint"] == of_run


def test_a_terminated_command_leaves_no_files_and_says_so_by_its_status(tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    sizes = ("--per-class", "30", "--memory", "8")
    process = subprocess.Popen(
        [ZOO, "layers", "efficientnet_lite0", "--dataset", "digits", *sizes, "--out", str(tmp_path / "out")],
        env={**os.environ, "TMPDIR": str(scratch)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 120
    while not list(scratch.glob("blockzoo-features-*/*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 143
    assert list(scratch.glob("blockzoo-features-*")) == []


def test_the_training_split_alone_is_enough(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (12, 8, 8, 3), dtype=np.uint8)
    for index, image in enumerate(images):
        (tmp_path / "photos" / "ab"[index % 2]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(tmp_path / "photos" / "ab"[index % 2] / f"{index}.png")
    options = {"weights": "random", "pool": True, "out": tmp_path / "out"}
    found = zoo.layers("resnet18_cifar", f"imagefolder:{tmp_path / 'photos'}", split="train", **options)
    assert [curve.split for curve in found.curves] == ["train"]
    assert found.curves[0].data["images"] == 12
