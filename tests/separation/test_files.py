"""Files of features whose endings or contents are not what they should be: the right score, or an error with a path."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet
import pytest
import torch
from hypothesis import given, settings, strategies as st
from safetensors.torch import save

import zoo
from zoo.errors import DataError, UsageError, ZooError

RANDOM = np.random.default_rng(0)
FEATURES, LABELS = RANDOM.normal(size=(30, 4)), np.arange(30) % 3
RIGHT = zoo.separation(FEATURES, LABELS).to_dict()
TABLE = pyarrow.table({**{f"x{index}": column for index, column in enumerate(FEATURES.T)}, "label": LABELS})
ENDINGS = (".npz", ".npy", ".safetensors", ".parquet", ".arrow", ".feather", ".csv", ".tsv", "", ".pt", ".NPZ")


def written(write: Callable[[io.BytesIO], object]) -> bytes:
    file = io.BytesIO()
    write(file)
    return file.getvalue()


@cache
def contents() -> dict[str, bytes]:
    """One file of each kind, all with the same samples."""
    tensors = {"features": torch.from_numpy(FEATURES), "labels": torch.from_numpy(LABELS).bfloat16()}
    return {
        "npz": written(lambda file: np.savez(file, features=FEATURES, labels=LABELS[:, None])),
        "npy": written(lambda file: np.save(file, FEATURES)),
        "safetensors": save(tensors),
        "parquet": written(lambda file: pyarrow.parquet.write_table(TABLE, file)),
        "feather": written(lambda file: pyarrow.feather.write_feather(TABLE, file)),
        "csv": written(lambda file: pyarrow.csv.write_csv(TABLE, file)),
    }


def score(path: Path, kind: str) -> dict[str, object]:
    labels = path.with_name("labels.of.npy")
    np.save(labels, LABELS.astype(np.float16))
    return zoo.score_features(path, **({"labels": str(labels)} if kind == "npy" else {})).to_dict()  # type: ignore[arg-type]


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("kind", contents())
def test_a_file_is_read_by_its_content_whatever_its_ending(kind: str, ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"data{ending}"
    path.write_bytes(contents()[kind])
    if kind == "csv" and ending not in (".csv", ".tsv"):
        with pytest.raises(DataError, match="it starts with b'") as caught:
            score(path, kind)
        assert (caught.value.code, caught.value.facts["path"]) == ("file-unreadable", str(path))
    else:
        assert score(path, kind) == RIGHT


def test_an_ending_that_is_wrong_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "data.npz"
    path.write_bytes(contents()["npy"])
    with caplog.at_level("INFO", "zoo"):
        score(path, "npy")
    assert caplog.messages == [f"{path} is read as .npy because of its content"]


def outcome(path: Path, kind: str) -> tuple[dict[str, object], ZooError | None]:
    try:
        return score(path, kind), None
    except ZooError as error:
        return {}, error


KINDS = st.sampled_from(sorted(contents()))


@given(kind=KINDS, ending=st.sampled_from(ENDINGS), data=st.data())
@settings(max_examples=120, deadline=None)
def test_a_damaged_file_is_refused_by_name_or_scored_right(
    kind: str, ending: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    content = contents()[kind]
    damage = data.draw(st.sampled_from(["truncated", "changed", "replaced", "empty", "extended"]))
    at = data.draw(st.integers(0, len(content) - 1))
    some = data.draw(st.binary(min_size=1, max_size=40))
    path = tmp_path_factory.getbasetemp() / f"damaged{ending}"
    path.write_bytes(
        {
            "truncated": content[:at],
            "changed": content[:at] + some + content[at + len(some) :],
            "replaced": some,
            "empty": b"",
            "extended": content + some,
        }[damage]
    )
    started = time.monotonic()
    result, error = outcome(path, kind)
    if error is not None:
        assert error.code != ZooError.code
        assert error.facts["path"] in (str(path), str(path.with_name("labels.of.npy")))
        assert error.facts["path"] in str(error)
    else:
        # Without a checksum a changed number is one, and a table of text without its end is one.
        assert damage == "changed" or kind == "csv" or result == RIGHT
    assert time.monotonic() - started < 30


def npz(**arrays: np.ndarray) -> bytes:
    return written(lambda file: np.savez(file, allow_pickle=True, **arrays))


class Trap:
    """Makes a folder where it is unpickled."""

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, ("unpickled",)


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (npz(x=FEATURES, labels=LABELS), "unknown-name"),
        (npz(features=FEATURES), "unknown-name"),
        (npz(features=np.array([Trap(), Trap()], dtype=object), labels=LABELS), "file-unreadable"),
        (npz(features=FEATURES, labels=LABELS.astype(object)), "file-unreadable"),
        (npz(features=FEATURES, labels=LABELS[:-1]), "array-shape"),
        (npz(features=FEATURES, labels=LABELS + 0.5), "label-fraction"),
        (npz(features=FEATURES[:, 0], labels=LABELS), "array-shape"),
        (npz(features=FEATURES[:1], labels=LABELS[:1]), "array-too-small"),
        (npz(features=FEATURES * np.nan, labels=LABELS), "not-finite"),
        (save({"x": torch.zeros(3)}), "unknown-name"),
        (b"version https://git-lfs.github.com/spec/v1\n", "file-unreadable"),
        (b"", "file-unreadable"),
    ],
)
def test_contents_are_refused(content: bytes, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "data.npz"
    path.write_bytes(content)
    with pytest.raises(ZooError) as caught:
        zoo.score_features(path)
    assert (caught.value.code, caught.value.facts["path"]) == (code, str(path))
    assert not Path("unpickled").exists()


@pytest.mark.parametrize(
    ("labels", "code"),
    [
        ("missing.npy", "not-a-file"),
        ("folder.npy", "not-a-file"),
        ("~no-such-user/labels.npy", "file-unreadable"),
        ("table.csv", "labels-not-npy"),
        ("short.npy", "array-shape"),
        ("fractions.npy", "label-fraction"),
        ("damaged.npy", "file-unreadable"),
    ],
)
def test_an_error_names_the_file_of_labels(
    labels: str, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder.npy").mkdir()
    np.save("features.npy", FEATURES)
    np.save("short.npy", LABELS[:4])
    np.save("fractions.npy", LABELS / 2)
    Path("table.csv").write_bytes(contents()["csv"])
    Path("damaged.npy").write_bytes(contents()["npy"][:90])
    with pytest.raises(ZooError) as caught:
        zoo.score_features("features.npy", labels=labels)
    assert (caught.value.code, caught.value.facts["path"]) == (code, labels)
    assert str(caught.value).startswith(labels)
    assert "features.npy" not in str(caught.value)


def test_an_error_names_the_file_of_features(tmp_path: Path) -> None:
    np.save(tmp_path / "labels.npy", LABELS)
    (tmp_path / "features.npy").write_bytes(contents()["npy"][:200])
    with pytest.raises(DataError, match=r"features\.npy cannot be read") as caught:
        zoo.score_features(tmp_path / "features.npy", labels=str(tmp_path / "labels.npy"))
    assert caught.value.facts["path"] == str(tmp_path / "features.npy")


@pytest.mark.parametrize("name", [os.fsdecode(b"\xff.npz"), "x" * 300, "a\0b", "", "~no-such-user/x.npz", "/dev/null"])
def test_odd_paths_are_refused(name: str) -> None:
    with pytest.raises(ZooError) as caught:
        zoo.score_features(name)
    assert caught.value.facts["path"] == str(Path(name))


@pytest.mark.parametrize("kind", ["npz", "npy", "parquet", "feather", "csv"])
def test_a_name_that_is_no_utf8_can_be_read(kind: str, tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"\xff" + (b".csv" if kind == "csv" else b".npz"))
    path.write_bytes(contents()[kind])
    assert score(path, kind) == RIGHT


@pytest.mark.parametrize(
    ("kind", "options", "code"),
    [
        ("npz", {"exclude": "x"}, "option-unused"),
        ("npz", {"features": "labels"}, "option-value"),
        ("csv", {"exclude": "x0", "features": "x1"}, "option-unused"),
        ("csv", {"exclude": "z*"}, "unknown-name"),
        ("csv", {"exclude": "x*"}, "missing-features"),
        ("csv", {"features": "label"}, "unknown-name"),
    ],
)
def test_options_are_refused(kind: str, options: dict[str, str], code: str, tmp_path: Path) -> None:
    path = tmp_path / f"data.{kind}"
    path.write_bytes(contents()[kind])
    with pytest.raises(UsageError) as caught:
        zoo.score_features(path, **options)  # type: ignore[arg-type]
    assert (caught.value.code, caught.value.facts["path"]) == (code, str(path))
