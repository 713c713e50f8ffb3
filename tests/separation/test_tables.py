"""Tables whose columns are not all features: what is left out, what is refused, and what is scored."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pyarrow
import pyarrow.parquet
import pytest

import zoo
from zoo.errors import DataError, UsageError
from zoo_harness.separation.bookkeeping import known_bookkeeping, short_list

RANDOM = np.random.default_rng(0)
ROWS = 120
NOISE, LABELS = RANDOM.normal(size=(ROWS, 12)), np.sort(RANDOM.integers(0, 3, ROWS))
NAMES = [f"f{index}" for index in range(12)]
RIGHT = zoo.separation(NOISE, LABELS).si.value  # an index of sorted rows would give nearly 1


def frame(**columns: Any) -> pandas.DataFrame:
    return pandas.DataFrame(NOISE, columns=NAMES).assign(label=LABELS, **columns)


def filtered() -> pandas.DataFrame:
    """Rows of a larger table, so that pandas stores their index."""
    return frame().set_axis(np.cumsum(RANDOM.integers(1, 50, ROWS)))


def write(table: pandas.DataFrame, path: Path) -> Path:
    if path.suffix == ".feather":
        table.to_feather(path)
    elif path.suffix == ".parquet":
        table.to_parquet(path)
    else:
        delimiter = {".csv": ",", ".tsv": "\t", ".txt": ";"}[path.suffix]
        table.to_csv(path, sep=delimiter, decimal="," if delimiter == ";" else ".")
    return path


def score(path: Path, **options: Any) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return zoo.score_features(path, **options).si.value


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.txt", "t.parquet", "t.feather"])
def test_a_table_of_any_kind_with_a_stored_index_has_the_score_without_it(name: str, tmp_path: Path) -> None:
    assert score(write(filtered(), tmp_path / name)) == RIGHT


@pytest.mark.parametrize(
    "index",
    [
        pandas.RangeIndex(7, 7 + ROWS, name="place"),
        pandas.Index(np.arange(ROWS) * 3, name="place"),
        pandas.MultiIndex.from_arrays([np.arange(ROWS), LABELS], names=["place", None]),
    ],
)
def test_an_index_is_known_by_the_metadata_of_pandas(index: pandas.Index, tmp_path: Path) -> None:
    assert score(write(frame().set_axis(index), tmp_path / "t.parquet")) == RIGHT


def test_an_index_is_known_by_its_name_if_the_metadata_is_lost(tmp_path: Path) -> None:
    table = pyarrow.Table.from_pandas(filtered()).replace_schema_metadata()
    assert "__index_level_0__" in table.column_names
    pyarrow.parquet.write_table(table, tmp_path / "t.parquet")
    assert score(tmp_path / "t.parquet") == RIGHT


NUMBERS = np.arange(ROWS)
LEFT_OUT = {
    **dict.fromkeys(
        ["", "Unnamed: 0", "index", "id", "imageId", "patient_id", "ROW", "row-number", "split", "cv_fold", "is_train"],
        NUMBERS,
    ),
    **dict.fromkeys(["file_name", "class", "target", "timestamp", "class_index"], NUMBERS),
    "copy": LABELS,
    "float copy": LABELS.astype(float),
    "text": [f"0{number}.png" for number in NUMBERS],
    "when": pandas.Timestamp("2020-01-01") + pandas.to_timedelta(NUMBERS, unit="s"),
    "kind": pandas.Categorical.from_codes(LABELS, ["a", "b", "c"]),
    "empty": [None] * ROWS,
}


@pytest.mark.parametrize("name", LEFT_OUT)
def test_bookkeeping_is_left_out(name: str, tmp_path: Path) -> None:
    path = write(frame(**{name: LEFT_OUT[name]}), tmp_path / "t.parquet")
    assert score(path) == RIGHT
    assert score(path, features="*") == RIGHT


AMBIGUOUS: dict[str, Any] = {
    "hour": NUMBERS % 24,
    "recoded": LABELS * 2 + 1,
    "coarse": LABELS // 2,
    "smiling": RANDOM.random(ROWS) < 0.5,
    "text": [f" {number},5" for number in NUMBERS],
    "other": list(NOISE),
}


@pytest.mark.parametrize("name", AMBIGUOUS)
def test_what_may_be_a_feature_or_not_is_refused(name: str, tmp_path: Path) -> None:
    path = write(frame(**{name: AMBIGUOUS[name]}), tmp_path / "t.parquet")
    with pytest.raises(UsageError, match=r"try --features NAME,.* or --exclude NAME") as caught:
        score(path)
    assert (caught.value.code, caught.value.facts["path"]) == ("columns-ambiguous", str(path))
    assert name in caught.value.facts["columns"]
    assert score(path, exclude=name[:3] + "*") == RIGHT
    assert score(path, features="f*") == RIGHT


@pytest.mark.parametrize(
    ("numbers", "warned"),
    [
        (NUMBERS * 3 + 1, True),
        (NUMBERS[::-1].astype(float), True),
        (RANDOM.permutation(ROWS), True),
        (NUMBERS + 0.5, False),
        (NUMBERS // 2, False),
        (RANDOM.permutation(ROWS) * 2, False),
    ],
)
@pytest.mark.parametrize("kind", ["table", "array"])
def test_row_numbers_cause_a_warning(numbers: Any, warned: bool, kind: str, tmp_path: Path) -> None:
    if kind == "table":
        table = frame(counter=numbers).drop(columns=NAMES[2:])
        path = write(table, tmp_path / "t.parquet")
    else:
        path = tmp_path / "a.npz"
        np.savez(path, features=np.column_stack([NOISE[:, :2], numbers]), labels=LABELS)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        zoo.score_features(path)
    assert ["may be row numbers" in str(each.message) for each in caught] == [True] * warned
    assert {each.filename for each in caught} <= {__file__}


def test_features_and_exclude_name_columns_exactly_or_by_pattern(tmp_path: Path) -> None:
    path = write(frame(id=NUMBERS), tmp_path / "t.parquet")
    right = zoo.separation(NOISE[:, [0, 1, 10, 11]], LABELS).si.value
    assert score(path, features="f0,f1*") == score(path, exclude="f[2-9]") == right
    with pytest.warns(UserWarning, match="row numbers: id;"):
        zoo.score_features(path, features="f0,id")


def test_references_are_read_by_the_names_of_the_columns(tmp_path: Path) -> None:
    samples = write(frame().iloc[60:], tmp_path / "test.csv")
    references = write(frame(id=NUMBERS).iloc[:60, ::-1], tmp_path / "train.parquet")
    expected = zoo.separation(NOISE[60:], LABELS[60:], references=NOISE[:60], reference_labels=LABELS[:60])
    assert score(samples, references=references) == expected.si.value
    narrow = write(frame().drop(columns="f3"), tmp_path / "narrow.csv")
    with pytest.raises(UsageError) as caught:
        score(samples, references=narrow)
    assert (caught.value.code, caught.value.facts["path"]) == ("unknown-name", str(narrow))


def lists(**columns: Any) -> pyarrow.Table:
    return pyarrow.table({"features": list(NOISE), "label": LABELS, **columns})


FIXED_LENGTH = pyarrow.array(list(NOISE), pyarrow.list_(pyarrow.float64(), 12))
LIST_TABLES = {
    "beside others": lists(x=NUMBERS, boxes=[[0, 1]] * ROWS),
    "of one length": lists().set_column(0, "features", FIXED_LENGTH),
    "named otherwise": lists(id=NUMBERS).rename_columns(["embedding", "Label", "id"]),
}


@pytest.mark.parametrize("kind", LIST_TABLES)
def test_a_column_of_lists_holds_the_features(kind: str, tmp_path: Path) -> None:
    pyarrow.parquet.write_table(LIST_TABLES[kind], tmp_path / "t.parquet")
    assert score(tmp_path / "t.parquet") == RIGHT


def test_a_stream_of_arrow_is_read(tmp_path: Path) -> None:
    path = tmp_path / "data.arrow"
    with pyarrow.ipc.new_stream(path, lists().schema) as stream:
        stream.write_table(lists())
    assert score(path) == RIGHT


def test_a_column_that_starts_with_many_whole_numbers_is_one_of_floats(tmp_path: Path) -> None:
    rows = 150_000  # more than a megabyte, which pyarrow would guess the types from
    lines = ["0,0", *["1,1"] * rows, "0.25,0"]
    (tmp_path / "t.csv").write_text("x,label\n" + "\n".join(lines))
    options = {"per_class": 1, "references": tmp_path / "t.csv"}
    assert zoo.score_features(tmp_path / "t.csv", **options).references == rows + 2  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("table", "error", "code"),
    [
        (lists().set_column(0, "features", [[[[0.0]]] * ROWS]), DataError, "file-unreadable"),
        (lists().set_column(0, "features", [[None] * ROWS]), UsageError, "missing-features"),
        (lists().set_column(0, "features", [[[0.0], None] * (ROWS // 2)]), DataError, "file-unreadable"),
        (lists().set_column(0, "x", [[0.0, None] * (ROWS // 2)]), DataError, "not-finite"),
        (lists().set_column(1, "label", [[0.5] * ROWS]), DataError, "label-fraction"),
        (lists().set_column(1, "label", [[["cat"]] * ROWS]), UsageError, "array-dtype"),
    ],
)  # fmt: skip
def test_tables_are_refused(table: pyarrow.Table, error: type[Exception], code: str, tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pyarrow.parquet.write_table(table, path)
    with pytest.raises(error) as caught:
        score(path)
    assert (caught.value.code, caught.value.facts["path"]) == (code, str(path))  # type: ignore[attr-defined]
    assert str(path) in str(caught.value)


def test_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("x,x,label\n1,2,0\n3,4,1\n")
    with pytest.raises(DataError) as caught:
        score(tmp_path / "t.csv")
    assert (caught.value.code, caught.value.facts["columns"]) == ("columns-doubled", ["x"])


def test_names_of_bookkeeping_are_no_names_of_features() -> None:
    features = ["x", "f0", "width", "valid_area", "refractive_index", "grid", "profile", "settings", "%", "温度", "y"]
    assert [name for name in features if known_bookkeeping(name)] == []


def test_the_short_list_shortens_successive_numbers_only() -> None:
    assert short_list(["a", "f1", "f2", "f4", "f5", "f6", "f7", "b\n1"]) == "a, f1, f2, f4 … f7 (4), b 1"
    assert short_list([f"{letter}_" for letter in "abcdef"], most=4) == "a_, b_, c_, d_, and 2 more"


NAMED = np.array(["zebra", "ant", "Bee"])[LABELS]


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.parquet", "t.feather"])
@pytest.mark.parametrize("kind", [str, "category"])
def test_labels_that_are_text_become_class_names_in_sorted_order(name: str, kind: Any, tmp_path: Path) -> None:
    table = frame().assign(label=pandas.Series(NAMED).astype(kind))
    found = zoo.score_features(write(table, tmp_path / name))
    assert found.si.value == RIGHT
    assert found.class_names == ("Bee", "ant", "zebra")
    assert found.classes == {0: int((LABELS == 2).sum()), 1: int((LABELS == 1).sum()), 2: int((LABELS == 0).sum())}
    assert found.to_dict()["class_names"] == ["Bee", "ant", "zebra"]
    assert [found.class_name(label) for label in found.classes] == ["Bee", "ant", "zebra"]


def test_labels_that_are_dates_or_bytes_are_classes_too(tmp_path: Path) -> None:
    days = pandas.to_datetime(np.array(["2026-01-02", "2026-01-01", "2026-03-01"]))[LABELS]
    found = zoo.score_features(write(frame().assign(label=days), tmp_path / "t.parquet"))
    assert (found.si.value, [name[:10] for name in found.class_names]) == (
        RIGHT,
        ["2026-01-01", "2026-01-02", "2026-03-01"],
    )
    np.savez(tmp_path / "t.npz", features=NOISE, labels=NAMED.astype("S"))
    assert zoo.score_features(tmp_path / "t.npz").class_names == ("Bee", "ant", "zebra")


@pytest.mark.parametrize("name", ["t.csv", "t.parquet"])
def test_labels_that_are_missing_are_refused_by_row(name: str, tmp_path: Path) -> None:
    labels = pandas.Series(NAMED, dtype=object)
    labels[[3, 50]] = None
    with pytest.raises(DataError) as caught:
        zoo.score_features(write(frame().assign(label=labels), tmp_path / name))
    assert (caught.value.code, caught.value.facts["rows"]) == ("label-missing", [3, 50])


def test_references_have_the_same_classes_by_name(tmp_path: Path) -> None:
    table = frame().assign(label=NAMED)
    write(table, tmp_path / "all.csv")
    write(table[table.label != "ant"], tmp_path / "two.parquet")  # where "zebra" is another number
    found = zoo.score_features(tmp_path / "all.csv", references=tmp_path / "two.parquet")
    kept = LABELS != 1
    expected = zoo.separation(NOISE, LABELS, references=NOISE[kept], reference_labels=LABELS[kept])
    assert found.si.value == expected.si.value
    write(frame(), tmp_path / "numbers.csv")
    with pytest.raises(UsageError) as caught:
        zoo.score_features(tmp_path / "all.csv", references=tmp_path / "numbers.csv")
    assert (caught.value.code, caught.value.facts["path"]) == ("labels-differ", str(tmp_path / "numbers.csv"))
