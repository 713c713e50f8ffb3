"""Entries of the cache folder: evicted when it is full, and never under a running process."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from zoo import ZooError
from zoo_harness.frozen.cache.entries import cache_folder, clear, entries

from .caches import IMAGES, digest_of, fill, key_of, opened, outputs, until


def test_an_entry_in_use_is_neither_cleared_nor_evicted(written: Path, begin: Callable[..., Any]) -> None:
    user = begin(written, after="wait()")
    until((written / "read").exists)
    (entry,) = entries(written)
    assert entry.in_use
    assert not clear(entry)
    limit = entry.bytes + 1000
    other = opened(written, key=key_of(fingerprint="c"), policy={"limit": limit})
    with pytest.raises(ZooError, match=r"ZOO_CACHE_LIMIT limits .* KiB, and running processes use 9\d\.0 KiB; try"):
        other.__enter__()
    (written / "go").touch()
    user.join(60)
    assert user.exitcode == 0
    assert not entry.in_use
    with opened(written, key=key_of(fingerprint="c"), policy={"limit": limit}) as cache:
        assert len(fill(cache)) == 15
    assert [other.key == entry.key for other in entries(written)] == [False]
    assert clear(entries(written)[0])
    assert entries(written) == []


def test_room_is_left_for_what_a_running_process_has_to_write(tmp_path: Path) -> None:
    with opened(tmp_path, policy={"limit": 100_000}) as cache:
        cache.write(0, outputs(0, 100))
        said: list[str] = []
        with opened(tmp_path, "host", key_of(fingerprint="c"), policy={"limit": 100_000}, say=said.append) as other:
            assert (len(fill(other)), other.in_files) == (15, False)
        assert "cached in memory only, not for later runs" in said[0]
        fill(cache)


def test_the_least_recently_used_entry_is_evicted_when_the_cache_is_full(tmp_path: Path) -> None:
    keys = [key_of(fingerprint=name) for name in "cde"]
    for age, key in zip((300, 100, 200), keys, strict=True):
        with opened(tmp_path, key=key) as cache:
            fill(cache)
        used = time.time() - age
        os.utime(tmp_path / digest_of(key) / "store.json", (used, used))
    limit = sum(entry.bytes for entry in entries(tmp_path)) + 1000
    with opened(tmp_path, key=keys[1], policy={"limit": limit}) as cache:
        assert cache.missing_images == 0
    assert len(entries(tmp_path)) == 3
    said: list[str] = []
    with opened(tmp_path, policy={"limit": limit}, say=said.append) as cache:
        assert cache.place == "disk"
    assert {entry.key for entry in entries(tmp_path)} == {digest_of(), digest_of(keys[1]), digest_of(keys[2])}
    assert len(said) == 1
    assert said[0].startswith("cleared cached outputs of tiny on made up, train (9")


def test_entries_of_another_format_or_software_are_left_alone_and_listed(written: Path) -> None:
    """An entry of the first format had its rows in one file for each tensor."""
    older, software = written / ("0" * 32), key_of(software={"torch": "1.0"})
    (written / digest_of()).rename(older)
    record = older / "store.json"
    record.write_text(record.read_text().replace("blockzoo features 4", "blockzoo features 1"))
    (older / "0.rows").write_bytes(bytes(1000))
    (older / "journal").write_text("0 00000000\n")
    with opened(written, key=software) as cache:
        fill(cache)
    with opened(written) as cache:
        assert cache.missing_images == IMAGES
    found = {entry.key: entry for entry in entries(written)}
    assert {found["0" * 32].state, found[digest_of(software)].state} == {"other version"}
    assert found["0" * 32].record is None
    assert clear(found["0" * 32])
    assert not older.exists()


def test_where_the_cache_lies_and_who_may_read_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("ZOO_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = cache_folder()
    assert folder == tmp_path / "blockzoo" / "features"
    with opened(folder) as cache:
        fill(cache)
    entry = folder / digest_of()
    assert [path.stat().st_mode & 0o777 for path in (folder, entry)] == [0o700, 0o700]
    monkeypatch.setenv("ZOO_CACHE_DIR", "~/kept")
    assert cache_folder() == Path("~/kept").expanduser()
    record = json.loads((entry / "store.json").read_text())
    assert record["title"] == {"backbone": "tiny", "dataset": "made up", "split": "train"}
    assert str(tmp_path) not in json.dumps(record)
