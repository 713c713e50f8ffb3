"""What the options of reading do in a run, in its record, when it is scored again and in the curves of layers."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

import zoo
from zoo import Backbone
from zoo_harness.records.run import read_run


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
