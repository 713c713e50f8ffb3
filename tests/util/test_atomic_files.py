"""Files appear whole or not at all."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from zoo.errors import ZooError
from zoo_harness.util.atomic_files import (
    create_folder,
    folder_lock,
    full_disk_named,
    remove_temporaries,
    replacing,
    scratch_folder,
    write_bytes,
    write_text,
)


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


# Folders

HOLD = """
import sys, time
from pathlib import Path
from zoo_harness.util.atomic_files import scratch_folder
with scratch_folder(Path(sys.argv[1]), "zoo-publish-", 0o700) as folder:
    (folder / "file").write_text("x")
    print(folder.name, flush=True)
    time.sleep(60)
"""


def test_a_scratch_folder_of_a_killed_process_is_removed_and_that_of_a_living_one_stays(tmp_path: Path) -> None:
    (tmp_path / "zoo-publish-00000000.tmp").write_text("a file of this name")
    (tmp_path / "other-00000000.tmp").mkdir()
    (tmp_path / "linked").mkdir()
    (tmp_path / "zoo-publish-11111111.tmp").symlink_to("linked")
    untouched = {path.name for path in tmp_path.iterdir()}
    with subprocess.Popen([sys.executable, "-c", HOLD, tmp_path], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        living = process.stdout.readline().strip()
        with scratch_folder(tmp_path, "zoo-publish-", 0o700) as folder:
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700
            assert (tmp_path / living / "file").exists()
        assert {path.name for path in tmp_path.iterdir()} == {*untouched, living}
        process.send_signal(signal.SIGKILL)
    assert (tmp_path / living).exists()
    with scratch_folder(tmp_path, "zoo-publish-") as folder:
        assert {path.name for path in tmp_path.iterdir()} == {*untouched, folder.name}
    assert {path.name for path in tmp_path.iterdir()} == untouched


def test_a_folder_takes_the_place_of_an_empty_one_also_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "source").write_text("x")
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    (tmp_path / ".real.0123abcd.tmp").mkdir()  # of a killed process
    create_folder(tmp_path / "link", {"file": tmp_path / "source"})
    assert (tmp_path / "real" / "file").read_text() == "x"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "real", "source"]


def test_one_process_at_a_time_has_the_lock_of_a_folder(tmp_path: Path) -> None:
    with folder_lock(tmp_path) as one, folder_lock(tmp_path) as other:
        assert (one, other) == (True, False)
    with folder_lock(tmp_path) as again:
        assert again


def test_temporary_files_of_killed_processes_are_removed(tmp_path: Path) -> None:
    for name in (".a.0123abcd.tmp", ".b.0123abcd.tmp", ".a.tmp", "a", ".a.0123abcz.tmp"):
        (tmp_path / name).write_text("")
    remove_temporaries(tmp_path, ["a"])
    assert sorted(path.name for path in tmp_path.iterdir()) == [".a.0123abcz.tmp", ".a.tmp", ".b.0123abcd.tmp", "a"]


def test_a_full_disk_is_named_and_other_errors_pass(tmp_path: Path) -> None:
    with pytest.raises(ZooError) as raised, full_disk_named(tmp_path, "make room"):
        raise OSError(errno.ENOSPC, "No space left on device", "/somewhere/source")
    assert (raised.value.code, raised.value.facts["path"]) == ("disk-full", str(tmp_path))
    assert "source" not in str(raised.value)
    with pytest.raises(PermissionError), full_disk_named(tmp_path, "make room"):
        raise PermissionError(errno.EACCES, "Permission denied")
