"""Hub datasets: local copies, a Hub of our own on this machine, its cache, and no Hub at all."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
import huggingface_hub.constants
import numpy as np
import PIL.Image
import pyarrow.parquet
import pytest

from zoo import DataError, DatasetRequest, UnreachableError, UsageError, ZooError, picture, reachability
from zoo.dataset import ReadOptions
from zoo.reachability import why_unreachable
from zoo.value_range import ValueRange
from zoo_plugins.hub_class_names import read_label_file
from zoo_plugins.hub_dataset import HubCopy, load
from zoo_plugins.locations import reach_advice

COMMIT = "0123456789abcdef0123456789abcdef01234567"
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    cache = tmp_path / "cache"
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", cache)
    return cache


def make_rows(count: int = 6, **changes: Any) -> dict[str, Any]:
    random = np.random.default_rng(count)
    images = [PIL.Image.fromarray(random.integers(0, 256, (8, 9, 3), dtype=np.uint8)) for _ in range(count)]
    return {"picture": images, "kind": [index % 2 for index in range(count)], **changes}


FEATURES = {"picture": datasets.Image(), "kind": datasets.ClassLabel(names=["rose", "tulip"])}


def write_parquet(folder: Path, split: str, rows: dict[str, Any], features: dict[str, Any] = FEATURES) -> None:
    path = folder / "data" / f"{split}-00000-of-00001.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    datasets.Dataset.from_dict(rows, features=datasets.Features(features)).to_parquet(path)


def load_copy(folder: Path) -> Any:
    return load(DatasetRequest(argument="someone/flowers", data_dir=folder))


def test_a_local_copy_becomes_one_array(tmp_path: Path) -> None:
    rows = make_rows()
    write_parquet(tmp_path / "copy", "train", rows)
    write_parquet(tmp_path / "copy", "test", make_rows(2))
    loaded = load_copy(tmp_path / "copy")
    assert loaded.classes == ("rose", "tulip")
    assert loaded.source == f"folder {tmp_path}/copy"
    assert np.array_equal(loaded.splits["train"].images, np.stack([np.asarray(image) for image in rows["picture"]]))
    assert loaded.splits["test"].labels.tolist() == [0, 1]


def test_grey_images_become_an_array_without_colours(tmp_path: Path) -> None:
    grey = [PIL.Image.new("L", (4, 4), level) for level in (7, 9)]
    write_parquet(tmp_path, "train", make_rows(2, picture=grey))
    loaded = load_copy(tmp_path)
    assert list(loaded.splits) == ["train"]
    assert loaded.splits["train"].images[:, 0, 0].tolist() == [7, 9]


def test_images_of_many_sizes_or_too_many_stay_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = [PIL.Image.new("L", (4, 4)), PIL.Image.new("RGB", (5, 4))]
    write_parquet(tmp_path / "sizes", "train", make_rows(2, picture=sizes))
    images = load_copy(tmp_path / "sizes").splits["train"].images
    assert [(images[index].size, images[index].mode) for index in range(len(images))] == [
        ((4, 4), "RGB"),
        ((5, 4), "RGB"),
    ]
    monkeypatch.setattr(picture, "ARRAY_BYTES", 8 * 9 * 3 * 6 - 1)
    write_parquet(tmp_path / "many", "train", make_rows())
    assert not isinstance(load_copy(tmp_path / "many").splits["train"].images, np.ndarray)


@pytest.mark.parametrize("names", [["validation"], ["validation", "test"]])
def test_the_evaluation_split_is_test_before_validation(tmp_path: Path, names: list[str]) -> None:
    for count, name in enumerate(["train", *names], start=2):
        write_parquet(tmp_path, name, make_rows(count))
    loaded = load_copy(tmp_path)
    assert {name: len(split) for name, split in loaded.splits.items()} == {"train": 2, "test": 2 + len(names)}
    assert ("split test is its split validation" in loaded.source) == (names == ["validation"])


def refusal(act: Callable[[], object]) -> ZooError:
    with pytest.raises(ZooError) as caught:
        act()
    return caught.value


@pytest.mark.parametrize(
    ("features", "found"),
    [
        ({"kind": FEATURES["kind"]}, "no image column of type Image"),
        ({"picture": datasets.Image(), "kind": datasets.Value("int64")}, "no label column"),
        ({**FEATURES, "group": FEATURES["kind"]}, "2 label columns"),
    ],
)
def test_columns_are_found_by_type(tmp_path: Path, features: dict[str, Any], found: str) -> None:
    rows = make_rows(group=[0] * 6)
    write_parquet(tmp_path, "train", {name: rows[name] for name in features}, features)
    error = refusal(lambda: load_copy(tmp_path))
    assert error.code == "dataset-columns"
    assert found in str(error)


def test_hidden_and_missing_labels_are_named(tmp_path: Path) -> None:
    write_parquet(tmp_path, "train", make_rows())
    for labels in ([0, 1, -1], [0, 1, None]):
        write_parquet(tmp_path, "test", make_rows(3, kind=labels))
        error = refusal(lambda: load_copy(tmp_path))
        assert (error.code, error.facts["index"]) == ("label-unknown", 2)
        assert "hidden test labels" in str(error)


@pytest.mark.parametrize(
    "picture",
    [{"bytes": b"no image", "path": "a.png"}, {"bytes": None, "path": "https://a.invalid/a.png"}, None],
    ids=["bytes", "address", "none"],
)
def test_an_unreadable_image_is_named(tmp_path: Path, picture: Any) -> None:
    good = io.BytesIO()
    PIL.Image.new("L", (3, 3)).save(good, "png")
    rows = make_rows(2, picture=[{"bytes": good.getvalue(), "path": None}, picture])
    # to_parquet would read the address at once.
    table = datasets.Dataset.from_dict(rows, features=datasets.Features(FEATURES)).with_format("arrow")[:]
    pyarrow.parquet.write_table(table, tmp_path / "train.parquet")
    error = refusal(lambda: load_copy(tmp_path))
    assert error.code == "image-undecodable"
    assert "split train, image 1" in str(error.facts["image"])


# Files that number the classes differently


def write_shard(folder: Path, name: str, classes: list[str], kinds: list[str], *, metadata: bool = True) -> None:
    """Write a parquet file with class names of its own, or without any; each image is as bright as its class."""
    known = sorted(set(classes))
    rows = {
        "picture": [PIL.Image.new("L", (4, 4), known.index(kind)) for kind in kinds],
        "kind": [classes.index(kind) for kind in kinds],
    }
    features = datasets.Features({"picture": datasets.Image(), "kind": datasets.ClassLabel(names=classes)})
    path = folder / "data" / f"{name}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    datasets.Dataset.from_dict(rows, features=features).to_parquet(path)
    if not metadata:
        table = pyarrow.parquet.read_table(path)
        pyarrow.parquet.write_table(table.replace_schema_metadata(None), path)


def kinds(loaded: Any, split: str) -> list[tuple[int, str]]:
    """Brightness of each image, which is the place of its true class, and the class that its label names."""
    images, labels = loaded.splits[split].images, loaded.splits[split].labels
    return [(int(image[0, 0]), loaded.classes[label]) for image, label in zip(images, labels, strict=True)]


def test_labels_of_splits_that_number_classes_differently_are_mapped_by_name(tmp_path: Path) -> None:
    write_shard(tmp_path, "train", ["bread", "candy", "soup"], ["bread", "candy", "soup", "soup"])
    write_shard(tmp_path, "test", ["soup", "candy", "bread"], ["bread", "soup", "candy"])
    loaded = load_copy(tmp_path)
    assert loaded.classes == ("bread", "candy", "soup")
    assert kinds(loaded, "test") == [(0, "bread"), (2, "soup"), (1, "candy")]
    assert kinds(loaded, "train") == [(0, "bread"), (1, "candy"), (2, "soup"), (2, "soup")]
    assert loaded.reading[0].startswith("class numbers mapped by name in split test:")


def test_files_of_one_split_may_number_classes_differently_too(tmp_path: Path) -> None:
    write_shard(tmp_path, "train-00000-of-00002", ["bread", "candy"], ["candy", "bread", "bread"])
    write_shard(tmp_path, "train-00001-of-00002", ["candy", "bread"], ["candy", "candy", "bread"])
    names = ["bread", "candy"]
    expected = [(index, names[index]) for index in (1, 0, 0, 1, 1, 0)]
    assert kinds(load_copy(tmp_path), "train") == expected


def test_files_that_number_classes_alike_are_not_touched(tmp_path: Path) -> None:
    write_shard(tmp_path, "train", ["bread", "candy"], ["candy", "bread"])
    write_shard(tmp_path, "test", ["bread", "candy"], ["candy"])
    loaded = load_copy(tmp_path)
    assert (loaded.reading, kinds(loaded, "test")) == ((), [(1, "candy")])


@pytest.mark.parametrize("other", [["bread", "soup"], ["bread"], ["bread", "candy", "soup"], ["Bread", "candy"]])
def test_class_names_that_only_one_split_has_are_refused(tmp_path: Path, other: list[str]) -> None:
    write_shard(tmp_path, "train", ["bread", "candy"], ["candy", "bread"])
    write_shard(tmp_path, "test", other, [other[0]])
    with pytest.raises(DataError) as caught:
        load_copy(tmp_path)
    assert caught.value.code == "class-mismatch"
    assert caught.value.facts["files"] == ["train.parquet", "test.parquet"]


def test_a_file_without_class_names_beside_others_that_differ_is_refused(tmp_path: Path) -> None:
    write_shard(tmp_path, "train-00000-of-00001", ["bread", "candy"], ["candy", "bread"])
    write_shard(tmp_path, "test-00000-of-00002", ["candy", "bread"], ["candy"])
    write_shard(tmp_path, "test-00001-of-00002", ["candy", "bread"], ["candy"], metadata=False)
    with pytest.raises(DataError) as caught:
        load_copy(tmp_path)
    assert caught.value.code == "class-names-unknown"


CARD = """---
dataset_info:
  features:
  - name: picture
    dtype: image
  - name: kind
    dtype:
      class_label:
        names:
          '0': {first}
          '1': {second}
