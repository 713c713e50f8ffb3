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
from zoo.errors import DataError, UnknownNameError, UsageError, ZooError
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


def test_default_order_is_the_largest_that_two_samples_have(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], error_of: Callable[..., ZooError]
) -> None:
    np.savez(tmp_path / "two.npz", features=FEATURES[:2], labels=LABELS[:2])
    assert run(["si", str(tmp_path / "two.npz"), "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["order"] == 1
    warning, note = captured.err.splitlines()
    assert warning.startswith("warning: too few samples per class in ")
    assert "2 of 2 classes (0, 1) have 1 sample; expected 2 or more" in warning
    assert note == "note: the scores have order 1 instead of 2, because each sample has only one neighbour"
    assert error_of("si", str(tmp_path / "two.npz"), "--order", "2").facts["most"] == 1


@pytest.mark.parametrize("options", [["--per-class", "1"], ["--references", "one.npz"]])
def test_default_order_looks_at_the_samples_that_are_compared(
    options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    np.savez("four.npz", features=FEATURES[:4], labels=[0, 0, 1, 1])
    np.savez("one.npz", features=FEATURES[:1], labels=[0])
    assert run(["si", "four.npz", *options, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["order"] == 1


def test_columns_of_a_table_can_be_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], error_of: Callable[..., ZooError]
) -> None:
    columns: dict[str, Any] = {f"x{place}": column for place, column in enumerate(FEATURES.T)}
    columns |= {"id": np.arange(len(LABELS)), "name": ["an image"] * len(LABELS), "label": LABELS}
    path = tmp_path / "table.parquet"
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    assert run(["si", str(path), "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["si"] == zoo.separation(FEATURES, LABELS).si.to_dict()
    assert captured.err == (
        f"features of {path}: x0 … x63 (64)\n"
        f"columns of {path} excluded from the features: id (row number or id); name (text)\n"
    )
    assert run(["si", str(path), "--features", "x10,x20,x30", "--json"]) == 0
    given = json.loads(capsys.readouterr().out)
    assert given["si"] == zoo.separation(FEATURES[:, [10, 20, 30]], LABELS).si.to_dict()
    error = error_of("si", str(path), "--features", "x10,y20")
    assert isinstance(error, UnknownNameError)
    assert (error.kind, error.given, error.facts["path"]) == ("feature column", "y20", str(path))
    error = error_of("si", str(path), "--features", "x10,name")
    assert (error.code, error.facts["columns"]) == ("missing-features", ["name"])


def test_row_numbers_cause_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    columns = {"x": FEATURES[:, 20], "counter": np.arange(400), "label": LABELS}
    arguments = ["si", *parquet(tmp_path, **columns)]
    assert run(arguments) == 0
    assert "warning: columns of" in capsys.readouterr().err
    assert run([*arguments, "--exclude", "counter"]) == 0
    assert "warning" not in capsys.readouterr().err


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


def of_several_arrays(folder: Path) -> list[str]:
    (folder / "several.npy").write_bytes(Path(npz(folder)[0]).read_bytes())
    return [str(folder / "several.npy"), "--labels", npy(folder)[-1]]


def parquet(folder: Path, **columns: Any) -> list[str]:
    pyarrow.parquet.write_table(pyarrow.table(columns), folder / "table.parquet")
    return [str(folder / "table.parquet")]


def too_large(folder: Path) -> list[str]:
    np.savez(folder / "large.npz", features=FEATURES, labels=LABELS.astype(np.uint64) + 2**63)
    return [str(folder / "large.npz")]


def unlabelled_references(folder: Path) -> list[str]:
    return [*npy(folder), "--references", npy(folder)[0]]


NEAR = {"near": ["features"]}


@pytest.mark.parametrize(
    ("write", "error", "code", "facts"),
    [
        (lambda folder: [f"{folder}/none.npz"], UsageError, "not-a-file", {}),
        (lambda folder: broken(folder, "f.csv", b"1,2\n3,4\n"), UsageError, "missing-labels", {}),
        (lambda folder: broken(folder, "f.json", b"{}"), DataError, "file-unreadable", {}),
        (lambda folder: [str(folder)], UsageError, "not-a-file", {}),
        (lambda folder: [*npy(folder)[:1], "--labels", "none.npy"], UsageError, "not-a-file", {}),
        (lambda folder: broken(folder, "f.npz", b"PK"), DataError, "file-unreadable", {}),
        (lambda folder: [*broken(folder, "g.npy", b""), *npy(folder)[1:]], DataError, "file-unreadable", {}),
        (lambda folder: broken(folder, "f.parquet", b"PAR1"), DataError, "file-unreadable", {}),
        (lambda folder: broken(folder, "f.safetensors", b"12345678"), DataError, "file-unreadable", {}),
        (of_objects, DataError, "file-unreadable", {}),
        (of_several_arrays, UnknownNameError, "unknown-name", {}),
        (lambda folder: parquet(folder, features=[[1.0], [1.0, 2.0]], label=[0, 1]), DataError, "file-unreadable", {}),
        (lambda folder: parquet(folder, features=["a", "b"], label=[0, 1]), UsageError, "missing-features", {}),
        (lambda folder: parquet(folder, label=[0, 1]), UsageError, "missing-features", {"columns": []}),
        (lambda folder: parquet(folder, x=[0.0, 1.0]), UsageError, "missing-labels", {"option": "labels"}),
        (lambda folder: parquet(folder, label=[0], labels=[0], x=[1.0]), UsageError, "missing-labels", {}),
        (
            lambda folder: [*npz(folder), "--features", "feature"],
            UnknownNameError,
            "unknown-name",
            {"near": ["features"]},
        ),
        (lambda folder: [*npz(folder), "--labels", "y"], UnknownNameError, "unknown-name", {}),
        (lambda folder: npy(folder)[:1], UsageError, "missing-labels", {"option": "labels"}),
        (unlabelled_references, UsageError, "missing-labels", {"option": "reference_labels"}),
        (lambda folder: [*npy(folder), "--features", "x"], UsageError, "option-unused", {"option": "features"}),
        (lambda folder: [*npz(folder), "--reference-labels", "y"], UsageError, "option-unused", {}),
        (lambda folder: [*npz(folder), "--order", "400"], UsageError, "option-range", {"option": "order", "most": 399}),
        (lambda folder: [*npz(folder), "--metric", "cosin"], UsageError, "option-choice", {"near": ["cosine"]}),
        (lambda folder: [*npz(folder), "--memory", "0"], UsageError, "option-range", {"option": "memory"}),
        (lambda folder: [*npz(folder), "--per-class", "0"], UsageError, "option-range", {"option": "per_class"}),
        (too_large, DataError, "label-range", {}),
    ],
)
def test_files_and_options_are_refused(
    write: Callable[[Path], list[str]],
    error: type[ZooError],
    code: str,
    facts: dict[str, object],
    tmp_path: Path,
    error_of: Callable[..., ZooError],
) -> None:
    found = error_of("si", *write(tmp_path))
    assert type(found) is error
    assert found.code == code
    assert facts.items() <= found.facts.items()


def test_objects_in_a_file_are_never_unpickled(tmp_path: Path, error_of: Callable[..., ZooError]) -> None:
    message = "objects.npz cannot be read: Object arrays cannot be loaded when allow_pickle=False"
    assert message in str(error_of("si", *of_objects(tmp_path)))


def test_more_memory_than_there_is_may_be_allowed(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", features=np.eye(6), labels=np.arange(6) % 2)
    assert run(["si", str(tmp_path / "x.npz"), "--memory", "99999999999"]) == 0
