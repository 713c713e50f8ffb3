"""Labels in a table: real CSV, TSV and parquet files beside real images."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import PIL.Image
import pyarrow
import pyarrow.parquet
import pytest

from zoo import DataError, DatasetRequest, UsageError, ZooError
from zoo.dataset import LoadedDataset, ReadOptions
from zoo_plugins.image_folder import load as load_images
from zoo_plugins.table import load

KINDS = ["cat", "dog", "cat", "dog", "cat", "dog"]


def make(folder: Path, header: str, *rows: str, name: str = "labels.csv", encoding: str = "utf-8") -> Path:
    """Write a table and six images, 0.png to 5.png, each as bright as its number."""
    folder.mkdir(exist_ok=True)
    for number in range(6):
        PIL.Image.new("RGB", (6, 5), (number, number, number)).save(folder / f"{number}.png")
    path = folder / name
    path.write_bytes("\n".join([header, *rows, ""]).encode(encoding))
    return path


def usual(folder: Path, **options: Any) -> Path:
    return make(folder, "image,label", *(f"{number}.png,{kind}" for number, kind in enumerate(KINDS)), **options)


def read(path: Path, **options: Any) -> LoadedDataset:
    return load(DatasetRequest(str(path), options=ReadOptions(**options)))


def refused(path: Path, code: str, **options: Any) -> ZooError:
    with pytest.raises(ZooError) as caught:
        read(path, **options)
    assert caught.value.code == code
    return caught.value


def content(loaded: LoadedDataset, split: str = "train") -> list[tuple[int, str]]:
    """The number of each image with the class that its label names."""
    part = loaded.splits[split]
    return [
        (int(np.asarray(part.images[index]).flat[0]), loaded.classes[label]) for index, label in enumerate(part.labels)
    ]


# Files


@pytest.mark.parametrize(
    ("name", "separator", "encoding"),
    [
        ("labels.csv", ",", "utf-8"),
        ("labels.csv", ";", "utf-8"),
        ("LABELS.CSV", ",", "utf-8-sig"),
        ("labels.tsv", "\t", "utf-8"),
        ("labels.csv", "\t", "utf-16"),
        ("labels.txt", ",", "utf-8"),
    ],
)
def test_text_tables(tmp_path: Path, name: str, separator: str, encoding: str) -> None:
    rows = [f"{number}.png{separator}{kind}" for number, kind in enumerate(KINDS)]
    path = make(tmp_path, f"image{separator}label", *rows, name=name, encoding=encoding)
    loaded = read(path)
    assert loaded.classes == ("cat", "dog")
    assert content(loaded) == list(enumerate(KINDS))
    assert loaded.source == f"table {path}"
    assert loaded.reading[0] == "columns 'image' (images), 'label' (labels)"
    usual_separator = "\t" if name.endswith(".tsv") else ","
    assert (len(loaded.reading) > 1) == (separator != usual_separator)


def test_parquet_with_paths_and_stored_index(tmp_path: Path) -> None:
    usual(tmp_path)
    pandas = pytest.importorskip("pandas")
    frame = pandas.read_csv(tmp_path / "labels.csv")
    frame[frame.label != "nothing"].sample(frac=1, random_state=0).to_parquet(tmp_path / "labels.parquet")
    loaded = read(tmp_path / "labels.parquet")
    assert sorted(content(loaded)) == list(enumerate(KINDS))
    assert "__index_level_0__" in loaded.reading[0]


@pytest.mark.parametrize("one_size", [True, False])
def test_parquet_with_images_in_it(tmp_path: Path, one_size: bool) -> None:
    pictures = [PIL.Image.new("L", (4, 4 if one_size else 4 + number), number) for number in range(6)]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["dog", "cat"])})
    rows = {"image": pictures, "label": [1 - number % 2 for number in range(6)]}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "t.parquet")
    loaded = read(tmp_path / "t.parquet")
    assert loaded.classes == ("dog", "cat"), "the names in the file's own metadata, in their order"
    assert content(loaded) == list(enumerate(KINDS))
    assert isinstance(loaded.splits["train"].images, np.ndarray) == one_size


def test_images_in_a_table_that_cannot_be_read(tmp_path: Path) -> None:
    file = io.BytesIO()
    PIL.Image.new("L", (4, 4), 7).save(file, "png")
    images = [b"broken" if number == 3 else file.getvalue() for number in range(6)]
    pyarrow.parquet.write_table(pyarrow.table({"img": images, "kind": KINDS}), tmp_path / "t.parquet")
    assert refused(tmp_path / "t.parquet", "image-undecodable").facts["count"] == 1
    loaded = read(tmp_path / "t.parquet", skip_unreadable=True)
    assert loaded.splits["train"].labels.tolist() == [0, 1, 0, 0, 1]
    assert loaded.skipped == {"unreadable images": 1}


def test_metadata_beside_images(tmp_path: Path) -> None:
    make(
        tmp_path, "file_name,label", *(f"{number}.png,{kind}" for number, kind in enumerate(KINDS)), name="metadata.csv"
    )
    assert content(read(tmp_path)) == content(read(tmp_path / "metadata.csv")) == list(enumerate(KINDS))
    (tmp_path / "metadata.csv").rename(tmp_path / "other.csv")
    assert refused(tmp_path, "table-missing").facts["tables"] == ["other.csv"]


def test_json_lines(tmp_path: Path) -> None:
    rows = [json.dumps({"file_name": f"{number}.png", "label": kind}) for number, kind in enumerate(KINDS)]
    path = make(tmp_path, *rows[:3], "", *rows[3:], name="metadata.jsonl")
    assert content(read(tmp_path)) == content(read(path)) == list(enumerate(KINDS))
    make(tmp_path, *rows[:5], '{"file_name": "5.png"}', name="metadata.jsonl")
    assert refused(path, "label-missing").facts["rows"] == ["line 6"]


def test_metadata_in_the_folders_of_splits(tmp_path: Path) -> None:
    for split, name, last in (
        ("Train", "metadata.csv", "train"),
        ("val", "metadata.jsonl", "val"),
        ("extra", "a.csv", ""),
    ):
        rows = [{"file_name": f"{number}.png", "label": kind, last: "x"} for number, kind in enumerate(KINDS)]
        lines = [",".join(row.values()) for row in rows] if name.endswith("csv") else map(json.dumps, rows)
        make(tmp_path / split, *([",".join(rows[0])] if name.endswith("csv") else []), *lines, name=name)
    loaded = read(tmp_path)
    assert content(loaded) == content(loaded, "test") == list(enumerate(KINDS))
    assert "'split folder' (splits)" in loaded.reading[0]
    assert "'train', 'val'" in loaded.reading[1]
    with pytest.raises(DataError, match="try table:") as images_refused:
        load_images(DatasetRequest(str(tmp_path)))
    assert images_refused.value.code == "classes-look-like-splits"
    (tmp_path / "val" / "3.png").unlink()
    assert "val/metadata.jsonl, line 4" in str(refused(tmp_path, "files-missing"))
    usual(tmp_path / "Train", name="metadata.tsv")
    assert refused(tmp_path, "split-ambiguous").facts["names"] == ["metadata.csv", "metadata.tsv"]


@pytest.mark.parametrize(
    ("name", "written", "code"),
    [
        ("labels.xlsx", b"PK", "table-format"),
        ("labels", b"image,label\n", "table-format"),
        ("labels.csv", b"", "table-empty"),
        ("labels.csv", b"image,label\n", "table-empty"),
        ("labels.csv", b"image,label\n0.png,caf\xe9\n", "table-encoding"),
        ("labels.csv", b"image,label,label\n0.png,a,b\n", "table-header"),
        ("labels.csv", b"0.png,cat\n1.png,dog\n", "table-header"),
        ("labels.csv", b"image,label\n0.png,cat\n1.png\n", "table-uneven"),
        ("labels.csv", b"image,label\n0.png,cat\n1.png,dog, brown\n", "table-uneven"),
        ("labels.csv", b'image,label\n0.png,"cat\n', "table-damaged"),
        ("labels.jsonl", b'{"image": "0.png", "label": "cat"}\n{"image"', "table-damaged"),
        ("labels.jsonl", b"[1, 2]\n", "table-damaged"),
        ("labels.jsonl", b"\n", "table-empty"),
        ("labels.parquet", b"PAR1 no", "table-damaged"),
        ("labels.parquet", b"version https://git-lfs.github.com/spec/v1\n", "table-damaged"),
    ],
)
def test_files_that_are_no_tables(tmp_path: Path, name: str, written: bytes, code: str) -> None:
    (tmp_path / name).write_bytes(written)
    assert str(tmp_path / name) in str(refused(tmp_path / name, code))


def test_a_path_that_is_no_file(tmp_path: Path) -> None:
    refused(tmp_path / "nowhere.csv", "missing-file")
    with pytest.raises(UsageError) as caught:
        load(DatasetRequest("x.csv", tmp_path))
    assert caught.value.code == "option-unused"


# Columns


@pytest.mark.parametrize("image", ["image", "Image_Path", "filename", "File Name", "img", "imagePath", "somewhere"])
@pytest.mark.parametrize("label", ["label", "Class", "category", "target", "kind"])
def test_columns_of_usual_names_or_the_only_ones_that_fit(tmp_path: Path, image: str, label: str) -> None:
    rows = [f"{number},{number}.png,{kind}" for number, kind in enumerate(KINDS)]
    loaded = read(make(tmp_path, f"Unnamed: 0,{image},{label}", *rows))
    assert content(loaded) == list(enumerate(KINDS))
    assert loaded.reading == (f"columns {image!r} (images), {label!r} (labels); not read: 'Unnamed: 0'",)


def test_named_columns(tmp_path: Path) -> None:
    rows = [f"{number}.png,{5 - number}.png,{kind},{number % 3}" for number, kind in enumerate(KINDS)]
    path = make(tmp_path, "image,mask,label,breed", *rows)
    assert read(path, label_column="breed").classes == ("0", "1", "2")
    assert content(read(path, image_column="mask"))[0] == (5, "cat")
    error = refused(path, "unknown-name", label_column="bred")
    assert (error.facts["near"], error.exit_code) == (["breed"], 2)


@pytest.mark.parametrize(
    ("header", "row", "code", "fact"),
    [
        ("left,right,label", "{0}.png,{0}.png,{1}", "column-ambiguous", ("columns", ["left", "right"])),
        ("image,class,species", "{0}.png,{1},{1}", "column-ambiguous", ("columns", ["class", "species"])),
        ("image,lable,colour", "{0}.png,{1},red", "column-missing", ("near", ["lable"])),
        ("imgae,label,colour", "{0},{1},red", "column-missing", ("near", ["imgae"])),
    ],
)
def test_columns_that_may_be_meant_are_not_guessed(
    tmp_path: Path, header: str, row: str, code: str, fact: tuple[str, Any]
) -> None:
    path = make(tmp_path, header, *(row.format(number, kind) for number, kind in enumerate(KINDS)))
    assert refused(path, code).facts[fact[0]] == fact[1]


# Splits


@pytest.mark.parametrize("words", [("train", "test"), ("Training", "VALID"), ("train_set", "dev")])
@pytest.mark.parametrize("column", ["split", "Subset", "set"])
def test_a_column_of_splits(tmp_path: Path, words: tuple[str, str], column: str) -> None:
    rows = [f"{number}.png,{kind},{words[number > 3]}" for number, kind in enumerate(KINDS)]
    loaded = read(make(tmp_path, f"image,label,{column}", *rows))
    assert content(loaded, "test") == [(4, "cat"), (5, "dog")]
    assert len(loaded.splits["train"]) == 4
    assert f"{column!r} (splits)" in loaded.reading[0]


def test_rows_of_other_splits_are_counted(tmp_path: Path) -> None:
    words = ["train", "train", "test", "val", "extra", ""]
    rows = [f"{number}.png,{kind},{word}" for number, (kind, word) in enumerate(zip(KINDS, words, strict=True))]
    loaded = read(make(tmp_path, "image,label,split", *rows))
    assert {name: len(part) for name, part in loaded.splits.items()} == {"train": 2, "test": 1}
    assert loaded.warnings == ("3 rows of other splits are not read: 'val' (1), 'extra' (1), '(empty)' (1)",)


def test_a_column_without_a_training_split_is_refused(tmp_path: Path) -> None:
    rows = [f"{number}.png,{kind},{number % 2}" for number, kind in enumerate(KINDS)]
    path = make(tmp_path, "image,label,split", *rows)
    refused(path, "split-missing")
    refused(make(tmp_path, "image,label,part", *rows), "split-missing", split_column="part")


# Labels


@pytest.mark.parametrize(
    ("labels", "classes", "warning"),
    [
        (["0", "1", "2", "10", "1", "0"], ("0", "1", "2", "10"), "without 3, 4, 5, 6, 7, 8, 9"),
        (["0.0", "1.0", "0.0", "1.0", "0.0", "1.0"], ("0", "1"), "holds decimals (such as 0.0)"),
        (["b", "a", "1", "b", "a", "1"], ("1", "a", "b"), None),
        (["2", "1", "2", "1", "2", "1"], ("1", "2"), None),
        (["True", "False"] * 3, ("False", "True"), None),
        (["caf\u00e9", "cafe\u0301", "tea", "tea", "tea", "tea"], ("caf\u00e9", "tea"), None),
    ],
)
def test_labels(tmp_path: Path, labels: list[str], classes: tuple[str, ...], warning: str | None) -> None:
    loaded = read(make(tmp_path, "image,label", *(f"{number}.png,{label}" for number, label in enumerate(labels))))
    assert loaded.classes == classes
    assert [warning in line for line in loaded.warnings] == [True] * (warning is not None)


@pytest.mark.parametrize("kind", ["int64", "float64", "string", "bool", "dictionary"])
def test_labels_of_parquet_columns(tmp_path: Path, kind: str) -> None:
    usual(tmp_path)
    values: Any = [number % 2 for number in range(6)]
    array = pyarrow.array([str(value) for value in values] if kind in ("string", "dictionary") else values)
    array = array.dictionary_encode() if kind == "dictionary" else array.cast(kind)
    table = pyarrow.table({"image": [f"{number}.png" for number in range(6)], "label": array})
    pyarrow.parquet.write_table(table, tmp_path / "t.parquet")
    loaded = read(tmp_path / "t.parquet")
    assert loaded.classes == (("False", "True") if kind == "bool" else ("0", "1"))
    assert loaded.splits["train"].labels.tolist() == values
    assert len(loaded.warnings) == (kind == "float64")


@pytest.mark.parametrize(
    ("labels", "code", "facts"),
    [
        (["cat", "", "dog", "nan", "cat", "dog"], "label-missing", {"count": 2, "rows": ["line 3", "line 5"]}),
        (["0.5", "1", "2", "1", "2", "1"], "label-fraction", {"count": 1}),
        (["a", "b", "c", "d", "e", "f"], "label-unique", {}),
        (["a", "a", "a", "a", "a", "a"], "class-count", {"name": "a"}),
    ],
)
def test_labels_that_are_no_classes(tmp_path: Path, labels: list[str], code: str, facts: dict[str, Any]) -> None:
    path = make(tmp_path, "image,label", *(f"{number}.png,{label}" for number, label in enumerate(labels)))
    error = refused(path, code)
    assert {name: error.facts[name] for name in facts} == facts


def test_parquet_labels_with_gaps(tmp_path: Path) -> None:
    usual(tmp_path)
    table = pyarrow.table({"image": [f"{number}.png" for number in range(6)], "label": [0.0, 1.0, None, 1.0, 0.0, 1.0]})
    pyarrow.parquet.write_table(table, tmp_path / "t.parquet")
    assert refused(tmp_path / "t.parquet", "label-missing").facts["rows"] == ["row 3"]


def test_an_image_with_two_labels_is_refused_and_one_named_twice_is_told(tmp_path: Path) -> None:
    rows = [f"{number}.png,{kind}" for number, kind in enumerate(KINDS)]
    assert (
        "1 images occur in more than one row" in read(make(tmp_path, "image,label", *rows, "./0.png,cat")).warnings[0]
    )
    error = refused(make(tmp_path, "image,label", *rows, "./0.png,dog"), "label-conflict")
    assert error.facts["names"] == ["0.png"]


# Files that the table names


def test_paths_are_relative_to_the_table_or_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usual(tmp_path)
    (tmp_path / "deeper").mkdir()
    names = ["../0.png", str(tmp_path / "1.png"), "..\\2.png", "../3.png", "../4.png", "../5.png"]
    rows = [f"{name},{kind}" for name, kind in zip(names, KINDS, strict=True)]
    (tmp_path / "deeper" / "t.csv").write_text("\n".join(["image,label", *rows]))
    monkeypatch.chdir(tmp_path / "deeper")
    loaded = read(Path("t.csv"))
    assert content(loaded) == list(enumerate(KINDS))
    assert loaded.reading[1:] == ("1 names with backslashes are read as paths",)


def test_missing_files_are_listed_and_may_be_skipped(tmp_path: Path) -> None:
    path = make(tmp_path, "image,label", *(f"{number}.png,{KINDS[number % 6]}" for number in range(18)))
    error = refused(path, "files-missing")
    assert (error.facts["count"], error.facts["names"]) == (12, [f"{number}.png" for number in range(6, 16)])
    loaded = read(path, skip_unreadable=True)
    assert content(loaded) == list(enumerate(KINDS))
    assert loaded.skipped == {"missing files": 12}


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("0", "the files end in .png"),
        ("a.png", "there is inner/a.png"),
        ("https://x.invalid/0.png", "zoo does not download images"),
    ],
)
def test_where_missing_files_may_be(tmp_path: Path, name: str, told: str) -> None:
    (tmp_path / "inner").mkdir()
    PIL.Image.new("L", (4, 4)).save(tmp_path / "inner" / "a.png")
    path = make(tmp_path, "image,label", f"{name},cat", "1.png,dog")
    assert told in str(refused(path, "files-missing"))
