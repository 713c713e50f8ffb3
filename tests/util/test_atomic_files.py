"""Files appear whole or not at all."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from zoo_harness.util.atomic_files import replacing, write_bytes, write_text


def test_text_is_utf8_with_the_line_ends_given(tmp_path: Path) -> None:
    write_text(tmp_path / "a", "é\n\r\n")
    assert (tmp_path / "a").read_bytes() == b"\xc3\xa9\n\r\n"


def test_what_was_there_is_replaced_and_nothing_is_left_over(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("old, and longer")
    write_bytes(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_failure_keeps_the_old_file_and_removes_the_half_written_one(tmp_path: Path, error: BaseException) -> None:
    def write_half() -> None:
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise error

    path = tmp_path / "a"
    path.write_text("old")
    with pytest.raises(type(error)):
        write_half()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_reader_sees_the_old_file_until_the_end(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("old")
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert temporary.parent == path.parent
        assert path.read_text() == "old"
    assert path.read_text() == "new"


def test_file_reaches_the_disk_before_its_name_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    replace = Path.replace

    def noted_replace(self: Path, target: Path) -> Path:
        events.append("replace")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", lambda _descriptor: events.append("fsync"))
    monkeypatch.setattr(Path, "replace", noted_replace)
    write_text(tmp_path / "a", "text")
    assert events == ["fsync", "replace", "fsync"]


def test_mode_follows_the_umask(tmp_path: Path) -> None:
    previous = os.umask(0o022)
    try:
        write_text(tmp_path / "a", "text")
    finally:
        os.umask(previous)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o644


def test_block_that_writes_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "a"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_missing_folder_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        write_text(tmp_path / "nowhere" / "a", "text")