---
"""


@pytest.mark.parametrize(("first", "second"), [("candy", "bread"), ("Sweets", "Loaf")])
def test_the_names_of_the_card_are_compared_too(tmp_path: Path, first: str, second: str) -> None:
    write_shard(tmp_path, "train", ["bread", "candy"], ["candy", "bread", "bread"])
    (tmp_path / "README.md").write_text(CARD.format(first=first, second=second))
    loaded = load_copy(tmp_path)
    names = ["bread", "candy"] if first == "candy" else ["Sweets", "Loaf"]
    assert kinds(loaded, "train") == [(1, names[1]), (0, names[0]), (0, names[0])]
    assert len(loaded.reading) == 1


def test_columns_can_be_named(tmp_path: Path) -> None:
    features = {**FEATURES, "group": datasets.ClassLabel(names=["old", "new"])}
    write_parquet(tmp_path, "train", make_rows(group=[1] * 3 + [0] * 3), features)
    request = DatasetRequest("someone/flowers", tmp_path, ReadOptions(label_column="group"))
    assert load(request).classes == ("old", "new")
    with pytest.raises(UsageError) as caught:
        load(DatasetRequest("someone/flowers", tmp_path, ReadOptions(label_column="gruop")))
    assert (caught.value.code, caught.value.facts["near"]) == ("unknown-name", ["group"])


@pytest.mark.parametrize("one_size", [True, False])
def test_unreadable_images_are_listed_or_skipped(tmp_path: Path, one_size: bool) -> None:
    def encoded(index: int) -> bytes:
        file = io.BytesIO()
        PIL.Image.new("L", (3, 3 if one_size else 3 + index)).save(file, "png")
        return file.getvalue()

    pictures = [{"bytes": b"broken" if index in (0, 2) else encoded(index), "path": None} for index in range(6)]
    table = datasets.Dataset.from_dict(make_rows(6, picture=pictures), features=datasets.Features(FEATURES))
    copy = tmp_path / "copy"  # beside the cache of the tests
    copy.mkdir()
    pyarrow.parquet.write_table(table.with_format("arrow")[:], copy / "train.parquet")
    with pytest.raises(DataError, match=r"2 of 6 images cannot be read: .*image 0 .*image 2 ") as caught:
        load_copy(copy)
    assert (caught.value.code, caught.value.facts["count"]) == ("images-unreadable", 2)
    loaded = load(DatasetRequest("someone/flowers", copy, ReadOptions(skip_unreadable=True)))
    assert loaded.splits["train"].labels.tolist() == [1, 1, 0, 1]
    assert isinstance(loaded.splits["train"].images, np.ndarray) == one_size
    assert loaded.skipped == {"unreadable images": 2}


def test_animations_among_the_rows_are_told(tmp_path: Path) -> None:
    file = io.BytesIO()
    frames = [PIL.Image.new("L", (3, 3), level) for level in (9, 200)]
    frames[0].save(file, "gif", save_all=True, append_images=frames[1:])
    pictures = [{"bytes": file.getvalue(), "path": None}] * 2
    table = datasets.Dataset.from_dict(make_rows(2, picture=pictures), features=datasets.Features(FEATURES))
    pyarrow.parquet.write_table(table.with_format("arrow")[:], tmp_path / "train.parquet")
    request = DatasetRequest(argument="someone/flowers", data_dir=tmp_path)
    load(request)
    assert request.reader.warnings()[0].startswith("2 file(s) have several pages or frames")


def test_an_argument_that_is_a_path_is_the_folder_of_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_parquet(tmp_path / "flowers", "train", make_rows())
    write_parquet(tmp_path / "flowers", "test", make_rows(2))
    for argument in ("./flowers", str(tmp_path / "flowers")):
        loaded = load(DatasetRequest(argument=argument))
        assert (loaded.source, loaded.revision) == (f"folder {tmp_path}/flowers", None)
        assert np.array_equal(loaded.splits["test"].images, load_copy(tmp_path / "flowers").splits["test"].images)
    assert refusal(lambda: load(DatasetRequest(argument="./none"))).code == "missing-folder"
    assert refusal(lambda: load(DatasetRequest(argument="./flowers", data_dir=tmp_path))).code == "option-unused"
    assert "try hf:./flowers" in str(refusal(lambda: load(DatasetRequest(argument="flowers"))))


def test_a_folder_that_is_no_copy(tmp_path: Path) -> None:
    assert refusal(lambda: load_copy(tmp_path / "none")).code == "missing-folder"
    with_revision = DatasetRequest(argument="someone/flowers@main", data_dir=tmp_path)
    assert refusal(lambda: load(with_revision)).code == "argument-unused"
    assert refusal(lambda: load_copy(tmp_path)).code == "dataset-unreadable"
    (tmp_path / "train.parquet").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    assert refusal(lambda: load_copy(tmp_path)).code == "dataset-unreadable"
    shutil.rmtree(tmp_path / "cache")
    (tmp_path / "train.parquet").unlink()
    write_parquet(tmp_path, "test", make_rows(2))
    assert refusal(lambda: load_copy(tmp_path)).code == "split-missing"


@pytest.mark.parametrize(
    "argument",
    [
        *("", "flowers", "a/b/c", "someone/..", "some one/flowers", "someone/-flowers"),
        *("someone/flowers@", "someone/flowers@../x", "someone/flowers@a b", "https://huggingface.co/a/b"),
    ],
)
def test_names_that_name_no_data_set_are_usage_errors(argument: str) -> None:
    error = refusal(lambda: load(DatasetRequest(argument=argument)))
    assert (type(error), error.code) == (UsageError, "repository-name")


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    # The top-level domain "invalid" never resolves, with or without a network (RFC 2606).
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "https://hub.invalid")


@pytest.mark.usefixtures("no_hub")
def test_an_unreachable_hub_is_an_error_at_once_and_quietly(capfd: pytest.CaptureFixture[str]) -> None:
    start = time.monotonic()
    with pytest.raises(UnreachableError, match=r"host hub.invalid does not resolve.*HF_HUB_OFFLINE") as caught:
        load(DatasetRequest(argument="someone/flowers"))
    assert time.monotonic() - start < 5
    assert [place.split(" ")[0] for place, _reason in caught.value.tried] == ["cache", "Hugging"]
    assert capfd.readouterr() == ("", "")


@pytest.mark.usefixtures("no_hub")
def test_reasons_not_to_use_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "does not resolve" in (why_unreachable("https://hub.invalid") or "")
    assert "127.0.0.1 does not answer" in (why_unreachable("http://127.0.0.1:9") or "")
    with socket.create_server(("127.0.0.1", 0)) as server:
        place = f"127.0.0.1:{server.getsockname()[1]}"
        assert why_unreachable(f"http://{place}/path") is None
        monkeypatch.setenv("https_proxy", f"http://{place}")
        assert why_unreachable("https://hub.invalid") is None, "the proxy resolves the name"
    monkeypatch.setenv("https_proxy", "http://proxy.invalid:3128")
    assert "proxy proxy.invalid does not resolve" in (why_unreachable("https://hub.invalid") or "")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert why_unreachable("https://hub.invalid") == "HF_HUB_OFFLINE is set"
    assert reach_advice("files") == "pass --data-dir FOLDER with files, or unset HF_HUB_OFFLINE to allow downloads"


@pytest.mark.usefixtures("no_hub")
def test_a_server_that_says_nothing_is_given_up_in_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reachability, "PATIENCE", 0.3)
    with socket.socket() as server, contextlib.ExitStack() as waiting:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        for _ in range(8):  # as many as it lets wait; the system then drops further connections
            client = waiting.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(server.getsockname())
        start = time.monotonic()
        reason = why_unreachable(f"http://127.0.0.1:{server.getsockname()[1]}")
    assert "does not answer" in (reason or "")
    assert time.monotonic() - start < 3


@pytest.mark.usefixtures("no_hub")
def test_built_in_class_names_replace_as_many_of_the_hub(own_cache: Path, tmp_path: Path) -> None:
    write_parquet(tmp_path / "flowers", "train", make_rows())
    load_copy(tmp_path / "flowers")
    (own_cache / "flowers").rename(own_cache / "someone___flowers")
    copy = HubCopy("someone/flowers", columns=("picture", "kind"), classes=("Rose", "Tulip"))
    assert copy.cached().classes == ("Rose", "Tulip")
    three_classes = HubCopy("someone/flowers", classes=("a", "b", "c"))
    assert refusal(three_classes.cached).code == "class-mismatch"
    assert refusal(HubCopy("someone/flowers", columns=("picture", "label")).cached).code == "dataset-columns"


@pytest.mark.usefixtures("no_hub")
def test_class_names_that_cannot_be_compared_are_told(own_cache: Path, tmp_path: Path) -> None:
    """A cached copy whose files are gone says so; files whose footers are damaged are refused."""
    write_parquet(tmp_path / "flowers", "train", make_rows())
    assert load_copy(tmp_path / "flowers").reading == ()
    (own_cache / "flowers").rename(own_cache / "someone___flowers")
    assert "class names in them are not compared" in HubCopy("someone/flowers").cached().reading[0]
    (own_cache / "someone___flowers").rename(own_cache / "flowers")
    path = tmp_path / "damaged.parquet"
    path.write_bytes(b"PAR1 no footer")
    with pytest.raises(DataError) as caught:
        read_label_file(path, "kind")
    assert (caught.value.code, caught.value.facts["path"]) == ("table-damaged", str(path))


def test_images_of_12_bits_become_one_array_in_one_range(tmp_path: Path) -> None:
    bright, dark = (PIL.Image.new("I;16", (4, 4), value) for value in (4095, 240))
    for split in ("train", "test"):
        file = [io.BytesIO(), io.BytesIO()]
        for image, each in zip((dark, bright) if split == "train" else (dark, dark), file, strict=True):
            image.save(each, "PNG")
        pictures = [{"bytes": each.getvalue(), "path": None} for each in file]
        write_parquet(tmp_path, split, make_rows(2, picture=pictures))
    request = DatasetRequest(argument="someone/flowers", data_dir=tmp_path)
    loaded = load(request)
    assert loaded.splits["train"].images[:, 0, 0].tolist() == [15, 255]
    assert loaded.splits["test"].images[:, 0, 0].tolist() == [15, 15]
    assert request.reader.value_range == ValueRange(0, 4095)


@pytest.mark.usefixtures("no_hub")
def test_a_damaged_cache_is_named(own_cache: Path, tmp_path: Path) -> None:
    write_parquet(tmp_path / "flowers", "train", make_rows())
    load_copy(tmp_path / "flowers")
    (own_cache / "flowers").rename(own_cache / "someone___flowers")
    for arrow in own_cache.rglob("*.arrow"):
        arrow.write_bytes(b"damaged")
    error = refusal(HubCopy("someone/flowers").cached)
    assert error.code == "dataset-unreadable"
    assert str(error.facts["path"]).startswith(f"{own_cache}/someone___flowers")


class FakeHub(http.server.ThreadingHTTPServer):
    """The part of the Hub's interface that reading one dataset needs."""

    daemon_threads = True

    def __init__(self, name: str, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.name = name
        self.files = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
        self.requests: list[str] = []


class Handler(http.server.BaseHTTPRequestHandler):
    server: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Print nothing."""

    def do_GET(self) -> None:
        self.server.requests.append(self.path)
        path = self.path.partition("?")[0]
        files = f"/datasets/{self.server.name}/resolve/"
        about = f"/api/datasets/{self.server.name}"
        if path.startswith(files):
            self.send_file(path.removeprefix(files).partition("/")[2])
        elif path.startswith(f"{about}/tree/"):
            self.send_tree(path.removeprefix(f"{about}/tree/").partition("/")[2])
        elif path.startswith(about):
            siblings = [{"rfilename": name} for name in self.server.files]
            self.send_json({"id": self.server.name, "sha": COMMIT, "tags": [], "siblings": siblings})
        else:
            self.send_content(b"", 404, **{"X-Error-Code": "RepoNotFound"})

    do_HEAD = do_GET  # noqa: N815

    def send_file(self, name: str) -> None:
        content = self.server.files.get(name)
        if content is None:
            self.send_content(b"", 404, **{"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
        else:
            digest = hashlib.sha256(content).hexdigest()
            self.send_content(content, 200, **{"X-Repo-Commit": COMMIT, "ETag": f'"{digest}"'})

    def send_tree(self, folder: str) -> None:
        files = {name: content for name, content in self.server.files.items() if name.startswith(folder)}
        listing = [{"type": "file", "path": name, "size": len(content), "oid": "0"} for name, content in files.items()]
        if not folder:
            listing += [{"type": "directory", "path": "data", "oid": "0"}]
        self.send_json(listing)

    def send_json(self, value: Any) -> None:
        self.send_content(json.dumps(value).encode(), 200, **{"Content-Type": "application/json"})

    def send_content(self, content: bytes, status: int, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


@pytest.fixture
def fake_hub(tmp_path: Path) -> Iterator[FakeHub]:
    write_parquet(tmp_path / "hub", "train", make_rows())
    write_parquet(tmp_path / "hub", "test", make_rows(2))
    hub = FakeHub("someone/Flowers", tmp_path / "hub")
    thread = threading.Thread(target=hub.serve_forever)
    thread.start()
    yield hub
    hub.shutdown()
    hub.server_close()
    thread.join()


LOAD_EACH = """
import json, sys
from zoo import DatasetRequest, ZooError
from zoo_plugins.hub_dataset import load
for argument in sys.argv[1:]:
    try:
        loaded = load(DatasetRequest(argument=argument))
        print(json.dumps([loaded.source, loaded.revision, loaded.splits["train"].images.shape]))
    except ZooError as error:
        print(json.dumps(str(error)))
"""


def load_in_a_fresh_process(
    hub: FakeHub, home: Path, *arguments: str, script: str = LOAD_EACH, **environment: str
) -> list[Any]:
    kept = {name: value for name, value in os.environ.items() if name not in PROXIES and not name.startswith("HF_")}
    own = {"HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}", "HF_HOME": str(home)}
    result = subprocess.run(
        [sys.executable, "-W", "error::ResourceWarning", "-c", script, *arguments],
        env=kept | own | environment,
        cwd=home.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_downloaded_once_then_cached(fake_hub: FakeHub, tmp_path: Path) -> None:
    home = tmp_path / "home"
    found = ["Hugging Face Hub someone/Flowers, configuration default", COMMIT, [6, 8, 9, 3]]
    first, unknown = load_in_a_fresh_process(fake_hub, home, "someone/Flowers", "someone/nothing")
    assert first == found
    assert "Hugging Face Hub someone/nothing (DatasetNotFoundError: Dataset 'someone/nothing' doesn't" in unknown
    fake_hub.requests.clear()
    arguments = ("someone/Flowers", f"someone/Flowers@{COMMIT}", "someone/Flowers@v2")
    again, pinned, other = load_in_a_fresh_process(fake_hub, home, *arguments, HF_HUB_OFFLINE="1")
    assert (again, pinned) == (found, found)
    assert f"contains revision {COMMIT}" in other
    assert "HF_HUB_OFFLINE is set" in other
    assert fake_hub.requests == []


def test_class_numbers_of_a_downloaded_copy_are_mapped_also_without_network(fake_hub: FakeHub, tmp_path: Path) -> None:
    write_shard(tmp_path / "made", "train", ["bread", "candy"], ["candy", "bread", "bread"])
    write_shard(tmp_path / "made", "test", ["candy", "bread"], ["candy", "candy", "bread"])
    fake_hub.files = {f"data/{path.name}": path.read_bytes() for path in (tmp_path / "made" / "data").iterdir()}
    script = LOAD_EACH.replace('loaded.splits["train"].images.shape', 'loaded.splits["test"].labels.tolist()')
    for offline in ("0", "1"):
        (found,) = load_in_a_fresh_process(
            fake_hub, tmp_path / "home", "someone/Flowers", script=script, HF_HUB_OFFLINE=offline
        )
        assert found[1:] == [COMMIT, [1, 1, 0]]
