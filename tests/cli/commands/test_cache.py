"""``zoo cache``: what is kept is listed and cleared, what is in use stays."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from zoo import Preprocessing, ZooError
from zoo_harness.cli.main import run
from zoo_harness.frozen.cache.chunk_files import ChunkFiles
from zoo_harness.frozen.cache.key import CacheKey, EntryRecord, EntryTitle, TensorSpec

ZOO = str(Path(sys.executable).with_name("zoo"))
KEPT = TensorSpec(name="block", shape=(1024,), dtype="float32", order=(0, 1))


def record_of(backbone: str, **changes: object) -> EntryRecord:
    given = {
        "network": backbone,
        "weights": "a" * 64,
        "kept": (KEPT,),
        "preprocessing": Preprocessing((32, 32)),
        "images": 600,
        "fingerprint": "b" * 64,
        "precision": "fp32",
        "device": "cpu",
    }
    key = CacheKey.model_validate({**given, **changes})
    return EntryRecord(title=EntryTitle(backbone=backbone, dataset="Digits", split="train"), key=key)


def keep(folder: Path, record: EntryRecord, images: int, days_ago: float = 0) -> str:
    """Write outputs of a number of images and return the key of the entry."""
    files = ChunkFiles(folder / record.digest, record)
    assert files.acquire_write_lock()
    for number, start in enumerate(range(0, images, 512)):
        rows = bytearray(4096 * min(512, images - start))
        files.write(number, memoryview(rows))
    files.close()
    used = time.time() - days_ago * 24 * 3600
    os.utime(folder / record.digest / "store.json", (used, used))
    return record.digest


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ZOO_CACHE_DIR", str(tmp_path))
    return tmp_path


@pytest.fixture
def keys(folder: Path) -> list[str]:
    """A complete entry, one that was cut short, and one of other software."""
    other = record_of("vgg19", software={"torch": "1.0"})
    return [
        keep(folder, record_of("cait_s24"), 600, 1),
        keep(folder, record_of("resnet18"), 512, 5),
        keep(folder, other, 600, 40),
    ]


def test_list_says_what_of_what_how_large_and_whether_whole(
    keys: list[str], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "notes").mkdir()
    (folder / ("f" * 32)).mkdir()
    (folder / ("f" * 32) / "store.json").write_text("{}")
    assert run(["cache", "list"]) == 0
    captured = capsys.readouterr()
    header, *lines = captured.out.splitlines()
    assert header.split() == ["key", "outputs", "of", "images", "size", "last", "used"]
    rows = {line.split()[0]: line for line in lines}
    assert list(rows)[1:] == [key[:12] for key in keys]  # the one used last comes first
    assert re.search(r"  cait_s24 on Digits, train  +600  2.4 MiB  ", rows[keys[0][:12]])
    assert " (85% done) " in rows[keys[1][:12]]
    assert "other version" in rows[keys[2][:12]]
    assert "unreadable" in rows["f" * 12]
    assert captured.err.endswith(f"of 100.0 GiB in {folder}\n")


def test_list_as_json(keys: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["cache", "list", "--json"]) == 0
    captured = capsys.readouterr()
    rows = {row["key"]: row for row in json.loads(captured.out)}
    assert captured.err == ""
    assert [rows[key]["state"] for key in keys] == ["complete", "partial", "other version"]
    assert rows[keys[1]]["images_done"] == 512
    assert rows[keys[0]]["title"] == {"backbone": "cait_s24", "dataset": "Digits", "split": "train"}
    assert rows[keys[0]]["made_of"]["kept"][0]["shape"] == [1024]
    assert rows[keys[0]]["in_use"] is False


def test_an_empty_cache(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "below").touch()
    assert run(["cache", "list", "--json"]) == 0
    assert capsys.readouterr().out == "[]\n"
    assert run(["cache", "clear", "--all"]) == 0
    assert capsys.readouterr().out == "deleted 0 of 0 entries, 0 bytes\n"
    assert (folder / "below").exists()


@pytest.mark.parametrize(
    ("arguments", "left"),
    [(["--all"], []), (["--older-than", "3"], [0]), (["--older-than", "30"], [0, 1]), (["--older-than", "0"], [])],
)
def test_clear(keys: list[str], folder: Path, arguments: list[str], left: list[int]) -> None:
    (folder / ".cleared-0123").mkdir()  # a deletion that was cut short
    assert run(["cache", "clear", *arguments]) == 0
    stores = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    assert stores == {keys[index] for index in left}
    assert (folder / ".cleared-0123").exists() == ("--all" not in arguments)


def test_clear_by_the_first_digits(keys: list[str], folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["cache", "clear", keys[0][:12], keys[1], "--json"]) == 0
    cleared = json.loads(capsys.readouterr().out)
    assert set(cleared["cleared"]) == {keys[0], keys[1]}
    assert cleared["bytes"] > 4_000_000
    assert cleared["in_use"] == []
    assert [path.name for path in folder.iterdir()] == [keys[2]]


def test_what_is_in_use_stays_and_is_told(keys: list[str], folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    user = ChunkFiles(folder / keys[0], record_of("cait_s24"))
    try:
        assert run(["cache", "list"]) == 0
        assert capsys.readouterr().out.count("in use") == 1
        assert run(["cache", "clear", "--all"]) == 0
        captured = capsys.readouterr()
        assert captured.out.startswith("deleted 2 of 3 entries, ")
        assert captured.err == (
            f"{keys[0][:12]} (cait_s24 on Digits, train) is in use by a running process and was not deleted\n"
        )
        assert run(["cache", "clear", keys[0]]) == 1
        assert "in use by a running process" in capsys.readouterr().err
    finally:
        user.close()
    assert run(["cache", "clear", keys[0]]) == 0
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ([], "option-conflict"),
        (["--all", "--older-than", "3"], "option-conflict"),
        (["--older-than", "-1"], "option-range"),
        (["--older-than", "nan"], "option-range"),
        (["nothing"], "unknown-name"),
        (["../.."], "unknown-name"),
        ([""], "unknown-name"),
    ],
)
def test_wrong_usage_clears_nothing(
    keys: list[str], folder: Path, error_of: Callable[..., ZooError], arguments: list[str], code: str
) -> None:
    error = error_of("cache", "clear", *arguments)
    assert (error.code, error.exit_code) == (code, 2)
    assert len(list(folder.iterdir())) == 3


def test_digits_that_several_keys_begin_with(keys: list[str], folder: Path, error_of: Callable[..., ZooError]) -> None:
    twin = keys[0][:4] + ("0" * 28 if keys[0][4] != "0" else "1" * 28)
    (folder / twin).mkdir()
    error = error_of("cache", "clear", keys[0][:4])
    assert (error.code, set(error.facts["keys"])) == ("cache-key-ambiguous", {keys[0][:12], twin[:12]})  # type: ignore[call-overload]


def test_a_limit_that_is_no_size(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ZOO_CACHE_LIMIT", "plenty")
    assert run(["cache", "list"]) == 2
    assert "ZOO_CACHE_LIMIT 'plenty' is not a size" in capsys.readouterr().err


def test_cache_alone_prints_its_help_and_no_command_of_it_loads_torch(folder: Path) -> None:
    ended = subprocess.run([ZOO, "cache"], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 2
    assert "clear" in ended.stderr
    program = (
        "import sys\nfrom zoo_harness.cli.main import run\nrun(['cache', 'list'])\nsys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=60).returncode == 0
