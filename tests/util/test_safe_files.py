"""Only regular files of bounded size are opened, without links and without waiting."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from zoo.errors import ZooError
from zoo_harness.util.safe_files import open_regular, read_regular

pytestmark = pytest.mark.timeout(10)


def refused(path: Path, most: int = 100, **options: object) -> ZooError:
    with pytest.raises(ZooError) as caught:
        read_regular(path, most, **options)  # type: ignore[arg-type]
    assert caught.value.facts["path"] == str(path)
    return caught.value


def test_a_regular_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "inner" / "file"
    path.parent.mkdir()
    path.write_bytes(b"content")
    assert read_regular(path, 7) == b"content"
    assert read_regular(path, 7, below=tmp_path) == b"content"
    with open_regular(path, 7) as file:
        assert not os.get_inheritable(file.fileno())


def test_a_missing_file_keeps_its_own_error(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path / "no" / "folder"):
        with pytest.raises(FileNotFoundError):
            read_regular(path, 7, below=tmp_path)


def test_links_are_refused_below_the_folder_and_taken_if_allowed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "file").write_bytes(b"content")
    (tmp_path / "folder").symlink_to("real")
    (tmp_path / "link").symlink_to("real/file")
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "circle").symlink_to("circle")
    for name in ("link", "dangling", "circle"):
        assert refused(tmp_path / name).code == "file-is-a-link"
    assert refused(tmp_path / "folder" / "file", below=tmp_path).code == "file-is-a-link"
    assert read_regular(tmp_path / "folder" / "file", 7, below=tmp_path / "folder") == b"content"
    assert read_regular(tmp_path / "folder" / "file", 7, below=tmp_path, follow_links=True) == b"content"
    assert read_regular(tmp_path / "link", 7, follow_links=True) == b"content"
    assert refused(tmp_path / "circle", follow_links=True).code in ("file-unreadable", "file-is-a-link")


@pytest.mark.parametrize("follow_links", [False, True])
def test_pipes_folders_devices_and_sockets_are_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, follow_links: bool
) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    with socket.socket(socket.AF_UNIX) as server:
        monkeypatch.chdir(tmp_path)  # the name of a socket is at most 108 bytes long
        server.bind("socket")
        for path in (tmp_path / "pipe", tmp_path / "folder", tmp_path / "socket", Path("/dev/zero")):
            assert refused(path, follow_links=follow_links).code == "not-a-regular-file"


def test_sizes_are_bounded(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345678")
    error = refused(tmp_path / "file", 7)
    assert (error.code, error.facts["size"]) == ("file-too-large", 8)
    if Path("/proc/self/maps").exists():  # it declares no size, and has one
        assert refused(Path("/proc/self/maps"), 7).code == "file-too-large"


def test_paths_out_of_the_folder_and_impossible_names_are_refused(tmp_path: Path) -> None:
    assert refused(tmp_path / "a" / ".." / ".." / "file", below=tmp_path).code == "file-outside"
    assert refused(tmp_path / "a\0b").code == "file-unreadable"
    assert refused(tmp_path / ("a" * 300)).code == "file-unreadable"
