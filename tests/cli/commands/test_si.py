"""``zoo si`` on files of every kind, and on those that are wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch
from safetensors.torch import save_file
from sklearn.datasets import load_digits

import zoo
from zoo_harness.cli.main import run

FEATURES, LABELS = load_digits(return_X_y=True)
FEATURES, LABELS = FEATURES[:400].astype(np.float32), LABELS[:400]


def npz(folder: Path) -> list[str]:
    np.savez(folder / "f.npz", features=FEATURES, labels=LABELS)
    return [str(folder / "f.npz")]


def npy(folder: Path) -> list[str]:
    np.save(folder / "f.npy", FEATURES)
    np.save(folder / "l.npy", LABELS)
    return [str(folder / "f.npy"), "--labels", str(folder / "l.npy")]


def safetensors(folder: Path) -> list[str]:
    tensors = {"pooled": torch.from_numpy(FEATURES), "digit": torch.from_numpy(LABELS)}
    save_file(tensors, folder / "f.safetensors")
    return [str(folder / "f.safetensors"), "--features", "pooled", "--labels", "digit"]


def parquet_of_lists(folder: Path) -> list[str]:
    table = pyarrow.table({"features": list(FEATURES), "label": LABELS})
    pyarrow.parquet.write_table(table, folder / "lists.parquet")
    return [str(folder / "lists.parquet")]


def parquet_of_columns(folder: Path) -> list[str]:
    columns: dict[str, Any] = {f"x{place}": column for place, column in enumerate(FEATURES.T)}
    columns |= {"labels": LABELS}
    pyarrow.parquet.write_table(pyarrow.table(columns), folder / "columns.parquet")
    return [str(folder / "columns.parquet")]


KINDS = [npz, npy, safetensors, parquet_of_lists, parquet_of_columns]


@pytest.mark.parametrize("write", KINDS)
def test_every_kind_of_file_gives_the_same_scores(
    write: Callable[[Path], list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = write(tmp_path)
    assert run(["si", *arguments, "--order", "3", "--json"]) == 0
    given = json.loads(capsys.readouterr().out)
    expected = zoo.separation(FEATURES, LABELS, 3)
    assert given == {"file": arguments[0], "references_file": None, **expected.to_dict()}
    assert run(["si", *arguments]) == 0
    assert capsys.readouterr().out == f"{zoo.separation(FEATURES, LABELS)}\n"


def test_references_and_options_reach_the_score(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(tmp_path / "test.npz", features=FEATURES[300:], labels=LABELS[300:])
    np.savez(tmp_path / "train.npz", features=FEATURES[:300], labels=LABELS[:300])
    options = ["--references", str(tmp_path / "train.npz"), "--metric", "cosine", "--normalize", "--per-class", "5"]
    assert run(["si", str(tmp_path / "test.npz"), *options, "--seed", "3", "--memory", "64", "--json"]) == 0
    given = json.loads(capsys.readouterr().out)
    expected = zoo.separation(
        FEATURES[300:],
        LABELS[300:],
        references=FEATURES[:300],
        reference_labels=LABELS[:300],
        metric="cosine",
        normalize=True,
        per_class=5,
        seed=3,
    )
    assert given["si"] == expected.si.to_dict()
    assert (given["n"], given["references"], given["metric"]) == (50, 300, "cosine")


def test_default_order_is_the_largest_that_two_samples_have(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(tmp_path / "two.npz", features=FEATURES[:2], labels=LABELS[:2])
    assert run(["si", str(tmp_path / "two.npz"), "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["order"] == 1
    assert captured.err == "note: each sample has one neighbour, so scores are of order 1 instead of 2\n"
    assert run(["si", str(tmp_path / "two.npz"), "--order", "2"]) == 2
    assert "the largest order is 1" in capsys.readouterr().err


@pytest.mark.parametrize("options", [["--per-class", "1"], ["--references", "one.npz"]])
def test_default_order_looks_at_the_samples_that_are_compared(
    options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    np.savez("four.npz", features=FEATURES[:4], labels=[0, 0, 1, 1])
    np.savez("one.npz", features=FEATURES[:1], labels=[0])
    assert run(["si", "four.npz", *options, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["order"] == 1


def test_columns_of_a_table_can_be_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    columns: dict[str, Any] = {f"x{place}": column for place, column in enumerate(FEATURES.T)}
    columns |= {"id": np.arange(len(LABELS)), "name": ["an image"] * len(LABELS), "label": LABELS}
    path = tmp_path / "table.parquet"
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    assert run(["si", str(path)]) == 2
    assert "column 'name' holds no numbers; name the columns of features" in capsys.readouterr().err
    assert run(["si", str(path), "--features", "x10,x20,x30", "--json"]) == 0
    given = json.loads(capsys.readouterr().out)
    assert given["si"] == zoo.separation(FEATURES[:, [10, 20, 30]], LABELS).si.to_dict()
    assert run(["si", str(path), "--features", "x10,y20"]) == 2
    assert "unknown array of table.parquet 'y20'" in capsys.readouterr().err


def test_scores_of_each_class(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["si", *npz(tmp_path), "--classes"]) == 0
    lines = capsys.readouterr().out.splitlines()
    heading = next(place for place, line in enumerate(lines) if line.split()[:2] == ["class", "samples"])
    assert len(lines) == heading + 11
    expected = zoo.separation(FEATURES, LABELS)
    assert lines[heading + 4].split()[:3] == ["3", f"{expected.classes[3]}", f"{expected.si.per_class[3]:.4f}"]


def broken(folder: Path, name: str, content: bytes) -> list[str]:
    (folder / name).write_bytes(content)
    return [str(folder / name)]


def of_objects(folder: Path) -> list[str]:
    np.savez(folder / "objects.npz", features=np.array([{}, {}], dtype=object), labels=LABELS[:2])
    return [str(folder / "objects.npz")]


def uneven(folder: Path) -> list[str]:
    table = pyarrow.table({"features": [[1.0], [1.0, 2.0], [3.0]], "label": [0, 1, 1]})
    pyarrow.parquet.write_table(table, folder / "uneven.parquet")
    return [str(folder / "uneven.parquet")]


def too_large(folder: Path) -> list[str]:
    np.savez(folder / "large.npz", features=FEATURES, labels=LABELS.astype(np.uint64) + 2**63)
    return [str(folder / "large.npz")]


@pytest.mark.parametrize(
    ("write", "status", "message"),
    [
        (lambda folder: [f"{folder}/none.npz"], 2, "no such file"),
        (lambda folder: broken(folder, "f.csv", b"1,2"), 2, "expected one of .npz, .npy, .safetensors, .parquet"),
        (lambda folder: broken(folder, "f.npz", b"PK"), 1, "f.npz cannot be read"),
        (lambda folder: broken(folder, "f.parquet", b"PAR1"), 1, "f.parquet cannot be read"),
        (lambda folder: broken(folder, "f.safetensors", b"12345678"), 1, "f.safetensors cannot be read"),
        (of_objects, 1, "objects.npz cannot be read: Object arrays cannot be loaded when allow_pickle=False"),
        (uneven, 1, "lengths from 1 to 2"),
        (lambda folder: [*npz(folder), "--features", "feature"], 2, "did you mean 'features'?"),
        (lambda folder: [*npz(folder), "--labels", "y"], 2, "unknown array of f.npz 'y'"),
        (lambda folder: npy(folder)[:1], 2, "give the file of the labels with --labels FILE.npy"),
        (lambda folder: [*npz(folder), "--order", "400"], 2, "400"),
        (lambda folder: [*npz(folder), "--metric", "cosin"], 2, "cosine"),
        (lambda folder: [*npz(folder), "--memory", "0"], 2, "--memory 0 must be at least 1"),
        (lambda folder: [*npz(folder), "--per-class", "0"], 2, "--per-class 0 must be at least 1"),
        (lambda folder: [*npz(folder), "--reference-labels", "y"], 2, "belongs to --references FILE"),
        (lambda folder: [str(folder)], 2, "is a folder"),
        (too_large, 1, "labels of 2^63 and more are too large"),
    ],
)
def test_what_cannot_be_scored_is_told(
    write: Callable[[Path], list[str]],
    status: int,
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["si", *write(tmp_path)]) == status
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err
    assert "Traceback" not in captured.err


def test_references_without_labels_of_their_own(tmp_path: Path, error_of: Callable[..., zoo.ZooError]) -> None:
    for name, rows in (("x", np.eye(4)), ("y", np.array([0, 0, 1, 1])), ("references", np.eye(4)[::-1])):
        np.save(tmp_path / f"{name}.npy", rows)
    asked = ["si", str(tmp_path / "x.npy"), "--labels", str(tmp_path / "y.npy"), "--references"]
    error = error_of(*asked, str(tmp_path / "references.npy"))
    assert (error.code, error.exit_code) == ("missing-labels", 2)


def test_more_memory_than_the_machine_has_may_be_allowed(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", features=np.eye(6), labels=np.arange(6) % 2)
    assert run(["si", str(tmp_path / "x.npz"), "--memory", "99999999999"]) == 0
