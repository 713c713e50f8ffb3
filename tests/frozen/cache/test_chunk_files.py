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
from zoo_harness.frozen.cache.key import CachedTensor, EntryRecord
from zoo_harness.util.file_lock import FileLock

from .caches import ROW_BYTES, TITLE, chunk_file, digest_of, key_of, opened, outputs

KEY = key_of(*(CachedTensor(name=f"{width}", shape=(width,), dtype="uint8") for width in (3, 2**13)), images=600)
ROWS = [np.random.default_rng(0).integers(0, 256, (600, *spec.shape), np.uint8) for spec in KEY.kept]


@pytest.fixture
def files(tmp_path: Path) -> ChunkFiles:
    """Return the files of two chunks, of several pieces each."""
    files = ChunkFiles(tmp_path / "entry", EntryRecord(title=TITLE, key=KEY))
    assert files.acquire_write_lock()
    for number in (0, 1):
        chunk = KEY.chunk(number)
        files.write(number, [memoryview(rows[chunk.start : chunk.stop]).cast("B") for rows in ROWS])
    return files


def test_chunks_are_read_whole_and_row_by_row(files: ChunkFiles) -> None:
    assert stored_chunks(files.folder, KEY) == [0, 1]
    read = [np.empty_like(rows[512:]) for rows in ROWS]
    assert files.read(1, [memoryview(rows).cast("B") for rows in read])
    assert all(np.array_equal(rows[512:], part) for rows, part in zip(ROWS, read, strict=True))
    wanted = np.array([599, 0, 511, 512, 511])
    gathered = [np.empty_like(rows[:5]) for rows in ROWS]
    files.gather(wanted, [memoryview(rows).cast("B") for rows in gathered])
    assert all(np.array_equal(rows[wanted], part) for rows, part in zip(ROWS, gathered, strict=True))
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
        assert not files.read(0, [memoryview(bytearray(512 * width)) for width in (3, 2**13)])
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
