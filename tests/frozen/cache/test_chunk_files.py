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
    assert (raised.value.code, raised.value.facts["path"]) == ("cache-unreadable", written / digest_of())


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
