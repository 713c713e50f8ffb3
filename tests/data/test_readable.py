"""Reading options in a run, in its record, in a repeated scoring and in the curves of layers."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import tifffile

import zoo
from zoo import Backbone
from zoo_harness.checkpoints.loaded_model import predict_files
from zoo_harness.data.loading import load_data
from zoo_harness.data.transform import BatchTransform
from zoo_harness.records.run import read_run
from zoo_harness.records.subset import Subset


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two classes of photos in Train and Valid, one of them damaged, and a table that names them all."""
    random = np.random.default_rng(0)
    rows = []
    for split, count in (("Train", 6), ("Valid", 3)):
        for level, kind in ((40, "apple"), (200, "pear")):
            (tmp_path / split / kind).mkdir(parents=True)
            for number in range(count):
                pixels = (random.integers(0, 50, (20, 24, 3)) + level).astype(np.uint8)
                path = tmp_path / split / kind / f"{number}.png"
                PIL.Image.fromarray(pixels).save(path)
                rows.append(f"{path.relative_to(tmp_path)},{kind},{number % 3},{split}")
    (tmp_path / "Train" / "pear" / "5.png").write_bytes(b"damaged")
    (tmp_path / "Train" / "@eaDir").mkdir()
    (tmp_path / "table.csv").write_text("\n".join(["file,kind,size,split", *rows]))
    return tmp_path


def test_a_run_says_and_records_how_its_data_were_read(
    photos: Path, tiny_resnet: Backbone, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "zoo")
    run = zoo.evaluate(
        tiny_resnet,
        f"imagefolder:{photos}",
        weights="random",
        epochs=0,
        layer_curve=False,
        skip_unreadable=True,
        out=photos / "run",
    )
    record = run.record.dataset
    assert (record.train.images, record.evaluation.images) == (11, 6)
    assert record.skipped == {"files of systems": 1, "unreadable images": 1}
    assert record.reading[:2] == ("split train is folder Train", "split test is folder Valid")
    assert str(photos) not in str(record.reading)
    assert set(record.reading) <= set(caplog.messages)
    assert any("skipped 1 images" in message for message in caplog.messages)
    assert read_run(photos / "run").dataset == record


def test_columns_are_those_of_the_run_when_it_is_scored_again(
    photos: Path, tiny_resnet: Backbone, caplog: pytest.LogCaptureFixture
) -> None:
    table = f"table:{photos / 'table.csv'}"
    options = {"label_column": "size", "skip_unreadable": True}
    run = zoo.evaluate(tiny_resnet, table, weights="random", epochs=0, layer_curve=False, out=photos / "run", **options)
    assert run.record.dataset.classes == ("0", "1", "2")
    again = zoo.rescore(run)
    assert again.dataset == run.record.dataset
    assert again.reproduced
    caplog.set_level(logging.INFO, "zoo")
    zoo.layers(tiny_resnet, table, weights="random", split="train", pool=True, out=photos / "layers", **options)
    assert run.record.dataset.reading[0] in caplog.messages
    assert any("skipped 1 images" in message for message in caplog.messages)


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """Two classes of 12-bit scans in 16-bit TIFFs, of one size, white is zero; those of test are dark."""
    random = np.random.default_rng(0)
    for split, most in (("train", 4095), ("test", 600)):
        for level, kind in ((0, "apple"), (1, "pear")):
            (tmp_path / split / kind).mkdir(parents=True)
            for number in range(4):
                pixels = random.integers(level * most // 2, (level + 1) * most // 2 + 1, (20, 24)).astype(np.uint16)
                path = tmp_path / split / kind / f"{number}.tif"
                tifffile.imwrite(path, pixels, photometric="miniswhite")
    return tmp_path


def test_images_of_12_bits_are_read_alike_by_run_prediction_and_repeated_scoring(
    scans: Path, tiny_resnet: Backbone, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "zoo")
    run = zoo.evaluate(
        tiny_resnet, f"imagefolder:{scans}", weights="random", epochs=1, layer_curve=False, out=scans / "run"
    )
    record = run.record.dataset
    assert record.value_range == (0, 4095)
    line = "16 image(s) of more than 8 bits: values 0 to 4,095 are read as 0 to 255"
    assert any(each.startswith(line) for each in record.reading)
    assert any(each.startswith(line) for each in caplog.messages)
    assert json.loads((run.directory / "config.json").read_text())["zoo"]["value_range"] == [0, 4095]
    assert zoo.rescore(run).reproduced
    model = run.load()
    path = scans / "test" / "pear" / "0.tif"
    as_8_bits = 255 - (tifffile.imread(path) >> 4).astype(np.uint8)  # although its own largest value is 600
    with PIL.Image.open(path) as image:
        assert model.top(image) == model.top(as_8_bits)
    ((found,),) = predict_files(model, [path], 3)
    assert list(found.classes) == model.top(as_8_bits)[0]


def test_a_checkpoint_reads_other_images_in_its_own_range(scans: Path, tiny_resnet: Backbone) -> None:
    run = zoo.evaluate(
        tiny_resnet, f"imagefolder:{scans}", weights="random", epochs=0, layer_curve=False, out=scans / "run"
    )
    for split in ("train", "test"):
        shutil.copytree(scans / "test", scans / "dark" / split)
    again = zoo.rescore(run, f"imagefolder:{scans / 'dark'}")
    assert again.dataset.value_range == (0, 4095)
    assert again.dataset.evaluation.fingerprint == run.record.dataset.evaluation.fingerprint


def test_a_split_that_is_nearly_constant_is_told(scans: Path) -> None:
    """Values of 12 bits in files that state 16, which nothing can tell from dark images."""
    for path in scans.rglob("*.tif"):
        tifffile.imwrite(path, tifffile.imread(path), extratags=[(341, "H", 1, 65535, True)])
    dataset, transform = zoo.load_registry().dataset("imagefolder:PATH")[0], BatchTransform(zoo.Preprocessing((16, 16)))
    data = load_data(dataset, str(scans), None, Subset(), transform)
    assert data.record.value_range == (0, 65535)
    told = [line for line in data.warnings if "nearly constant" in line]
    assert [line.split("'")[1] for line in told] == ["train", "test"]


def test_pages_are_counted_in_the_record(photos: Path, tiny_resnet: Backbone) -> None:
    frames = [PIL.Image.new("L", (20, 24), level) for level in (9, 200)]
    (photos / "Train" / "pear" / "5.png").unlink()
    frames[0].save(photos / "Train" / "pear" / "stack.tif", save_all=True, append_images=frames[1:])
    run = zoo.evaluate(
        tiny_resnet, f"imagefolder:{photos}", weights="random", epochs=0, layer_curve=False, out=photos / "run"
    )
    assert "1 file(s) have several pages or frames; only the first is read" in run.record.dataset.reading
