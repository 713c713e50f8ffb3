"""Records of runs that earlier versions wrote are read, and say the same."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from zoo import DataError
from zoo_harness.records.run import LARGEST_RECORD, read_history, read_run

EARLIER = Path(__file__).parents[1] / "golden" / "earlier"


def test_a_record_of_the_version_before_is_read_whole() -> None:
    """Every key of the file is in the record, with the same value."""
    record = json.loads(read_run(EARLIER).to_json())
    assert _missing(json.loads((EARLIER / "run.json").read_text()), record) == []


def _missing(old: object, new: object, where: str = "") -> list[str]:
    if isinstance(old, dict):
        assert isinstance(new, dict), where
        return [fault for key, value in old.items() for fault in _missing(value, new.get(key), f"{where}.{key}")]
    if isinstance(old, list):
        assert isinstance(new, list), where
        pairs = zip(old, new, strict=True)
        return [fault for index, pair in enumerate(pairs) for fault in _missing(*pair, f"{where}[{index}]")]
    return [] if old == new else [f"{where}: {old!r} -> {new!r}"]


def changed(content: Any, path: str, value: object) -> Any:
    *parts, last = path.split(".")
    part = content
    for name in parts:
        part = part[int(name) if isinstance(part, list) else name]
    part[int(last) if isinstance(part, list) else last] = value
    return content


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("results.epochs_done", -5),
        ("results.epochs_done", 10**400),
        ("results.epochs_done", 300),
        ("settings.training.epochs", 10**400),
        ("settings.training.batch_size", 10**400),
        ("settings.seed", -1),
        ("dataset.train.images", 10**30),
        ("dataset.train.per_class.0", -1),
        ("dataset.train.pixels.0", 0),
        ("dataset.limit", 0),
        ("dataset.val_fraction", 1.5),
        ("parameters.trained", -1),
        ("results.evaluation_loss", float("inf")),
        ("results.total_seconds", float("nan")),
        ("results.accuracy.n", 10**30),
        ("host.memory_gib", -1.0),
    ],
)
def test_values_out_of_their_range_are_refused(field: str, value: object, tmp_path: Path) -> None:
    content = changed(json.loads((EARLIER / "run.json").read_text()), field, value)
    (tmp_path / "run.json").write_text(json.dumps(content))
    with pytest.raises(DataError) as refused:
        read_run(tmp_path)
    assert refused.value.code == "record-invalid"


EPOCH = {"epoch": 1, "train_loss": 1.0, "train_accuracy": 0.5, "evaluation_loss": 1.0, "evaluation_accuracy": 0.5}
EPOCH |= {"train_seconds": 1.0, "evaluation_seconds": 1.0}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epoch", 10**400),
        ("epoch", 0),
        ("train_loss", float("inf")),
        ("evaluation_loss", -1.0),
        ("train_accuracy", 1.5),
        ("train_seconds", float("nan")),
    ],
)
def test_epochs_out_of_their_range_are_refused(field: str, value: object, tmp_path: Path) -> None:
    (tmp_path / "history.jsonl").write_text(json.dumps({**EPOCH, field: value}) + "\n")
    with pytest.raises(DataError) as refused:
        read_history(tmp_path)
    assert refused.value.code == "history-invalid"


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", ["run.json", "history.jsonl"])
def test_pipes_and_endless_files_are_no_records(name: str, tmp_path: Path) -> None:
    read = read_run if name == "run.json" else read_history
    os.mkfifo(tmp_path / name)
    for code in ("not-a-file", "too-large"):
        with pytest.raises(DataError) as refused:
            read(tmp_path)
        assert refused.value.code == code
        (tmp_path / name).unlink()
        with (tmp_path / name).open("wb") as file:
            file.truncate(LARGEST_RECORD + 1)


def test_a_record_behind_a_link_is_read(tmp_path: Path) -> None:
    """The Hub's cache consists of links."""
    shutil.copy(EARLIER / "run.json", tmp_path / "elsewhere")
    (tmp_path / "zoo.json").symlink_to("elsewhere")
    assert read_run(tmp_path) == read_run(EARLIER)
