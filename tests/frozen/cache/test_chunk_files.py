"""Chunk files: all or nothing, found out when they are damaged, and read without maps."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from zoo import ZooError
from zoo_harness.frozen.cache.chunk_files import ChunkFiles, stored_chunks
from zoo_harness.frozen.cache.entries import entries
from zoo_harness.frozen.cache.key import EntryRecord, TensorSpec
from zoo_harness.util.file_lock import FileLock

from .caches import ROW_BYTES, TITLE, chunk_file, digest_of, key_of, opened, outputs

SIZES = (3, 2**13)
KEY = key_of(*(TensorSpec(name=f"{n}", shape=(n,), dtype="uint8", order=(0, 1)) for n in SIZES), images=600)
ROWS = np.random.default_rng(0).integers(0, 256, (600, KEY.row_bytes), np.uint8)


def test_every_tensor_of_a_row_begins_where_any_dtype_may() -> None:
    assert KEY.columns == [slice(0, 8), slice(8, 8 + 2**13)]
    assert KEY.row_bytes == 8 + 2**13


@pytest.fixture
def files(tmp_path: Path) -> ChunkFiles:
    """Return the files of two chunks, of several pieces each."""
    files = ChunkFiles(tmp_path / "entry", EntryRecord(title=TITLE, key=KEY))
    assert files.acquire_write_lock()
    for number in (0, 1):
        chunk = KEY.chunk(number)
        files.write(number, memoryview(ROWS[chunk.start : chunk.stop]).cast("B"))
    return files


def test_chunks_are_read_whole_and_row_by_row(files: ChunkFiles) -> None:
    assert stored_chunks(files.folder, KEY) == [0, 1]
    read = np.empty_like(ROWS[512:])
    assert files.read(1, memoryview(read).cast("B"))
    assert np.array_equal(ROWS[512:], read)
    wanted = np.array([599, 0, 511, 512, 511])
    gathered = [np.empty((5, column.stop - column.start), np.uint8) for column in KEY.columns]
    files.gather(wanted, [memoryview(part).cast("B") for part in gathered])
    assert np.array_equal(ROWS[wanted], np.concatenate(gathered, 1))
    assert sorted(path.name for path in files.folder.iterdir()) == [
        "000000.chunk", "000001.chunk", "store.json", "use", "write",
    ]  # fmt: skip


def test_damage_is_found_by_a_check_and_by_a_read(files: ChunkFiles) -> None:
    path = files.folder / "000000.chunk"
    content = path.read_bytes()
    flipped = bytearray(content)
    flipped[2**21] ^= 4
    for damaged in (flipped, content[:-1], content[:1000], b"", content + b"x", bytes(len(content)), None):
        path.write_bytes(damaged) if damaged is not None else path.unlink()
        assert not files.read(0)
        assert not files.read(0, memoryview(bytearray(512 * KEY.row_bytes)))
        assert files.read(1)


def test_a_file_that_is_truncated_while_it_is_read_is_an_error(written: Path) -> None:
    with opened(written) as cache:
        cache.finish()
        os.truncate(chunk_file(written, 1), 488 * ROW_BYTES)
        assert cache.read([999])[0].equal(outputs(999, 1000)[0])
        with pytest.raises(ZooError) as raised:
            cache.read([999, 1000])
    assert (raised.value.code, raised.value.facts["path"]) == ("cache-unreadable", str(written / digest_of()))


def test_one_process_writes_at_a_time(files: ChunkFiles) -> None:
    other = ChunkFiles(files.folder, EntryRecord(title=TITLE, key=KEY))
    assert not other.acquire_write_lock()
    files.release_write_lock()
    assert other.acquire_write_lock()
    files.close()
    other.remove_chunks()
    assert stored_chunks(other.folder, KEY) == []
    other.close()


def test_an_entry_that_is_cleared_while_a_process_opens_it_is_made_again(files: ChunkFiles) -> None:
    files.close()
    lock = FileLock(files.folder / "use")
    assert lock.acquire(exclusive=True)
    again = []
    thread = threading.Thread(target=lambda: again.append(ChunkFiles(files.folder, EntryRecord(title=TITLE, key=KEY))))
    thread.start()
    time.sleep(0.1)
    files.folder.rename(files.folder.with_name("gone"))
    lock.release()
    thread.join(20)
    assert stored_chunks(again[0].folder, KEY) == []
    again[0].close()


def test_no_link_is_followed_and_leftovers_are_removed(written: Path, tmp_path: Path) -> None:
    folder, outside = written / digest_of(), tmp_path / "outside"
    outside.write_bytes(b"mine")
    chunk_file(written, 1).unlink()
    chunk_file(written, 1).symlink_to(outside)
    for name in ("000001.tmp", "000002.tmp"):
        (folder / name).symlink_to(outside)
    (folder / ".store.json.01234567.tmp").touch()
    os.utime(folder / ".store.json.01234567.tmp", (0, 0))
    (folder / "store.json").unlink()
    (folder / "store.json").symlink_to(outside)
    with opened(written) as cache:
        assert cache.missing_images == 512
        for start, stop in cache.missing(100):
            cache.write(start, outputs(start, stop))
        cache.finish()
    assert outside.read_bytes() == b"mine"
    assert [path for path in folder.iterdir() if path.is_symlink() or path.suffix == ".tmp"] == []


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", ["000000.chunk", "store.json", "use", "write"])
def test_a_pipe_in_an_entry_holds_up_nothing(written: Path, name: str) -> None:
    path = written / digest_of() / name
    path.unlink()
    os.mkfifo(path)
    with opened(written, "host") as cache:
        assert cache.missing_images == (512 if name == "000000.chunk" else 0)
    entries(written)


@pytest.mark.parametrize("name", ["use", "write"])
def test_a_lock_that_is_a_link_creates_no_file_elsewhere(written: Path, tmp_path: Path, name: str) -> None:
    (written / digest_of() / name).unlink()
    (written / digest_of() / name).symlink_to(tmp_path / "made")
    chunk_file(written, 0).unlink()
    with opened(written, "host"):
        pass
    assert not (tmp_path / "made").exists()


def test_folders_that_others_may_write_or_own_are_refused_with_a_remedy(written: Path, tmp_path: Path) -> None:
    entry = written / digest_of()
    for folder in (written, entry):
        folder.chmod(0o770)
        with pytest.raises(ZooError, match=f"chmod go-w {folder}") as refused, opened(written):
            pass
        assert refused.value.code == "cache-no-room"
        folder.chmod(0o700)
    entry.rename(tmp_path / "moved")
    entry.symlink_to(tmp_path / "moved")
    with pytest.raises(ZooError, match="a symbolic link"), opened(written):
        pass
    if os.geteuid() == 0:
        entry.unlink()
        (tmp_path / "moved").rename(entry)
        os.chown(entry, 12345, 12345)
        with pytest.raises(ZooError, match="another user owns"), opened(written):
            pass
        os.chown(entry, 0, 0)
        os.chown(chunk_file(written, 0), 12345, 12345)
        with opened(written) as cache:
            assert cache.missing_images == 512
